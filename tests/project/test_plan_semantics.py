"""What a make.toml comes to: order, layers, variables, services, policy."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanroom.model.errors import ProjectError
from cleanroom.model.policy import LIMITS, Level
from cleanroom.project import order
from cleanroom.project.dialects import parse_project
from cleanroom.project.source import parse_source
from support.project_builder import HEAD, phase, planned, trace, written

TWO = HEAD + '[lifecycle.build]\ncommand = "b"\n[lifecycle.test]\ncommand = "t"\n'


def test_without_phases_all_are_shown_in_file_order(tmp_path: Path):
    """`plan` without names shows every phase as the file has them."""
    assert trace(planned(tmp_path, TWO)) == ["build", "test"]


def test_command_wins_over_commands(tmp_path: Path):
    """As in ggen, `command` is what runs and `commands` is listed as ignored."""
    plan = planned(tmp_path, HEAD + '[lifecycle.a]\ncommand = "one"\ncommands = ["two"]\n', "a")
    assert plan.phases[0].commands == ("one",)
    assert [entry.key for entry in plan.ignored] == ["lifecycle.a.commands"]


def test_a_phase_without_commands_stays_and_its_after_hooks_do_not_run(tmp_path: Path):
    """As in ggen: before-hooks run, the empty phase is there,
    after-hooks are left out and a note says so.
    """
    plan = planned(
        tmp_path, TWO + '[lifecycle.e]\n[hooks]\nbefore_e = ["build"]\nafter_e = ["test"]\n', "e"
    )
    assert trace(plan) == ["build", "e"]
    assert plan.phases[1].commands == ()
    assert any("after_e" in note for note in plan.notes)


def test_prerequisites_run_once_and_hooks_every_time(tmp_path: Path):
    """`depends_on` counts what has run in any role; hooks do not."""
    text = HEAD + "".join(
        f'[lifecycle.{n}]\ncommand = "x"\n' + d
        for n, d in (("a", ""), ("b", 'depends_on = ["a"]\n'), ("c", 'depends_on = ["a", "b"]\n'))
    )
    assert trace(planned(tmp_path, text, "c", "b", "a")) == ["a", "b", "c"]
    assert trace(
        planned(tmp_path, text + '[hooks]\nbefore_b = ["a"]\nbefore_c = ["a"]\n', "c")
    ) == ["a", "a", "b", "a", "c"]


def test_a_phase_named_twice_runs_twice(tmp_path: Path):
    """What the user names runs as often as it is named."""
    assert trace(planned(tmp_path, TWO, "test", "test")) == ["test", "test"]


def test_all_hooks_stand_once_around_everything(tmp_path: Path):
    """`before_all` and `after_all` run once, with their own hooks, and not around hooks."""
    plan = planned(
        tmp_path,
        TWO
        + (
            '[lifecycle.s]\ncommand = "s"\n[hooks]\nbefore_all = ["s"]\nafter_all = ["s"]\n'
            'before_test = ["build"]\nafter_s = ["build"]\n'
        ),
        "build",
        "test",
    )
    assert trace(plan) == ["s", "build", "build", "build", "test", "s", "build"]
    assert (plan.phases[0].role, plan.phases[0].of) == ("hook", "all")


def test_an_after_hook_may_need_the_phase_that_it_follows(tmp_path: Path):
    """`after_build = ["test"]` with `test` depending on `build` is no circle: build has run."""
    plan = planned(
        tmp_path, TWO + 'depends_on = ["build"]\n[hooks]\nafter_build = ["test"]\n', "build"
    )
    assert trace(plan) == ["build", "test"]


def test_hooks_as_tables_are_phases_of_their_own(tmp_path: Path):
    """`[hooks.before_test] commands = [...]` runs them before the phase."""
    plan = planned(tmp_path, TWO + '[hooks.before_test]\ncommands = ["one", "two"]\n', "test")
    assert [(p.name, p.commands, p.role) for p in plan.phases] == [
        ("before_test", ("one", "two"), "hook"),
        ("test", ("t",), "phase"),
    ]
    assert trace(planned(tmp_path, TWO + '[hooks.before_test]\ncommands = ["one"]\n')) == [
        "build",
        "before_test",
        "test",
    ]


@pytest.mark.parametrize(
    "text",
    [
        (
            '[lifecycle]\nname = "life"\nversion = "1"\n[phases.test]\ncommand = "t"\n'
            '[pipelines]\ndefault = ["test"]\n'
        )
    ],
)
def test_dialect_b_loads(tmp_path: Path, text: str):
    """Metadata under [lifecycle] with [phases.X] and [pipelines] is dialect B."""
    plan = planned(tmp_path, text, "test")
    assert (plan.dialect, trace(plan)) == ("B", ["test"])
    assert {entry.key for entry in plan.ignored} == {
        "lifecycle.name",
        "lifecycle.version",
        "pipelines",
    }


def test_every_key_without_effect_is_listed_with_its_line(tmp_path: Path):
    """Unknown tables, ggen's idle keys and unknown hooks are in `ignored`, by line."""
    plan = planned(
        tmp_path,
        TWO
        + (
            'watch = ["src/**"]\ntimeuot = 3\n[hooks]\non_error = "echo"\n'
            'before_gone = ["build"]\n[scripts]\na = "b"\n'
        ),
        "test",
    )
    assert [(entry.key, entry.line) for entry in plan.ignored] == [
        ("lifecycle.test.watch", 7),
        ("lifecycle.test.timeuot", 8),
        ("hooks.on_error", 10),
        ("hooks.before_gone", 11),
        ("scripts", 12),
    ]


def test_a_phase_goes_before_the_project_and_an_environment_before_both(tmp_path: Path):
    """Layers: project, phase, [cleanroom.env.NAME], the phase's env.NAME."""
    text = (
        HEAD
        + (
            '[cleanroom]\npolicy = "Low"\nlimits = { pids = 9, memory = "1GiB" }\n'
            '[cleanroom.env.prod]\nlimits = { pids = 7 }\ncommands = { a = "prod-a" }\n'
        )
        + (
            '[lifecycle.a]\ncommand = "a"\ncleanroom.policy = "Medium"\n[lifecycle.b]\n'
            'command = "b"\ncleanroom.env.production.policy = "High"\n'
        )
    )
    plain = planned(tmp_path, text)
    assert [p.policy.level for p in plain.phases] == [Level.MEDIUM, Level.LOW]
    assert plain.phases[0].policy.limits.pids == 9
    prod = planned(tmp_path, text, env="production")
    assert [p.policy.level for p in prod.phases] == [Level.MEDIUM, Level.HIGH]
    assert prod.phases[0].commands == ("prod-a",)
    assert (prod.phases[0].policy.limits.pids, prod.phases[0].policy.limits.memory_bytes) == (
        7,
        1 << 30,
    )


def test_ggen_env_selects_the_environment_and_is_handed_in(tmp_path: Path):
    """GGEN_ENV of the caller overlays like --env, and every phase has it as a variable."""
    text = TWO + (
        '[env]\nA = 1\nB = true\n[env.production]\nA = "prod"\n[lifecycle.x]\ncommand = "x"\n'
        'env = { B = "x", production = { C = "c" } }\n'
    )
    plan = planned(tmp_path, text, caller={"GGEN_ENV": "prod"})
    assert phase(plan, "build").variables == {"A": "prod", "B": "true", "GGEN_ENV": "prod"}
    assert phase(plan, "x").variables == {"A": "prod", "B": "x", "C": "c", "GGEN_ENV": "prod"}
    assert phase(planned(tmp_path, text), "x").variables == {"A": "1", "B": "x"}


def test_the_command_line_goes_before_the_file(tmp_path: Path):
    """Backend, seed, SLO and a stricter policy of the command line win."""
    text = TWO + '[cleanroom]\nbackend = "docker"\nseed = 7\nslo = "1m30s"\n'
    plan = planned(tmp_path, text)
    assert (plan.backend, plan.seed, plan.slo_seconds, plan.policy.level) == (
        "docker",
        7,
        90.0,
        "Medium",
    )
    plan = planned(
        tmp_path, text, backend="memory", seed=0, slo_seconds=5.0, strict_slo=True, policy="High"
    )
    assert (plan.backend, plan.seed, plan.slo_seconds, plan.strict_slo) == ("memory", 0, 5.0, True)
    assert {p.policy.level for p in plan.phases} == {Level.HIGH}


def test_a_rule_is_given_up_only_by_file_and_command_line_together(tmp_path: Path):
    """`allow_degraded` of the plan is what both say, for every phase; the rest is a note."""
    text = TWO + (
        'cleanroom.allow_degraded = ["resource.pids"]\n[cleanroom]\n'
        'allow_degraded = ["resource.memory", "resource.pids"]\n'
    )
    said = ("resource.memory", "resource.pids", "resource.disk")
    plan = planned(tmp_path, text, allow_degraded=said)
    assert plan.allow_degraded == ("resource.pids",)
    assert planned(tmp_path, text, "build", allow_degraded=said).allow_degraded == (
        "resource.memory",
        "resource.pids",
    )
    assert any("resource.disk" in note for note in plan.notes)
    assert planned(tmp_path, text).allow_degraded == ()


def test_services_are_those_that_phases_name(tmp_path: Path):
    """Aliases are one service, settings are taken over, unused services are not started,
    generic ones are whole.
    """
    (tmp_path / "schema.sql").write_text("select 1")
    text = (
        TWO
        + (
            'cleanroom.containers = ["postgresql", "postgres", "mail"]\n'
            '[cleanroom.services.unused]\ncommand = "x"\nready = { tcp = 1 }\n'
        )
        + (
            '[cleanroom.services.postgres]\ninit = ["schema.sql"]\n[cleanroom.services.mail]\n'
            'command = ["maild", "-v"]\n'
        )
        + (
            'ready = { command = "nc -z localhost 1", timeout = "5s" }\n'
            'env = { MAIL = "smtp://{host}:{port}" }\n'
        )
    )
    plan = planned(tmp_path, text)
    assert phase(plan, "test").services == ("postgres", "mail")
    assert [(spec.name, spec.kind) for spec in plan.services] == [
        ("postgres", "postgres"),
        ("mail", "generic"),
    ]
    assert plan.services[0].init == (str(tmp_path / "schema.sql"),)
    ready = plan.services[1].ready
    assert ready is not None
    assert (ready.command, ready.timeout_seconds) == ("nc -z localhost 1", 5.0)


def test_limits_go_down_freely_and_up_with_a_reason(tmp_path: Path):
    """A timeout above the level's wall time needs a reason and then raises it;
    below it nothing is needed.
    """
    plan = planned(
        tmp_path, TWO + 'cleanroom = { timeout = "20m", reason = "slow disks" }\n', "test"
    )
    assert (plan.phases[0].timeout_seconds, plan.phases[0].policy.limits.wall_seconds) == (
        1200.0,
        1200.0,
    )
    plan = planned(tmp_path, TWO + 'cleanroom.timeout = "500ms"\n', "build", "test")
    assert [p.timeout_seconds for p in plan.phases] == [LIMITS[Level.MEDIUM].wall_seconds, 0.5]


def test_enabled_false_is_a_host_phase_and_said_so(tmp_path: Path):
    """`cleanroom.enabled = false` is not hermetic, and a note says it."""
    plan = planned(tmp_path, TWO + "cleanroom.enabled = false\n")
    assert [p.hermetic for p in plan.phases] == [True, False]
    assert any(note.startswith("test: runs on the host") for note in plan.notes)


def test_keys_without_effect_yet_are_noted(tmp_path: Path):
    """What is read for later says that it is not in effect."""
    plan = planned(tmp_path, TWO + 'cleanroom.kernel_boundary = "required"\n')
    assert sum("not yet in effect" in note for note in plan.notes) == 1


def test_inputs_of_the_cache_are_patterns_inside_the_project(tmp_path: Path):
    """They are in the plan as written; one that leads out is an error."""
    plan = planned(tmp_path, TWO + 'cleanroom.cache = { inputs = ["src/**"] }\n')
    assert phase(plan, "test").cache_inputs == ("src/**",)
    with pytest.raises(ProjectError, match="inside the project"):
        planned(tmp_path, TWO + 'cleanroom.cache = { inputs = ["../src/**"] }\n')


def test_older_isolation_keys_are_accepted_and_noted(tmp_path: Path):
    """network_isolation and filesystem_isolation change nothing and say what does."""
    plan = planned(
        tmp_path,
        TWO + "cleanroom.network_isolation = false\ncleanroom.filesystem_isolation = true\n",
    )
    assert sum("of older documents" in note for note in plan.notes) == 2


def test_cleanroom_command_replaces_the_engine(tmp_path: Path):
    """A phase whose command is the engine runs `cleanroom.command`."""
    plan = planned(
        tmp_path,
        HEAD
        + (
            '[lifecycle.test]\ncommand = "cleanroom-engine run test"\n'
            'cleanroom.command = "pytest -q"\n'
        ),
        "test",
    )
    assert plan.phases[0].commands == ("pytest -q",)


def test_a_workspaces_own_file_replaces_the_projects_phases(tmp_path: Path):
    """Phases, hooks and positions come from sub/make.toml;
    the project's [cleanroom] stays beneath its own.
    """
    written(
        tmp_path,
        '[lifecycle.test]\ncommand = "own"\nodd = 1\n[cleanroom]\nlimits = { pids = 5 }\n',
        "b/make.toml",
    )
    (tmp_path / "a").mkdir()
    text = (
        TWO + '[workspace.b]\npath = "b"\n[workspace.a]\npath = "a"\n[cleanroom]\npolicy = "High"\n'
    )
    plan = planned(tmp_path, text, "test")
    assert [(w.name, w.path, w.phases[0].commands) for w in plan.workspaces] == [
        ("a", str(tmp_path / "a"), ("t",)),
        ("b", str(tmp_path / "b"), ("own",)),
    ]
    own = plan.workspaces[1].phases[0]
    assert (own.policy.level, own.policy.limits.pids, str(own.origin)) == (
        Level.HIGH,
        5,
        "b/make.toml:1:1",
    )
    assert "b/make.toml: lifecycle.test.odd" in [entry.key for entry in plan.ignored]
    assert not plan.parallel


def test_run_ignores_workspaces(tmp_path: Path):
    """`single` runs at the root, even where workspaces are broken."""
    plan = planned(tmp_path, TWO + '[workspace.b]\npath = "../.."\n', "test", single=True)
    assert [(w.name, w.path) for w in plan.workspaces] == [("", str(tmp_path))]


def test_members_and_patterns_are_workspaces(tmp_path: Path):
    """`members` names folders, a pattern those that are there."""
    for name in ("crates/one", "crates/two", "web"):
        (tmp_path / name).mkdir(parents=True)
    plan = planned(
        tmp_path, TWO + '[workspace]\nmembers = ["web", "crates/*"]\nparallel = true\n', "test"
    )
    assert [w.name for w in plan.workspaces] == ["crates/one", "crates/two", "web"]
    assert plan.parallel


def test_a_member_with_brackets_in_its_name_is_a_folder(tmp_path: Path):
    """A folder that is there is meant before a set of characters."""
    (tmp_path / "routes" / "[id]").mkdir(parents=True)
    plan = planned(tmp_path, TWO + '[workspace]\nmembers = ["routes/[id]"]\n', "test")
    assert [w.name for w in plan.workspaces] == ["routes/[id]"]


TASKS = {
    (
        'command = "printf"\nargs = ["%s|", "a b", "$HOME", "it\'s", "${X}/y z"]'
    ): "a b|$HOME|it's|ex/y z|",
    'script = ["false", "echo reached"]': "",
    'script = "#!/bin/bash\\n[[ a == a ]] && echo bash"': "bash\n",
    'script_runner = "python3"\nscript = "print(1 + 1)"': "2\n",
}


@pytest.mark.parametrize(("task", "printed"), TASKS.items())
def test_cargo_make_tasks_do_under_sh_what_cargo_make_does(tmp_path: Path, task: str, printed: str):
    """Arguments arrive as written, ${NAME} is replaced, scripts end at the first error and keep
    their interpreter.
    """
    plan = planned(tmp_path, f'[env]\nX = "ex"\n[tasks.t]\n{task}\n', "t")
    done = subprocess.run(
        ["sh", "-c", plan.phases[0].commands[0]],
        env={"X": "ex", "PATH": "/usr/bin:/bin:/usr/local/bin"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == printed


def test_cargo_make_dependencies_folders_and_variables(tmp_path: Path):
    """Dependencies are prerequisites, cwd a working folder, values may name earlier variables."""
    (tmp_path / "sub").mkdir()
    text = (
        '[env]\nA = "a"\nB = "${A}b"\nC = { value = "c", condition = { env_not_set = ["C"] } }\n'
        '[tasks.x]\nscript = "x"\n[tasks.t]\ncommand = "t"\ncwd = "sub"\n'
        'dependencies = ["x", { name = "y" }]\n[tasks.y]\n'
    )
    plan = planned(tmp_path, text, "t")
    assert [(p.name, p.role) for p in plan.phases] == [
        ("x", "prerequisite"),
        ("y", "prerequisite"),
        ("t", "phase"),
    ]
    assert plan.phases[2].working_directory == str(tmp_path / "sub")
    assert plan.phases[2].variables == {"A": "a", "B": "ab", "C": "c"}


names = st.sampled_from("abcdef")
graphs = st.dictionaries(
    names,
    st.tuples(
        st.lists(names, max_size=2), st.lists(names, max_size=2), st.lists(names, max_size=2)
    ),
    min_size=6,
    max_size=6,
)


def _raw(graph: dict[str, tuple[list[str], list[str], list[str]]], *, dependencies: bool):
    """A file whose hooks and prerequisites lead to later letters only,
    so that there is no circle.
    """
    lines = []
    for name, (_, _, needed) in sorted(graph.items()):
        later = [other for other in needed if other > name] if dependencies else []
        lines += [f"[lifecycle.{name}]", 'command = "x"', f"depends_on = {later}"]
    lines.append("[hooks]")
    for name, (before, after, _) in sorted(graph.items()):
        lines += [
            f"before_{name} = {[o for o in before if o > name]}",
            f"after_{name} = {[o for o in after if o > name]}",
        ]
    return parse_project(parse_source("\n".join(lines).encode(), "make.toml"), Path())


def _naive(graph: dict[str, tuple[list[str], list[str], list[str]]], name: str) -> list[str]:
    """ggen's order, as one would write it down."""
    before, after, _ = graph[name]
    inner = [step for other in before if other > name for step in _naive(graph, other)]
    return [
        *inner,
        name,
        *(step for other in after if other > name for step in _naive(graph, other)),
    ]


@given(graph=graphs, requested=st.lists(names, max_size=3))
@settings(max_examples=60, deadline=None)
def test_hook_order_is_the_recursive_one(graph, requested):
    """Without prerequisites the order equals the naive recursion over before, phase, after."""
    steps = order.unfold(_raw(graph, dependencies=False), requested)
    assert [step.name for step in steps] == [
        name for phase in requested for name in _naive(graph, phase)
    ]


@given(graph=graphs, requested=st.lists(names, max_size=3))
@settings(max_examples=60, deadline=None)
def test_each_prerequisite_runs_before_and_at_most_once(graph, requested):
    """Every phase has its prerequisites ahead of its first run,
    and none runs twice as a prerequisite.
    """
    project = _raw(graph, dependencies=True)
    steps = order.unfold(project, requested)
    sequence = [step.name for step in steps]
    as_prerequisite = [step.name for step in steps if step.role == "prerequisite"]
    assert len(as_prerequisite) == len(set(as_prerequisite))
    for name in set(sequence):
        for mention in project.phases[name].depends_on:
            assert sequence.index(mention.name) < sequence.index(name)
