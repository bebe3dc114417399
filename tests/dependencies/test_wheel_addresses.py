"""Wheels that a project names by their addresses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.dependencies import direct_files
from cleanroom.dependencies.model import Artifact, Problem, Stored
from cleanroom.dependencies.requirements import parse
from cleanroom.dependencies.session import Session
from cleanroom.dependencies.wheel_addresses import wheel_address
from cleanroom.model.errors import DependencyRejected

URL = "https://h.example/p/a-1.0-py3-none-any.whl"
DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("text", "digest", "marker"),
    [
        (f"a @ {URL}", "", ""),
        (f"a[x,y]@{URL}#sha256={DIGEST}", f"sha256:{DIGEST}", ""),
        (f"a @ {URL}#md5=1 ; python_version > '3'", "", "python_version > '3'"),
    ],
)
def test_an_address_of_a_wheel_is_read(text: str, digest: str, marker: str):
    """With its digest and its marker."""
    wheel = wheel_address(text)
    assert wheel is not None
    assert (wheel.name, wheel.version, wheel.url) == ("a", "1.0", URL)
    assert (wheel.digest, wheel.marker) == (digest, marker)


@pytest.mark.parametrize(
    "text",
    [
        "a @ http://h.example/a-1.0-py3-none-any.whl",
        "a @ https://h.example/a-1.0.tar.gz",
        "a @ https://h.example/a.whl",
        "a @ https://u:p@h.example/a-1.0-py3-none-any.whl",
        "a @ https://${HOST}/a-1.0-py3-none-any.whl",
        "a @ https://h.example/..%2fa-1.0-py3-none-any.whl%0a",
        f"a @ git+{URL}",
        f"-r x @ {URL}",
        URL,
    ],
)
def test_others_are_not(text: str):
    """They stay problems, each by name."""
    assert wheel_address(text) is None


@given(st.text())
def test_any_text_is_read_or_not(text: str):
    """It comes with a project."""
    wheel_address(text)
    wheel_address(f"a @ https://h/{text}")


def test_a_file_with_digests_and_an_address_stays_pinned():
    """pip resolves nothing of it."""
    content = f"b==1 --hash=sha256:{DIGEST}\na @ {URL} --hash=sha256:{DIGEST}\n".encode()
    read = parse("requirements.txt", {"requirements.txt": content})
    assert read.locked
    assert [one.hashes for one in read.entries] == [(f"sha256:{DIGEST}",)] * 2


class _Redirected:
    """A session whose host leads elsewhere, or gives another file."""

    def __init__(self, code: str) -> None:
        self._code = code
        self.noted: list[Problem] = []

    async def download(self, artifacts: Sequence[Artifact]) -> tuple[Stored, ...]:
        raise DependencyRejected(self._code, "redirected", hint="none")

    def note(self, problem: Problem) -> None:
        self.noted.append(problem)


async def test_an_address_that_leads_elsewhere_is_named_and_no_more():
    """Another file than the digest says is refused all the same."""
    wheel = wheel_address(f"a @ {URL}")
    assert wheel is not None
    session: Any = _Redirected("CR-FETCH-002")
    assert await direct_files.had(cast("Session", session), [wheel.artifact]) == {}
    assert [one.entry for one in session.noted] == [f"a @ {URL}"]
    with pytest.raises(DependencyRejected):
        await direct_files.had(cast("Session", _Redirected("CR-FETCH-001")), [wheel.artifact])
