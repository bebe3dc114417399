"""Every public argument given a wrong value or type is an error of ours that says what it has to
be.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio
import pytest

import cleanroom
from cleanroom import engine as door
from cleanroom import servers
from cleanroom.engine import Options
from cleanroom.model.errors import UsageError
from cleanroom.model.policy import Level

MAKE = '[lifecycle.test]\ncommand = "sleep 60"\ncleanroom.enabled = false\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "make.toml").write_text(MAKE)
    return tmp_path


def caller(project: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(project), "CLEANROOM_CACHE": str(project / "c")}


WRONG_OPTIONS: dict[str, tuple[Any, ...]] = {
    "backend": ("dokcer", 5, ""),
    "policy": ("Meduim", "medium", 3, ["Medium"]),
    "env": (5, b"prod", "a\0b"),
    "seed": ("7", 1.5, True),
    "slo_seconds": ("5", -1, 0, float("nan"), float("inf"), True),
    "strict_slo": (1, "yes"),
    "allow_degraded": ("network.names", [1], None, {"network.names": 1}),
    "keep": ("sometimes", True, None),
    "report_directory": (7, b"/tmp", ""),
    "fresh": ("yes", 1, None),
    "no_cache": ("no", 0, None),
    "dry_run": ("no", 0, None),
    "offline": ("no", 0, None),
    "caller": (5, ["A=1"], {"A": 1}, {1: "A"}),
    "polcy": ("Medium",),
}
WRONG = [(name, value) for name, values in WRONG_OPTIONS.items() for value in values]


@pytest.mark.parametrize(
    ("name", "value"), WRONG, ids=[f"{name}={value!r}" for name, value in WRONG]
)
async def test_a_wrong_option_of_open_is_named(project: Path, name: str, value: Any):
    """Its name, what was expected and what was found; nothing is written and nothing was
    started.
    """
    with pytest.raises(UsageError) as caught:
        async with cleanroom.open(project, **{name: value}):
            pass
    assert caught.value.code == "CR-USAGE-003"
    assert name in str(caught.value)
    assert "expected" in str(caught.value)
    assert "found" in str(caught.value)
    assert os.listdir(project) == ["make.toml"]


def test_every_option_has_wrong_values_above():
    """An option that is new is checked too."""
    assert set(WRONG_OPTIONS) == {*Options.__struct_fields__, "caller", "polcy"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("policy", "Meduim"), ("policy", "medium"), ("backend", "dokcer"), ("polcy", 1)],
)
async def test_a_word_that_is_nearly_one_is_suggested(project: Path, name: str, value: Any):
    """The hint has the word that was probably meant."""
    with pytest.raises(UsageError, match="expected") as caught:
        async with cleanroom.open(project, **{name: value}):
            pass
    assert caught.value.hint.startswith("did you mean '")


@pytest.mark.parametrize("value", [None, 7, b"/tmp", "", ["."]])
async def test_a_project_that_is_no_path_is_named(value: Any):
    """`project` of `open` and of what reads runs again."""
    with pytest.raises(UsageError, match="project: expected a path"):
        async with cleanroom.open(value):
            pass
    for read in (
        door.list_runs,
        door.read_run,
        door.verify_audit,
        door.render_reports,
        door.sweep,
        door.init,
    ):
        with pytest.raises(UsageError, match="project: expected a path"):
            read(value)


async def test_right_arguments_of_any_kind_are_taken(project: Path):
    """Paths as text or Path, lists or tuples, whole seconds."""
    given = {
        "slo_seconds": 5,
        "allow_degraded": ["network.names"],
        "report_directory": project,
        "policy": Level.HIGH,
    }
    for root in (project, str(project)):
        async with cleanroom.open(root, caller=caller(project), **given) as engine:
            assert engine.plan().slo_seconds == 5


@pytest.mark.parametrize("phases", [(["test"],), (7,), (None,), (b"test",)])
async def test_phases_that_are_no_names_are_named(project: Path, phases: tuple[Any, ...]):
    """A list in the place of arguments is the usual mistake."""
    async with cleanroom.open(project, caller=caller(project), backend="memory") as engine:
        for asked in (engine.pipeline, engine.run):
            with pytest.raises(UsageError, match="phases: expected names of phases"):
                await asked(*phases)
        with pytest.raises(UsageError, match="phases: expected names of phases"):
            engine.plan(*phases)


async def test_a_pipeline_of_no_phases_is_refused(project: Path):
    """Not the same as all phases: nothing was asked for."""
    async with cleanroom.open(project, caller=caller(project), backend="memory") as engine:
        with pytest.raises(UsageError) as caught:
            await engine.pipeline()
    assert caught.value.code == "CR-ENGINE-005"


async def test_other_arguments_of_an_engine_are_named(project: Path):
    """A limit below 1, a signal that is none, an idle time that is none."""
    async with cleanroom.open(project, caller=caller(project)) as engine:
        for wrong in (0, -1, "9", True):
            with pytest.raises(
                UsageError, match=r"subscribe: limit: expected a whole number above 0"
            ):
                engine.subscribe("reader", limit=wrong)
        with pytest.raises(UsageError, match=r"interrupt: code: expected Exit.INTERRUPTED"):
            engine.interrupt(9)
        with pytest.raises(UsageError, match=r"idle_seconds: expected a number of seconds above 0"):
            await engine.start_pool(-1)


async def test_a_second_run_of_an_engine_that_runs_is_refused(project: Path):
    """Also in the moments before the first has begun; the first is not disturbed,
    and another may follow.
    """
    async with cleanroom.open(project, caller=caller(project), backend="memory") as engine:
        async with anyio.create_task_group() as tasks:
            results: list[Any] = []

            async def first() -> None:
                results.append(await engine.pipeline("test"))

            for pause in (0, 1):
                tasks.start_soon(first)
                for _ in range(5 * pause):
                    await anyio.lowlevel.checkpoint()
                await anyio.lowlevel.checkpoint()
                with pytest.raises(UsageError, match="found one that runs already") as caught:
                    await engine.pipeline("test")
                assert caught.value.code == "CR-ENGINE-007"
                engine.interrupt()
                while len(results) <= pause:
                    await anyio.sleep(0.01)
        assert [result.outcome for result in results] == ["interrupted"] * 2


async def test_a_run_of_an_engine_whose_block_was_left_is_refused(project: Path):
    """Nobody could read its events."""
    async with cleanroom.open(project, caller=caller(project), backend="memory") as engine:
        pass
    with pytest.raises(UsageError, match="whose block was left") as caught:
        await engine.pipeline("test")
    assert caught.value.code == "CR-ENGINE-008"


WRONG_SERVERS: dict[str, tuple[Any, ...]] = {
    "init": ("schema.sql", Path("schema.sql"), [7], None),
    "version": (18, None),
    "folder": (7, ""),
    "caller": (5, {"A": 1}),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG_SERVERS.items() for value in values]
)
async def test_a_wrong_argument_of_a_server_is_named(name: str, value: Any):
    """One text in the place of a list of files is not read letter by letter."""
    for kind in (servers.postgres, servers.redis) if name != "init" else (servers.postgres,):
        with pytest.raises(UsageError, match=rf"servers\.\w+: {name}: expected .*, found"):
            async with kind(**{name: value}):
                pass
