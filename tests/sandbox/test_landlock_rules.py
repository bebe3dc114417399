"""Landlock in a forked child: what the lists allow, and nothing else."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cleanroom.sandbox.kernel import landlock
from support.sandbox_harness import code

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(landlock.abi() == 0, reason="no Landlock in this kernel"),
]


def in_child(action: Callable[[], Any]) -> Any:
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write_end, json.dumps(action()).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as file:
        text = file.read()
    os.waitpid(pid, 0)
    return json.loads(text)


def test_only_the_writable_folder_is_written(tmp_path: Path):
    """A file can be made in a writable folder and in no other, even by root."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()

    def act() -> list[str]:
        landlock.restrict(["/"], [str(inside)])
        return [
            code(lambda: (inside / "file").write_text("x")),
            code(lambda: (outside / "file").write_text("x")),
        ]

    assert in_child(act) == ["ok", "EACCES"]


def test_a_rule_for_a_single_file_is_accepted(tmp_path: Path):
    """A writable entry may be a file: the rights of folders are left out,
    which the kernel would refuse.
    """
    file = tmp_path / "file"
    file.touch()

    def act() -> list[str]:
        landlock.restrict([], [str(file)])
        return [
            code(lambda: file.write_text("x")),
            code(lambda: (tmp_path / "other").write_text("x")),
        ]

    assert in_child(act) == ["ok", "EACCES"]


def test_a_path_that_is_not_there_is_skipped(tmp_path: Path):
    """A list may name what does not exist on this machine."""
    assert (
        in_child(lambda: code(lambda: landlock.restrict([str(tmp_path / "none")], ["/nowhere"])))
        == "ok"
    )


def test_readable_is_not_executable(tmp_path: Path):
    """A program in a readable folder can be read and not run; in an executable one it can."""
    for name in ("readable", "executable"):
        (tmp_path / name).mkdir()
        program = tmp_path / name / "program"
        program.write_text("#!/bin/sh\nexit 0\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def act() -> list[Any]:
        landlock.restrict(
            [str(tmp_path / "readable")],
            [],
            [str(tmp_path / "executable"), "/usr", "/bin", "/lib", "/lib64"],
        )
        found: list[Any] = [code(lambda: (tmp_path / "readable" / "program").read_text())]
        for name in ("readable", "executable"):
            pid = os.fork()
            if pid == 0:
                try:
                    os.execv(tmp_path / name / "program", ["program"])
                finally:
                    os._exit(126)
            found.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        return found

    assert in_child(act) == ["ok", 126, 0]


def test_devices_that_programs_take_for_granted_stay_writable():
    """/dev/null can be written although no list names it."""

    def act() -> str:
        landlock.restrict(["/"], [])
        return code(lambda: os.close(os.open("/dev/null", os.O_WRONLY)))

    assert in_child(act) == "ok"


def test_no_process_outside_can_be_signalled():
    """The scope keeps signals inside, where the kernel has it."""
    if landlock.abi() < 6:
        pytest.skip("scopes came with ABI 6")
    parent = os.getpid()

    def act() -> str:
        landlock.restrict(["/"], [])
        return code(lambda: os.kill(parent, 0))

    assert in_child(act) == "EPERM"


def test_what_was_written_is_started_only_where_it_is_listed(tmp_path: Path):
    """Without `run_written` a writable folder may hold programs and start none,
    but for those that lie in an executable one below it.
    """
    build = tmp_path / "build"
    build.mkdir()
    tools = [tmp_path / "tool", build / "tool"]
    for tool in tools:
        tool.write_bytes(Path("/bin/true").read_bytes())
        tool.chmod(0o755)

    def act() -> list[str]:
        landlock.restrict(
            ["/"],
            [str(tmp_path)],
            ["/usr", "/lib", "/lib64", "/bin", str(build)],
            run_written=False,
        )
        return [code(lambda: os.posix_spawn(str(tool), [str(tool)], {})) for tool in tools]  # noqa: B023

    assert in_child(act) == ["EACCES", "ok"]
