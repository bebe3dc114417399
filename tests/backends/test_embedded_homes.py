"""What phases keep in their home's `.cache`: what is kept, for whom, and what is thrown away."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from cleanroom.backends.base import WorkspaceSpec
from cleanroom.backends.embedded.backend import EmbeddedBackend
from cleanroom.backends.embedded.home_cache import FOLD_AT, HomeCache
from cleanroom.model.policy import Level, default_policy
from support.embedded_harness import Entered, Phase, run

pytestmark = [pytest.mark.sandbox, pytest.mark.lower]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where a project's homes are kept."""
    return tmp_path / "cache/home-caches/project"


@pytest.fixture(params=["namespaces", "without"])
def bare(request: pytest.FixtureRequest) -> bool:
    """With overlays, and as an ordinary user without."""
    if request.param == "without" and os.geteuid() == 0:
        pytest.skip("root's homes keep nothing there")
    return bool(request.param == "without")


class Homes:
    """Phases of one project, one after the other."""

    def __init__(self, entered: Entered, phase: Phase, home: Path, bare: bool) -> None:
        self._entered, self._phase, self._home, self._bare = entered, phase, home, bare
        self._numbers = iter(range(1000))

    async def __call__(self, text: str, *, keep: bool, level: Level = Level.MEDIUM) -> str:
        """Run this in an environment, then keep or throw away; what it said."""
        async with self._entered() as backend:
            return await self.within(backend, text, keep=keep, level=level)

    async def within(
        self, backend: EmbeddedBackend, text: str, *, keep: bool, level: Level = Level.MEDIUM
    ) -> str:
        await backend.probe(Level.MEDIUM)
        if self._bare:
            backend.use_host_namespaces()
        spec = self._phase(
            f"phase-{next(self._numbers)}",
            home=str(self._home / level.value),
            policy=default_policy(level),
        )
        spec.variables["HOME"] = str(Path.home()) if level == Level.LOW else "/home/cleanroom"
        assert spec.workspace is not None
        async with backend.workspace(spec.workspace) as shared:
            async with backend.environment(spec) as environment:
                result, said = await run(environment, text)
                assert result.exit_code == 0, said
            await shared.finish_home(keep)
        return said


@pytest.fixture
def homes(entered: Entered, phase: Phase, home: Path, bare: bool) -> Homes:
    return Homes(entered, phase, home, bare)


SHOW = "cd ~/.cache && find . -type f | sort | xargs -r grep -H ."


async def test_what_a_phase_that_passed_wrote_is_there_for_the_next(
    homes: Homes, home: Path, project: Path
):
    """New files, changed ones and deletions; on the host all of it belongs to whoever owns the
    project.
    """
    await homes("mkdir ~/.cache/d && echo one > ~/.cache/d/a && echo gone > ~/.cache/b", keep=True)
    await homes("echo two >> ~/.cache/d/a && rm ~/.cache/b && echo new > ~/.cache/c", keep=True)
    assert (await homes(SHOW, keep=False)).split() == ["./c:new", "./d/a:one", "./d/a:two"]
    owner = project.stat().st_uid
    assert {path.lstat().st_uid for path in (home / "Medium").rglob("*")} <= {owner, os.geteuid()}


async def test_what_a_phase_that_failed_wrote_is_thrown_away(homes: Homes):
    """Files that it added, changed and removed are as they were;
    without overlays nothing is there.
    """
    await homes("echo kept > ~/.cache/a; echo kept > ~/.cache/b", keep=True)
    await homes("echo bad > ~/.cache/a; rm ~/.cache/b; echo bad > ~/.cache/c", keep=False)
    assert "bad" not in await homes(SHOW, keep=False)


async def test_a_failed_phase_costs_nothing_that_was_kept_before(homes: Homes, bare: bool):
    """With overlays; without them the one folder went with it."""
    await homes("echo kept > ~/.cache/a", keep=True)
    await homes("echo bad > ~/.cache/a", keep=False)
    assert (await homes(SHOW, keep=False)) == ("" if bare else "./a:kept\n")


async def test_each_level_has_its_own(homes: Homes, bare: bool):
    """What a phase at Low left is not there at Medium, and the other way round."""
    if bare:
        pytest.skip("without namespaces there is one level")
    (Path.home() / ".cache").mkdir(exist_ok=True)
    await homes(
        "mkdir -p $HOME/.cache; echo low > $HOME/.cache/it || true", keep=True, level=Level.LOW
    )
    assert await homes(SHOW, keep=True) == ""
    await homes("echo medium > ~/.cache/it", keep=True)
    assert await homes(SHOW, keep=True) == "./it:medium\n"


async def test_of_two_phases_at_once_the_first_is_kept(
    homes: Homes, entered: Entered, phase: Phase, home: Path, bare: bool, tmp_path: Path
):
    """Neither sees what the other writes, and what is kept is one phase's whole."""
    async with entered() as backend, AsyncExitStack() as stack:
        await backend.probe(Level.MEDIUM)
        if bare:
            backend.use_host_namespaces()
        opened = []
        for number in range(2):
            scratch = str(tmp_path / f"cache/runs/t/workspace-{number}")
            there = tmp_path / f"project-{number}"
            there.mkdir()
            given = WorkspaceSpec(root=str(there), scratch=scratch)
            shared = await stack.enter_async_context(backend.workspace(given))
            spec = phase(
                f"phase-{number}",
                home=str(home / "Medium"),
                workspace=given,
                working_directory=str(there),
            )
            environment = await stack.enter_async_context(backend.environment(spec))
            opened.append((shared, environment))
        for number, (_, environment) in enumerate(opened):
            _, said = await run(environment, f"echo {number} > ~/.cache/{number}; ls ~/.cache")
            assert said == f"{number}\n"
        for _, environment in opened:
            await environment.leave()
        for shared, _ in opened:
            await shared.finish_home(True)
    assert await homes("ls ~/.cache", keep=False) == "0\n"


async def test_what_is_written_there_counts_against_the_disk_limit(
    homes: Homes, entered: Entered, phase: Phase, home: Path, bare: bool
):
    """A sample of the environment has it."""
    async with entered() as backend:
        await backend.probe(Level.MEDIUM)
        if bare:
            backend.use_host_namespaces()
        spec = phase(home=str(home / "Medium"))
        assert spec.workspace is not None
        async with backend.workspace(spec.workspace), backend.environment(spec) as environment:
            before = await environment.sample()
            await run(environment, "head -c 3000000 /dev/zero > ~/.cache/it")
            assert before is not None
            while True:  # a layer is looked at once a second
                after = await environment.sample()
                assert after is not None
                if after.disk_bytes - before.disk_bytes >= 3_000_000:
                    return
                await anyio.sleep(0.05)


async def test_many_phases_leave_few_layers(homes: Homes, home: Path, bare: bool):
    """They are folded into one, whose content is that of all."""
    if bare:
        pytest.skip("without overlays there are none")
    for number in range(FOLD_AT + 3):
        await homes(
            (
                f"mkdir -p ~/.cache/d; echo {number} > ~/.cache/d/{number}; rm -f "
                f"~/.cache/d/{number - 2}"
            ),
            keep=True,
        )
    assert len([name for name in os.listdir(home / "Medium") if name.isdecimal()]) < FOLD_AT
    assert sorted((await homes("ls ~/.cache/d", keep=False)).split()) == sorted(
        map(str, (FOLD_AT + 1, FOLD_AT + 2))
    )


def test_layers_that_somebody_is_shown_are_not_folded(tmp_path: Path):
    """A run that goes on keeps what it saw when it began."""
    other, home = HomeCache(tmp_path / "other", tmp_path), str(tmp_path / "homes/project/Medium")
    added(HomeCache(tmp_path / "run", tmp_path), home, "first")
    shown = other.make_layer(home, None)
    for number in range(FOLD_AT + 2):
        added(HomeCache(tmp_path / f"run-{number}", tmp_path), home, str(number))
    assert [path.is_dir() for path in shown.lower] == [True] * 2
    assert (shown.lower[0] / "first").exists()
    other.finish(True)  # another was added meanwhile, so its own is not
    added(HomeCache(tmp_path / "last", tmp_path), home, "last")
    newest = HomeCache(tmp_path / "look", tmp_path).make_layer(home, None).lower
    assert len(newest) == 2
    assert {path.name for path in newest[0].iterdir()} == {
        "first",
        "last",
        *map(str, range(FOLD_AT + 2)),
    }


def added(cache: HomeCache, home: str, name: str) -> None:
    layer = cache.make_layer(home, None).layer
    (layer / "upper" / name).touch()
    cache.finish(True)


@pytest.mark.parametrize("name", ["0", "1", "lock", "used"])
def test_a_link_among_what_is_kept_is_not_followed(tmp_path: Path, name: str):
    """Nothing is mounted, locked or given to anybody by way of one."""
    (tmp_path / "elsewhere").mkdir()
    level = tmp_path / "homes/project/Medium"
    level.mkdir(parents=True)
    (level / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"Not a directory|symbolic link"):
        HomeCache(tmp_path / "run", tmp_path).make_layer(str(level), None)
    assert list((tmp_path / "elsewhere").iterdir()) == []


MAKE_TOML = """
[lifecycle.keep]
command = "echo kept > ~/.cache/a"
[lifecycle.fail]
command = "echo bad > ~/.cache/a; exit 3"
[lifecycle.break]
command = "echo bad > ~/.cache/a; python3 -c 'import socket; socket.socket().connect_ex((\\"192.0.2.1\\", 80))'; true"
[lifecycle.show]
command = "cat ~/.cache/a"
"""  # noqa: E501


def test_only_a_phase_that_passed_and_broke_no_rule_changes_what_later_runs_find(tmp_path: Path):
    """By the command: a phase that fails and one that tries what its policy forbids leave
    nothing.
    """
    project = tmp_path / "project"
    project.mkdir()
    (project / "make.toml").write_text(MAKE_TOML)
    environment = os.environ | {
        "CLEANROOM_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }

    def ended(phase: str) -> tuple[int, str]:
        words = [sys.executable, "-m", "cleanroom", "run", phase, "-v"]
        done = subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True)
        return done.returncode, done.stderr + done.stdout

    assert [ended(phase)[0] for phase in ("keep", "fail", "break")] == [0, 1, 1]
    status, said = ended("show")
    assert status == 0, said
    assert "show | kept" in said


async def test_a_folder_below_the_layers_is_shown_and_never_written(
    entered: Entered, phase: Phase, home: Path, tmp_path: Path
):
    """A phase that changes, removes and adds does so in its project's own layer."""
    below, project = tmp_path / "below", Path(phase("x").workspace.root).stat()
    (below / "go-build").mkdir(parents=True, mode=0o755)
    for name in ("changed", "removed", "whole"):
        (below / "go-build" / name).write_text("shared")
    for path in (below, *below.rglob("*")):
        os.chown(path, project.st_uid, project.st_gid)
    before = {path: path.stat() for path in below.rglob("*") if path.is_file()}
    said = []
    async with entered() as backend:
        await backend.probe(Level.MEDIUM)
        if not backend.layers_homes:
            pytest.skip("this machine has no overlays")
        change = "cd go-build && echo own > changed && rm removed && echo new > added"
        for text in (f"cd ~/.cache && {change}", SHOW):
            number = len(said)
            spec = phase(f"phase-{number}", home=str(home / "Medium"), home_below=str(below))
            spec.variables["HOME"] = "/home/cleanroom"
            async with backend.workspace(spec.workspace) as shared:
                async with backend.environment(spec) as environment:
                    result, output = await run(environment, text)
                    assert result.exit_code == 0, output
                await shared.finish_home(True)
            said.append(output)
    assert said[1].split() == [
        "./go-build/added:new",
        "./go-build/changed:own",
        "./go-build/whole:shared",
    ]
    after = {path: path.stat() for path in below.rglob("*") if path.is_file()}
    assert {p: (s.st_ino, s.st_mtime_ns) for p, s in after.items()} == {
        p: (s.st_ino, s.st_mtime_ns) for p, s in before.items()
    }
