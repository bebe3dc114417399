"""uv's lock: which packages are fetched, and what is refused by name."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.dependencies.model import Artifact, Found, Stored
from cleanroom.dependencies.python_tags import Interpreter
from cleanroom.dependencies.settings import Settings
from cleanroom.dependencies.uv import Uv, _led_to_server, _wheel
from cleanroom.model.errors import ProjectError

URL = "https://files.example/packages/a-1.0-py3-none-any.whl"
REGISTRY = 'source = { registry = "https://pypi.example/simple" }'
WHEEL = f'wheels = [{{ url = "{URL}", hash = "sha256:{"0" * 64}", size = 7 }}]'
PACKAGE = f'[[package]]\nname = "a"\nversion = "1.0"\n{REGISTRY}\n{WHEEL}\n'
MANAGER = Uv(Settings({}, Path("/nonexistent")))


def found(text: str) -> Found:
    return Found("uv", "", {"uv.lock": text.encode()})


def test_packages_of_registries_are_to_be_fetched():
    """Those of the project itself are not."""
    text = PACKAGE + '[[package]]\nname = "p"\nversion = "0"\nsource = { editable = "." }\n'
    assert MANAGER.read(found(text)).unresolved == ("a 1.0",)


def test_a_wheel_has_address_digest_and_size():
    """As the lock has them."""
    import tomllib

    package = tomllib.loads(PACKAGE)["package"][0]
    artifact = _wheel(package, Interpreter("cpython", 3, 12, "x86_64"))
    assert artifact is not None
    assert (artifact.url, artifact.digest, artifact.size) == (URL, "sha256:" + "0" * 64, 7)
    assert (artifact.file, artifact.purl) == ("a-1.0-py3-none-any.whl", "pkg:pypi/a@1.0")


@pytest.mark.parametrize(
    "source",
    [
        'source = { git = "https://host.example/a?rev=1#1" }',
        'source = { url = "https://host.example/a.whl" }',
        REGISTRY,
    ],
)
def test_what_cannot_be_had_without_running_its_code_is_named(source: str):
    """Sources beside registries, and packages without a wheel."""
    text = f'[[package]]\nname = "a"\nversion = "1.0"\n{source}\n'
    assert [one.entry for one in MANAGER.read(found(text)).problems] == ["a 1.0"]


@pytest.mark.parametrize(
    "text", ["x =", "package = 1", "package = [1]", '[[package]]\nname = "a"\n', "\0"]
)
def test_what_is_no_lock_is_refused_by_name(text: str):
    """CR-FETCH-006, at the file."""
    with pytest.raises(ProjectError) as refused:
        MANAGER.read(found(text))
    assert refused.value.code == "CR-FETCH-006"


@given(st.binary())
def test_any_bytes_are_read_or_refused(content: bytes):
    """A lock comes with the project: it may say anything."""
    with suppress(ProjectError):
        MANAGER.read(Found("uv", "", {"uv.lock": content}))


def test_in_the_copy_of_a_lock_addresses_lead_to_the_loopback():
    """Only those of files that were fetched."""
    artifact = Artifact(name="a", version="1.0", file="a.whl", url=URL)
    stored = Stored(artifact=artifact, sha256="0" * 64, size=7)
    other = URL.replace("a-1.0", "b-1.0")
    text = _led_to_server(f'x = "{URL}"\ny = "{other}"\n'.encode(), [stored]).decode()
    assert '"{served}/files.example/packages/a-1.0-py3-none-any.whl"' in text
    assert f'"{other}"' in text


@pytest.mark.parametrize(
    "name", ["a; true", "a$(true)", "-a", "a\\u001b[31m", "a\\n::error::b", ""]
)
def test_a_name_that_uv_has_not_refuses_the_lock(name: str):
    """It would be a word of a command, and a line of the log."""
    with pytest.raises(ProjectError, match="name, version or source"):
        MANAGER.read(found(f'[[package]]\nname = "{name}"\nversion = "1.0"\n{REGISTRY}\n'))


@pytest.mark.parametrize(
    "wheel",
    [
        f'url = "{URL}"',
        f'url = "{URL}", hash = "md5:{"0" * 32}"',
        f'url = "{URL}", hash = "sha256:/etc/passwd"',
        f'url = "https://[", hash = "sha256:{"0" * 64}"',
        f'url = "file:///a-1.0-py3-none-any.whl", hash = "sha256:{"0" * 64}"',
    ],
)
def test_a_wheel_without_a_strong_digest_or_an_address_is_not_fetched(wheel: str):
    """It is named."""
    import tomllib

    text = f'[[package]]\nname = "a"\nversion = "1.0"\n{REGISTRY}\nwheels = [{{ {wheel} }}]\n'
    assert [one.entry for one in MANAGER.read(found(text)).problems] == ["a 1.0"]
    package = tomllib.loads(text)["package"][0]
    assert _wheel(package, Interpreter("cpython", 3, 12, "x86_64")) is None


def test_a_lock_of_deep_brackets_is_refused_by_name():
    """And not by Python's own limit."""
    with pytest.raises(ProjectError, match="found another file"):
        MANAGER.read(found("x = " + "[" * 50_000))
