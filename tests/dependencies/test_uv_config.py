"""What uv's variables and uv.toml say of the caller's indexes."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cleanroom.dependencies.settings import Settings, basic
from cleanroom.dependencies.uv_config import authorization, indexes

FILE = """
index-url = "https://old.corp/simple"
extra-index-url = ["https://more.corp:8443/simple", 7]
[[index]]
name = "corp-a"
url = "https://a.corp/simple"
[[index]]
url = ["none"]
[pip]
index-url = "https://pip.corp/simple"
"""


def test_indexes_of_variables_and_of_the_file_are_named(tmp_path: Path):
    """By host and port, which may then be private ones."""
    (tmp_path / "uv.toml").write_text(FILE)
    variables = {
        "UV_CONFIG_FILE": str(tmp_path / "uv.toml"),
        "UV_DEFAULT_INDEX": "https://default.corp/simple",
        "UV_INDEX": "b=https://b.corp/simple https://c.corp/s?x=1",
        "UV_EXTRA_INDEX_URL": "file:///srv/wheels https://[broken",
    }
    found = {one.host for one in indexes(Settings(variables, tmp_path))}
    names = ("old", "a", "pip", "default", "b", "c")
    assert found == {*(f"{name}.corp:443" for name in names), "more.corp:8443"}


def test_a_login_is_for_its_own_host_only(tmp_path: Path):
    """In the address, or in the variables of the index's name."""
    variables = {
        "UV_DEFAULT_INDEX": "https://me:p%40ss@default.corp/simple",
        "UV_INDEX": "corp-a=https://a.corp/simple",
        "UV_INDEX_CORP_A_USERNAME": "you",
        "UV_INDEX_CORP_A_PASSWORD": "word",
    }
    known = indexes(Settings(variables, tmp_path))
    assert authorization(known, "https://default.corp/files/x.whl") == basic("me", "p@ss")
    assert authorization(known, "https://a.corp/x.whl") == basic("you", "word")
    assert authorization(known, "https://a.corp:8443/x.whl") == {}
    assert authorization(known, "https://elsewhere.example/x.whl") == {}


@given(st.text())
def test_any_text_is_read(text: str):
    """What is none is left out."""
    variables = {"UV_INDEX": text, "UV_INDEX_URL": text}
    for one in indexes(Settings(variables, Path("/nonexistent"))):
        assert one.host
