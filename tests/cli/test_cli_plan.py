"""`plan` and `config show`, from plans that a test owns."""

from __future__ import annotations

from pathlib import Path

import msgspec

from cleanroom.cli.commands.config import settings
from cleanroom.cli.views.plan import plan_lines, plan_object
from cleanroom.dependencies.model import PROBLEMS_MOST, Problem
from cleanroom.engine.fetch.forecast import SetForecast
from cleanroom.model.plan import Ignored, Origin, PhaseRun, Plan, ServiceSpec, Workspace
from cleanroom.model.policy import Level, default_policy
from support.paths import TESTS

MEDIUM = default_policy(Level.MEDIUM)


def phase(name: str, **fields: object) -> PhaseRun:
    usual: dict[str, object] = {
        "commands": (f"echo {name}",),
        "policy": MEDIUM,
        "timeout_seconds": 600.0,
        "origin": Origin("make.toml", 3, 1),
    }
    return PhaseRun(name=name, **{**usual, **fields})  # type: ignore[arg-type]


def planned(folder: Path = Path("/shop")) -> Plan:
    return Plan(
        project="shop",
        root=str(folder),
        file=str(folder / "make.toml"),
        dialect="A",
        environment="prod",
        backend="auto",
        policy=MEDIUM,
        requested=("test",),
        workspaces=(
            Workspace(
                name="",
                path="/shop",
                phases=(phase("init"), phase("test", services=("postgres",), hermetic=False)),
            ),
            Workspace(
                name="api",
                path="/shop/api",
                phases=(phase("check", commands=(), role="hook", of="test"),),
            ),
        ),
        services=(ServiceSpec(name="postgres", kind="postgres", port=5432),),
        tools=("/opt/tool",),
        ignored=(Ignored("lifecycle.test.watch", 9, "ggen ignores it too"),),
        notes=("no lock file was found",),
    )


def test_cli_plan_object_has_phases_flat_in_run_order() -> None:
    """As data, phases of all workspaces stand in one list in run order,
    each with its workspace and where it runs.
    """
    data = msgspec.json.decode(msgspec.json.encode(plan_object(planned())))
    assert [(row["name"], row["workspace"], row["kind"]) for row in data["phases"]] == [
        ("init", "", "hermetic"),
        ("test", "", "host"),
        ("check", "api", "hermetic"),
    ]
    assert data["policy"] == "Medium"
    assert data["ignored"] == [
        {"key": "lifecycle.test.watch", "line": 9, "reason": "ggen ignores it too"}
    ]
    assert [row["name"] for row in data["services"]] == ["postgres"]


def test_cli_plan_for_people_is_the_golden_one() -> None:
    """For people, the plan shows phases, services, tools, ignored keys and notes as the golden file
    says.
    """
    golden = TESTS / "golden" / "cli-plan.txt"
    assert "\n".join(plan_lines(planned())) + "\n" == golden.read_text()


def test_cli_plan_hostile_names_stay_on_their_line() -> None:
    """A phase name or command with control characters cannot add a line to the plan."""
    plain, hostile = phase("test"), phase("te\nst\x1b[2J", commands=("echo a\nphase x passed",))
    shapes = [
        plan_lines(
            msgspec.structs.replace(
                planned(), workspaces=(Workspace(name="", path="/", phases=(one,)),)
            )
        )
        for one in (plain, hostile)
    ]
    assert len(shapes[0]) == len(shapes[1])


def test_cli_config_tells_where_each_setting_comes_from(tmp_path: Path) -> None:
    """A setting's origin is the command line, the environment's overlay,
    the project's table or the default, in this order.
    """
    (tmp_path / "make.toml").write_text(
        '[cleanroom]\nslo = "20s"\nseed = 1\npolicy = "Medium"\n'
        'limits = { memory = "1GiB" }\n[cleanroom.env.production]\nseed = 2\n'
    )
    origins = {
        name: origin
        for name, _, origin in settings(
            planned(tmp_path), {"policy": "Medium"}, {"GGEN_ENV": "prod"}
        )
    }
    assert origins["policy"] == "command line"
    assert origins["seed"] == "make.toml [cleanroom.env.production]"
    assert origins["slo"] == "make.toml [cleanroom]"
    assert origins["limits.memory_bytes"] == "make.toml [cleanroom]"
    assert origins["limits.pids"] == "default of Medium"
    assert origins["backend"] == "default"
    assert origins["env"] == "GGEN_ENV"


def test_cli_config_tells_the_position_of_what_the_file_sets(tmp_path: Path) -> None:
    """With positions, what the file sets has its line and column there;
    everything else keeps its origin.
    """
    (tmp_path / "make.toml").write_text(
        '[cleanroom]\nslo = "20s"\nlimits = { memory = "1GiB" }\n[cleanroom.env.production]\n'
        "seed = 2\n"
    )
    rows = settings(planned(tmp_path), {"policy": "Medium"}, {"GGEN_ENV": "prod"}, positions=True)
    origins = {name: origin for name, _, origin in rows}
    assert origins["slo"] == "make.toml:2:1"
    assert origins["limits.memory_bytes"] == "make.toml:3:12"
    assert origins["seed"] == "make.toml:5:1"
    assert (origins["policy"], origins["backend"]) == ("command line", "default")


def test_cli_plan_begins_no_line_with_an_entry_of_a_lock() -> None:
    """A runner of CI takes one that begins with two colons as a command, after blanks too."""
    problem = Problem(entry="::error::a v1", why="its version is none")
    forecast = SetForecast(manager="go", file="go.sum", files=0, stored=False, problems=(problem,))
    lines = plan_lines(planned(), dependencies=[forecast])
    assert any("::error::a v1: its version is none" in line for line in lines)
    assert not any(line.lstrip().startswith("::") for line in lines)


def test_a_lock_with_any_number_of_entries_fills_a_screen_at_most() -> None:
    """Entries, hosts and names of any length come from the project: the rest is counted."""
    many = 3 * PROBLEMS_MOST
    forecast = SetForecast(
        manager="npm",
        file="package-lock.json",
        files=many,
        stored=False,
        hosts=tuple(f"host{number}.example:443" for number in range(many)),
        unpinned=("x" * 100_000,) * many,
        problems=tuple(Problem(entry="y" * 100_000, why="no") for _ in range(many)),
    )

    lines = plan_lines(planned(), dependencies=[forecast])

    assert sum(map(len, lines)) < 30_000
    assert f"and {many - PROBLEMS_MOST} more entries that are not fetched" in "".join(lines)
