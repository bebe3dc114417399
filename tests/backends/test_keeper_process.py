"""The keeper's process, started before it is known whether a run needs it."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

import cleanroom
from cleanroom.backends import registry
from cleanroom.backends.embedded.backend import EmbeddedBackend
from cleanroom.backends.embedded.keeper_process import BACKENDS, KeeperProcess, start_early
from cleanroom.engine import prestart as before
from cleanroom.model.policy import Level
from cleanroom.sandbox import channel
from cleanroom.sandbox.journal import Journal
from support.open_folders import journal_at, open_folder

pytestmark = pytest.mark.sandbox


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_keeper_that_nobody_took_is_gone_when_it_was_abandoned(tmp_path: Path):
    """Abandoning leaves no process, also while it is still starting;
    doing it twice does no harm.
    """
    keeper = start_early("auto", tmp_path)
    assert keeper is not None
    keeper.abandon()
    keeper.abandon()
    assert gone(keeper.pid)


@pytest.mark.parametrize("name", ["memory", "kubernetes"])
def test_no_keeper_is_started_for_another_backend(name: str, tmp_path: Path):
    """Where the caller names a backend that has none, nothing is started."""
    assert start_early(name, tmp_path) is None


async def test_a_backend_takes_the_keeper_and_its_probe(tmp_path: Path):
    """A keeper started ahead answers the probe like one that was not, and ends with its backend."""
    keeper = start_early(None, tmp_path)
    assert keeper is not None
    async with EmbeddedBackend(
        "ahead", tmp_path / "runs" / "ahead", journal_at(tmp_path / "journal.jsonl"), keeper
    ) as backend:
        found = await backend.probe(Level.MEDIUM)
    async with EmbeddedBackend(
        "later", tmp_path / "runs" / "later", journal_at(tmp_path / "other.jsonl")
    ) as backend:
        assert await backend.probe(Level.MEDIUM) == found
    keeper.abandon()
    assert gone(keeper.pid)


async def test_a_keeper_that_does_not_end_is_killed(tmp_path: Path):
    """Waiting is bounded: past its time the process is gone all the same."""
    keeper = start_early(None, tmp_path)
    assert keeper is not None
    end = keeper.detach_channel()
    with anyio.fail_after(10):
        await keeper.wait(0.05)
    end.close()
    assert gone(keeper.pid)


def test_every_backend_with_wardens_has_a_keeper_and_a_run_inside_a_run_has_none(tmp_path: Path):
    """What is started before the engine is imported is what the engine would have started."""
    assert {"auto", *registry.HOMES} == set(BACKENDS)
    assert (
        before.keeper(None, {"CLEANROOM_CACHE": str(tmp_path), "CLEANROOM_RUN_ID": "outer"}) is None
    )


async def test_an_engine_ends_the_keeper_that_it_adopted_when_there_is_no_run(tmp_path: Path):
    """A plan that does not stand ends what was started for it."""
    caller = {"CLEANROOM_CACHE": str(tmp_path / "cache")}
    (tmp_path / "make.toml").write_text('[lifecycle.test]\ncommand = "true"\n')
    keeper = before.keeper(None, caller)
    assert keeper is not None
    async with cleanroom.open(tmp_path, caller=caller) as engine:
        engine.adopt(keeper)
        with pytest.raises(cleanroom.CleanroomError):
            await engine.pipeline("missing")
    assert gone(keeper.pid)


def left_alone(keeper: KeeperProcess, orders: list[tuple[dict[str, object], list[int]]]) -> None:
    """Give a keeper orders, then end without a word as a killed engine does,
    and wait for its end.
    """
    with keeper.detach_channel() as end:
        for order, descriptors in orders:
            channel.send(end, order, descriptors)
    keeper._process.wait()


@pytest.mark.parametrize("swapped", ["runs", "runs/mine"])
def test_a_keeper_removes_what_it_was_told_of_and_nothing_in_its_place(
    tmp_path: Path, swapped: str
):
    """After its owner was killed: the folder that was held goes,
    one that somebody put in the place of it or around it stays.
    """
    victim = tmp_path / "victim"
    for folder in (tmp_path / "runs/mine", victim / "mine", victim / "theirs"):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    around = open_folder(tmp_path / "runs")
    (tmp_path / swapped).rename(tmp_path / "aside")
    (tmp_path / swapped).symlink_to(victim)
    own = {"op": "own", "folder": str(tmp_path / "runs/mine"), "name": "mine"}
    left_alone(
        KeeperProcess(),
        [
            ({"op": "journal"}, [Journal.at(open_folder(tmp_path)).descriptor]),
            (own, [around.descriptor]),
        ],
    )
    assert sorted(path.name for path in victim.rglob("*")) == ["file", "file", "mine", "theirs"]
    assert (tmp_path / "aside").exists() == (swapped == "runs/mine") or not (
        tmp_path / "aside/mine"
    ).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a folder of somebody else's")
def test_a_keeper_removes_no_folder_of_somebody_else_s(tmp_path: Path):
    """One that was there before ours could be made."""
    (tmp_path / "ground").mkdir()
    os.chown(tmp_path / "ground", 54321, 54321)
    own = {"op": "own", "folder": str(tmp_path / "ground"), "name": "ground"}
    left_alone(KeeperProcess(), [(own, [open_folder(tmp_path).descriptor])])
    assert (tmp_path / "ground").is_dir()
