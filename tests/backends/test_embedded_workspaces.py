"""Embedded workspaces: what environments hand on, what comes back to the project,
and what never does.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cleanroom.backends.base import Mount, Renewed, WorkspaceSpec
from cleanroom.backends.embedded.copied_workspace import CopiedWorkspace
from cleanroom.core.beneath import Folder
from support.embedded_harness import Entered, Phase, run

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]


@pytest.fixture
def shared(project: Path, tmp_path: Path) -> WorkspaceSpec:
    return WorkspaceSpec(root=str(project), scratch=str(tmp_path / "cache/runs/t/workspace"))


@pytest.fixture
def run_folder(tmp_path: Path) -> Iterator[Folder]:
    with Folder.at(tmp_path) as folder:
        yield folder


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    """Every path with mode, content or target, and time of change."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        content = (
            os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
        )
        found[str(path.relative_to(root))] = (oct(info.st_mode), content, info.st_mtime_ns)
    return found


REWRITE = (
    "for i in 1 2 3; do echo new > f$i; done; rm file; rm -r sub; mkdir sub; echo again > "
    "sub/again; ln -s f1 link; chmod 4755 f2"
)


async def test_a_project_is_untouched_until_its_changes_are_brought_back(
    entered: Entered, phase: Phase, shared: WorkspaceSpec, project: Path
):
    """FS-31, CLN-24: rewriting, deleting and re-creating inside changes neither content nor time
    outside.
    """
    before = tree(project)
    async with (
        entered() as backend,
        backend.workspace(shared),
        backend.environment(phase(workspace=shared)) as environment,
    ):
        assert (await run(environment, REWRITE))[0].exit_code == 0
    assert tree(project) == before


async def test_bringing_back_equals_a_plain_run(
    entered: Entered,
    phase: Phase,
    shared: WorkspaceSpec,
    project: Path,
    tmp_path: Path,
    run_folder: Folder,
):
    """FS-32, FS-30: whiteouts and opaque folders arrive as deletions;
    a setuid bit does not arrive.
    """
    async with entered() as backend, backend.workspace(shared) as workspace:
        async with backend.environment(phase(workspace=shared)) as environment:
            await run(environment, REWRITE)
        await workspace.changes()
        back = await workspace.write_back(None, run_folder)
    assert back.conflicts == ()
    assert {path: row[1] for path, row in tree(project).items()} == {
        "f1": b"new\n",
        "f2": b"new\n",
        "f3": b"new\n",
        "sub": "",
        "sub/again": b"again\n",
        "link": "f1",
    }
    assert not (project / "f2").stat().st_mode & 0o6000
    assert (project / "f1").stat().st_uid == project.stat().st_uid


async def test_the_next_environment_sees_what_the_last_one_did(
    entered: Entered, phase: Phase, shared: WorkspaceSpec
):
    """Layers stack: additions, changes and deletions are handed on, brought back or not."""
    async with entered() as backend, backend.workspace(shared):
        async with backend.environment(phase("one", workspace=shared)) as first:
            await run(first, "echo one > made; rm file")
        async with backend.environment(phase("two", workspace=shared)) as second:
            assert (await run(second, "cat made; ls"))[1].split() == ["one", "made", "sub"]
            await run(second, "echo two >> made; echo back > file")
        async with backend.environment(phase("three", workspace=shared)) as third:
            assert (await run(third, "cat made file"))[1].split() == ["one", "two", "back"]


async def test_only_named_paths_come_back(
    entered: Entered,
    phase: Phase,
    shared: WorkspaceSpec,
    project: Path,
    tmp_path: Path,
    run_folder: Folder,
):
    """Outputs are chosen by path; `.git` and `.ggen` never come of themselves."""
    async with entered() as backend, backend.workspace(shared) as workspace:
        async with backend.environment(phase("one", workspace=shared)) as environment:
            await run(environment, "echo a > wanted; echo b > other")
        await workspace.changes()
        await workspace.write_back(["wanted"], run_folder)
        assert ((project / "wanted").exists(), (project / "other").exists()) == (True, False)
        async with backend.environment(phase("two", workspace=shared)) as environment:
            await run(
                environment,
                (
                    "mkdir -p .git/hooks .ggen; echo x > .git/hooks/post-checkout; echo y > "
                    ".ggen/state.json; echo z > ours"
                ),
            )
        await workspace.changes()
        await workspace.write_back(None, run_folder)
    assert (project / "ours").exists()
    assert not (project / ".git").exists()
    assert not (project / ".ggen").exists()


async def test_what_changed_on_the_host_meanwhile_is_not_overwritten(
    entered: Entered,
    phase: Phase,
    shared: WorkspaceSpec,
    project: Path,
    tmp_path: Path,
    run_folder: Folder,
):
    """The user's edit stays; ours goes to the conflicts folder and is named."""
    async with entered() as backend, backend.workspace(shared) as workspace:
        async with backend.environment(phase(workspace=shared)) as environment:
            await run(environment, "echo ours > file")
        (project / "file").write_text("the user's\n")
        await workspace.changes()
        back = await workspace.write_back(None, run_folder)
    assert back.conflicts == ("file",)
    assert (project / "file").read_text() == "the user's\n"
    assert (tmp_path / "conflicts/file").read_text() == "ours\n"


async def test_hostile_outputs_are_refused_and_named(
    entered: Entered,
    phase: Phase,
    shared: WorkspaceSpec,
    project: Path,
    tmp_path: Path,
    run_folder: Folder,
):
    """FS-33: a link that leads out, a FIFO and a socket do not come back;
    an ordinary file beside them does.
    """
    hostile = (
        "ln -s /etc/passwd leads-out; ln -s ../../outside dots; mkfifo pipe; echo ok > fine; "
        "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"./sock\")'"
    )
    async with entered() as backend, backend.workspace(shared) as workspace:
        async with backend.environment(phase(workspace=shared)) as environment:
            assert (await run(environment, hostile))[0].exit_code == 0
        changes = {change.path: change.kind for change in await workspace.changes()}
        await workspace.write_back(None, run_folder)
    assert changes == {
        "leads-out": "refused",
        "dots": "refused",
        "pipe": "refused",
        "sock": "refused",
        "fine": "file",
    }
    assert sorted(path.name for path in project.iterdir()) == ["file", "fine", "sub"]


async def test_the_tree_is_dead_before_changes_are_read(
    entered: Entered, phase: Phase, shared: WorkspaceSpec
):
    """FS-35: a background writer that still runs at the end has stopped when the layer is looked
    at.
    """
    async with entered() as backend, backend.workspace(shared) as workspace:
        async with backend.environment(phase(workspace=shared)) as environment:
            await run(
                environment,
                "setsid sh -c 'while :; do date >> growing; done' > /dev/null 2>&1 & sleep 0.05",
            )
        first = await workspace.changes()
        assert first == await workspace.changes()
        assert [change.path for change in first] in ([], ["growing"])


async def test_a_layer_that_resists_is_removed(
    entered: Entered, phase: Phase, shared: WorkspaceSpec
):
    """CLN-15: folders of mode 000 and read-only files do not keep a layer alive."""
    async with entered() as backend:
        async with (
            backend.workspace(shared),
            backend.environment(phase(workspace=shared)) as environment,
        ):
            await run(
                environment,
                "mkdir -p deep/er; echo x > deep/er/f; chmod 400 deep/er/f; chmod 000 deep/er deep",
            )
        scratch = backend.scratch
    assert not scratch.exists()
    assert (await backend.ledger())[2] == ()


async def test_the_engine_s_own_folder_is_hidden(
    entered: Entered, phase: Phase, shared: WorkspaceSpec, project: Path
):
    """`.ggen/cleanroom` of the project is an empty folder inside, which cannot be written."""
    (project / ".ggen/cleanroom/audit").mkdir(parents=True)
    (project / ".ggen/cleanroom/audit/audit.jsonl").write_text("the log")
    async with (
        entered() as backend,
        backend.workspace(shared),
        backend.environment(phase(workspace=shared)) as environment,
    ):
        assert (await run(environment, "ls -A .ggen/cleanroom"))[1] == ""
        assert (await run(environment, "echo forged > .ggen/cleanroom/audit.jsonl"))[
            0
        ].exit_code != 0
    assert (project / ".ggen/cleanroom/audit/audit.jsonl").read_text() == "the log"


async def test_a_tool_is_visible_at_its_own_path_and_its_neighbours_are_not(
    entered: Entered, phase: Phase, shared: WorkspaceSpec, tmp_path: Path
):
    """A mounted tools folder runs its programs and refuses to be written;
    secrets beside it do not exist.
    """
    tool = tmp_path / "home/.tool/bin"
    tool.mkdir(parents=True)
    (tool / "say").write_text("#!/bin/sh\necho said\n")
    (tool / "say").chmod(0o755)
    (tmp_path / "home/.ssh").mkdir()
    (tmp_path / "home/.ssh/key").write_text("secret")
    for folder in (tool, tool.parent, tmp_path / "home"):
        folder.chmod(0o755)
    spec = phase(workspace=shared, mounts=(Mount(source=str(tool), target=str(tool)),))
    async with (
        entered() as backend,
        backend.workspace(shared),
        backend.environment(spec) as environment,
    ):
        assert (await run(environment, f"{tool}/say"))[1] == "said\n"
        assert (await run(environment, f"echo x > {tool}/say"))[0].exit_code != 0
        assert (await run(environment, f"cat {tmp_path}/home/.ssh/key"))[0].exit_code != 0
        assert (await run(environment, "ls -A /root /home"))[1].split() == [
            "/home:",
            "cleanroom",
            "/root:",
        ]
    assert (tool / "say").read_text().endswith("echo said\n")


@pytest.mark.parametrize("where", ["read", "write"])
async def test_a_second_name_outside_is_a_copy_inside(
    entered: Entered,
    phase: Phase,
    shared: WorkspaceSpec,
    project: Path,
    tmp_path: Path,
    run_folder: Folder,
    where: str,
):
    """FS-16: writing a file whose hard link lies outside leaves that one as it was,
    even when the change comes back.
    """
    (tmp_path / "second-name").write_text("as it was\n")
    os.link(tmp_path / "second-name", project / "twice")
    action: dict[str, Callable[[], str]] = {
        "read": lambda: "cat twice",
        "write": lambda: "echo changed > twice",
    }
    async with entered() as backend, backend.workspace(shared) as workspace:
        async with backend.environment(phase(workspace=shared)) as environment:
            assert (await run(environment, action[where]()))[0].exit_code == 0
        await workspace.changes()
        await workspace.write_back(None, run_folder)
    assert (tmp_path / "second-name").read_text() == "as it was\n"


async def test_a_project_below_var_tmp_is_seen_there_and_makes_nothing_on_the_host(entered, phase):
    """A private folder of the environment's root never leads a mount to the host's folder of
    another name.
    """
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        (Path(folder) / "file").write_text("here")
        heard = bytearray()
        async with entered() as backend:
            spec = WorkspaceSpec(root=folder, scratch=str(backend.scratch / "workspace"))
            async with (
                backend.workspace(spec),
                backend.environment(phase(workspace=spec, working_directory=folder)) as environment,
            ):
                await environment.exec(
                    ("sh", "-c", "cat file; echo x > /var/tmp/mine"),
                    on_output=lambda _, piece: heard.extend(piece),
                )

    assert heard == b"here"
    assert not (Path("/tmp") / Path(folder).name).exists()
    assert not Path("/var/tmp/mine").exists()


async def test_a_renewed_workspace_shows_the_project_as_it_is(
    entered: Entered, phase: Phase, shared: WorkspaceSpec, project: Path
):
    """What the last environment did is forgotten; of what an earlier one had changed, the files
    that were changed in the project meanwhile are named.
    """
    (project / "value").write_text("bad")
    (project / "made").write_text("old")
    async with entered() as backend, backend.workspace(shared) as workspace:
        async with backend.environment(phase(id="a", workspace=shared)) as first:
            await run(first, "echo earlier > made; echo other > more")
        began = time.time_ns()
        async with backend.environment(phase(id="b", workspace=shared)) as failed:
            await run(failed, "echo trace > trace; echo x >> value")
        (project / "value").write_text("good")
        (project / "made").write_text("mended")
        assert await workspace.renew(began) == Renewed(possible=True, hidden=("made",))
        async with backend.environment(phase(id="c", workspace=shared)) as again:
            _, said = await run(again, "cat value made more; ls trace")
    assert said.startswith("goodearlier\nother\n")
    assert "No such file" in said


def test_a_renewed_copy_is_another_one_unless_it_would_lose_something(tmp_path: Path):
    """Where no overlay can be mounted: changes that the project does not have stay."""
    project, scratch = tmp_path / "project", tmp_path / "scratch"
    project.mkdir()
    scratch.mkdir()
    (project / "value").write_text("bad")
    spec = WorkspaceSpec(root=str(project), scratch=str(scratch))
    with closing(CopiedWorkspace(spec, tmp_path / "copy", os.geteuid())) as workspace:
        (workspace.place / "trace").write_text("of the failed attempt")
        (project / "value").write_text("good")
        assert asyncio.run(workspace.renew(0)).possible
        assert sorted(path.name for path in workspace.place.iterdir()) == ["value"]
        assert (workspace.place / "value").read_text() == "good"
        (workspace.place / "made").write_text("by a phase that passed")
        assert [change.path for change in asyncio.run(workspace.changes())] == ["made"]
        assert not asyncio.run(workspace.renew(0)).possible
        assert (workspace.place / "made").exists()
