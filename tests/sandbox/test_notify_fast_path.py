"""The first look at a held call says "inside" only where the full judgement lets the call go on,
and says it for ordinary work.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanroom.sandbox.kernel import syscalls
from cleanroom.sandbox.kernel.caller import Caller
from cleanroom.sandbox.kernel.constants import AT_FDCWD_U32
from cleanroom.sandbox.kernel.syscall_numbers import NUMBERS
from cleanroom.sandbox.seccomp_notify.fast_path import FastPath
from cleanroom.sandbox.seccomp_notify.files import Files
from cleanroom.sandbox.seccomp_notify.held_call import HeldCall
from cleanroom.sandbox.seccomp_notify.paths import Paths
from cleanroom.sandbox.seccomp_notify.rules import Grants, Rules

_TEXT = ctypes.create_string_buffer(b"text")
pytestmark = pytest.mark.skipif(
    syscalls.peek(os.getpid(), ctypes.addressof(_TEXT)) != b"text",
    reason="memory of other processes may not be read here, so there is no first look",
)
OPEN = os.O_WRONLY | os.O_CREAT | os.O_EXCL


class Looks:
    """Both judgements of calls that this very process would make."""

    def __init__(self, folder: Path) -> None:
        self.proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
        writable = [str(folder / "open")]
        tools = [str(folder / "open" / "closed")]
        rules = Rules(Grants(writable=writable, read_only=tools))
        self.paths = Paths()
        self.caller = Caller(os.getpid(), self.proc)
        self.quick, self.files = FastPath(rules, self.proc, self.paths), Files(rules, self.paths)
        self.paths.root(self.caller)

    def both(
        self, name: str, *arguments: int | str, folder: int = AT_FDCWD_U32
    ) -> tuple[bool, bool]:
        """Whether the first look says inside, and whether the full judgement lets it go on.

        Texts become addresses of themselves.
        """
        kept = [
            ctypes.create_string_buffer(os.fsencode(said)) if isinstance(said, str) else said
            for said in arguments
        ]
        words = tuple(
            said if isinstance(said, int) else ctypes.addressof(said) for said in kept
        ) + (0,) * (6 - len(kept))
        return self.quick.stays_inside(os.getpid(), NUMBERS[name], words), self.files.judge(
            HeldCall(0, self.caller, name, words)
        ) is None


@pytest.fixture
def looks(tmp_path, monkeypatch):
    (tmp_path / "open" / "closed").mkdir(parents=True)
    (tmp_path / "open" / "deep").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "open" / "leads-out").symlink_to(tmp_path / "outside")
    (tmp_path / "open" / "leads-in").symlink_to("deep")
    monkeypatch.chdir(tmp_path / "open")
    found = Looks(tmp_path)
    yield found
    found.paths.close()
    os.close(found.proc)


@pytest.mark.parametrize("path", ["new", "deep/new", "./deep/new", "deep", "missing/new", "..name"])
def test_what_ordinary_programs_write_is_inside_at_the_first_look(looks, path):
    """A plain relative path below a writable folder needs no more than the first look."""
    assert looks.both("openat", AT_FDCWD_U32, path, OPEN) == (True, True)


@pytest.mark.parametrize(
    "path",
    [
        "../outside/new",
        "deep/../../outside/new",
        "leads-out/new",
        "leads-in/new",
        "closed/new",
        "/etc/new",
        "",
        "/",
    ],
)
def test_whatever_is_not_plain_is_left_to_the_full_judgement(looks, path):
    """Links, "..", a tool's folder below one's own, and what lies elsewhere are never said to be
    inside, not even where they are.
    """
    assert not looks.both("openat", AT_FDCWD_U32, path, OPEN)[0]


def test_both_names_of_a_renaming_have_to_be_inside(looks, tmp_path):
    """One that leads out is enough to look closer."""
    assert looks.both("rename", "deep", "deeper")[0]
    assert not looks.both("rename", "deep", str(tmp_path / "outside" / "deep"))[0]
    assert not looks.both("rename", str(tmp_path / "outside"), "deep")[0]


def test_a_path_is_taken_from_the_folder_that_its_descriptor_is(looks, tmp_path):
    """The same name is inside below one descriptor, and not below another."""
    inside, outside = (os.open(tmp_path / name, os.O_RDONLY) for name in ("open", "outside"))
    try:
        assert looks.both("unlinkat", inside, "new", 0)[0]
        assert not looks.both("unlinkat", outside, "new", 0)[0]
        assert not looks.both("unlinkat", 4000, "new", 0)[0]
    finally:
        os.close(inside)
        os.close(outside)


def test_devices_and_calls_of_other_kinds_are_not_its_own(looks):
    """What more than a path decides is left alone."""
    assert not looks.both("mknodat", AT_FDCWD_U32, "new", 0o20644, 0)[0]
    assert not looks.quick.stays_inside(os.getpid(), NUMBERS["connect"], (3, 0, 0, 0, 0, 0))


def test_a_long_path_and_memory_that_is_not_there_are_left_to_the_full_judgement(looks):
    """Neither is an error here."""
    assert not looks.both("unlink", "deep/" + 60 * "name/" + "new")[0]
    assert not looks.quick.stays_inside(os.getpid(), NUMBERS["unlink"], (8, 0, 0, 0, 0, 0))


PARTS = st.sampled_from(
    [
        "",
        ".",
        "..",
        "deep",
        "closed",
        "leads-out",
        "leads-in",
        "new",
        "open",
        "outside",
        "deep (deleted)",
    ]
)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_inside_at_the_first_look_is_inside_for_the_full_judgement(data, tmp_path_factory):
    """There is no path that only the first look lets go."""
    folder = tmp_path_factory.getbasetemp() / "property"
    for name in ("open/deep", "open/closed", "outside"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, to in (("leads-out", "../outside"), ("leads-in", "deep")):
        if not (folder / "open" / name).is_symlink():
            (folder / "open" / name).symlink_to(to)
    parts = "/".join(data.draw(st.lists(PARTS, min_size=1, max_size=6)))
    start = data.draw(st.sampled_from(["", f"{folder}/", f"{folder}/open/", "/"]))
    looks = Looks(folder)
    here = os.open(folder / "open", os.O_RDONLY)
    try:
        quick, goes_on = looks.both("openat", here, start + parts, OPEN)
        assert goes_on or not quick
    finally:
        os.close(here)
        looks.paths.close()
        os.close(looks.proc)
