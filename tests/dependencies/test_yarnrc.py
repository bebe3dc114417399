"""`.yarnrc.yml`: registries, credentials, and which yarn a project has."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.dependencies.yarnrc import Yarnrc

TEXT = b"""
npmRegistryServer: "https://r.example/npm"
npmAuthToken: "${TOKEN}"
npmScopes:
  ours:
    npmRegistryServer: https://ours.example/
    npmAuthIdent: "me:secret"
npmRegistries:
  "//third.example":
    npmAuthToken: third
yarnPath: .yarn/releases/yarn-3.8.7.cjs
plugins:
  - path: .yarn/plugins/x.cjs
"""
RC = Yarnrc(TEXT, {"TOKEN": "t"})


def test_registries_are_by_scope():
    """Without a slash at the end."""
    assert (RC.registry("a"), RC.registry("@ours/a"), RC.registry("@other/a")) == (
        "https://r.example/npm",
        "https://ours.example",
        "https://r.example/npm",
    )
    assert RC.registries() == {
        "https://r.example/npm",
        "https://ours.example/",
        "https://third.example",
    }


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://r.example/npm/a/-/a-1.tgz", "Bearer t"),
        ("https://ours.example/a", "Basic " + base64.b64encode(b"me:secret").decode()),
        ("https://third.example/a", "Bearer third"),
        ("https://r.example/other/a.tgz", ""),
        ("https://r.example.evil/npm/a.tgz", ""),
        ("https://x.example/npm/a.tgz", ""),
    ],
)
def test_credentials_go_to_their_registry_only(url: str, expected: str):
    """By the longest address."""
    assert RC.authorization(url) == expected


def test_a_projects_variables_are_nobodys():
    """`${TOKEN}` of a file that comes with the project reads nothing of the caller's."""
    assert Yarnrc(TEXT).authorization("https://r.example/npm/a") == ""
    assert Yarnrc(b"npmRegistryServer: ${X-https://d.example}").registry() == "https://d.example"


def test_the_release_is_a_version_and_no_path():
    """The file itself is the project's, and is not run."""
    assert RC.release() == "3.8.7"
    for text in (b"yarnPath: ../../evil.cjs", b"yarnPath: x/yarn-1/../2.cjs", b"", b"[1]", b"a: *"):
        assert Yarnrc(text).release() == ""


@given(st.binary() | st.text(alphabet="npmScoesRgityAuh: -\n{}[]\"'x/").map(str.encode))
def test_any_content_is_read(text: bytes):
    """A file that cannot be read names nothing."""
    found = Yarnrc(text)
    assert isinstance(found.registry("@a/b"), str)
    assert isinstance(found.authorization("https://x/y"), str)
