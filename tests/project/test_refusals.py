"""What is refused, and where the message points."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cleanroom.model.errors import CleanroomError, Exit, PolicyRefused, ProjectError, UsageError
from cleanroom.model.policy import Level
from cleanroom.project import Overrides, load
from support.project_builder import HEAD, NO_FLOOR, planned, trace, written

PHASE = HEAD + '[lifecycle.test]\ncommand = "true"\n'

BAD = {
    "broken TOML": ('[lifecycle.test]\ncommand = "x\n', "2", ""),
    "NUL byte": (b'[lifecycle.test]\ncommand = "a\x00b"\n', "2", ""),
    "escaped NUL": (
        '[lifecycle.test]\ncommand = "a\\u0000b"\n',
        "2:11",
        "lifecycle.test.command: ",
    ),
    "not UTF-8": (b"\xff\xfe[lifecycle.test]\n", "1:1", ""),
    "not UTF-8 later": (b"# one\n# t\xc3\x28\n", "2:4", ""),
    "unknown policy": (
        PHASE + 'cleanroom.policy = "Meduim"\n',
        "5:20",
        "lifecycle.test.cleanroom.policy: expected Low, Medium, High or Locked, found 'Meduim'",
    ),
    "unknown key": (
        PHASE + 'cleanroom.contaners = ["postgres"]\n',
        "5:11",
        "lifecycle.test.cleanroom.contaners: ",
    ),
    "unknown service": (
        PHASE + 'cleanroom.containers = [\n"redis",\n"postgers"]\n',
        "7:1",
        "lifecycle.test.cleanroom.containers[1]: ",
    ),
    "wrong type of command": (
        HEAD + "[lifecycle.test]\ncommand = 5\n",
        "4:11",
        "lifecycle.test.command: expected a string, found 5",
    ),
    "wrong type of commands": (
        HEAD + '[lifecycle.test]\ncommands = "x"\n',
        "4:12",
        "lifecycle.test.commands: ",
    ),
    "wrong type in commands": (
        HEAD + '[lifecycle.test]\ncommands = ["x", 3]\n',
        "4:18",
        "lifecycle.test.commands[1]: ",
    ),
    "phase is no table": (
        HEAD + '[lifecycle]\ntest = "x"\n',
        "4:8",
        "lifecycle.test: expected a table",
    ),
    "wrong type of port": (PHASE + "port = 70000\n", "5:8", "lifecycle.test.port: "),
    "bad duration": (
        PHASE + 'cleanroom.timeout = "soonish"\n',
        "5:21",
        "lifecycle.test.cleanroom.timeout: ",
    ),
    "infinite duration": (
        PHASE + "cleanroom.timeout = inf\n",
        "5:21",
        "lifecycle.test.cleanroom.timeout: ",
    ),
    "negative size": (
        PHASE + 'cleanroom.limits = { memory = "-1GiB" }\n',
        "5:31",
        "lifecycle.test.cleanroom.limits.memory: ",
    ),
    "unknown limit": (
        PHASE + "cleanroom.limits = { memroy = 1 }\n",
        "5:22",
        "lifecycle.test.cleanroom.limits.memroy: ",
    ),
    "limit above the level's": (
        PHASE + 'cleanroom.limits = { memory = "64GiB" }\n',
        "5:31",
        "lifecycle.test.cleanroom.limits.memory: ",
    ),
    "timeout above the level's": (
        PHASE + 'cleanroom.timeout = "20m"\n',
        "5:21",
        "lifecycle.test.cleanroom.timeout: ",
    ),
    "laxer reaction": (
        PHASE + 'cleanroom.on_violation = "warn"\n',
        "5:26",
        "lifecycle.test.cleanroom.on_violation: ",
    ),
    "hook names no phase": (
        PHASE + '[hooks]\nbefore_test=["nope"]\n',
        "6:14",
        "hooks.before_test[0]: ",
    ),
    "prerequisite names no phase": (
        PHASE + 'depends_on = ["tset"]\n',
        "5:15",
        "lifecycle.test.depends_on[0]: ",
    ),
    "circle of hooks": (
        PHASE + '[lifecycle.b]\ncommand="b"\n[hooks]\nbefore_test=["b"]\nbefore_b=["test"]\n',
        "9:11",
        "hooks.before_b[0]: ",
    ),
    "circle of prerequisites": (
        PHASE + 'depends_on=["b"]\n[lifecycle.b]\ndepends_on=["test"]\n',
        "7:13",
        "lifecycle.b.depends_on[0]: ",
    ),
    "phase that needs itself": (
        PHASE + 'depends_on=["test"]\n',
        "5:13",
        "lifecycle.test.depends_on[0]: ",
    ),
    "output outside": (
        PHASE + 'cleanroom.outputs = ["../../etc"]\n',
        "5:22",
        "lifecycle.test.cleanroom.outputs[0]: ",
    ),
    "absolute output": (
        PHASE + 'cleanroom.outputs = ["/etc"]\n',
        "5:22",
        "lifecycle.test.cleanroom.outputs[0]: ",
    ),
    "workspace outside": (PHASE + '[workspace.a]\npath = "../.."\n', "6:8", "workspace.a.path: "),
    "workspace missing": (PHASE + '[workspace.a]\npath = "nowhere"\n', "6:8", "workspace.a.path: "),
    "workspace without path": (PHASE + "[workspace.a]\n", "5:1", "workspace.a: "),
    "egress at High": (
        PHASE + 'cleanroom.policy = "High"\ncleanroom.egress = ["a.example:443"]\n',
        "6:20",
        "lifecycle.test.cleanroom.egress: ",
    ),
    "egress without port": (
        PHASE + 'cleanroom.egress = ["a.example"]\n',
        "5:21",
        "lifecycle.test.cleanroom.egress[0]: ",
    ),
    "unknown rule": (
        PHASE + 'cleanroom.allow_degraded = ["resource.memroy"]\n',
        "5:29",
        "lifecycle.test.cleanroom.allow_degraded[0]: ",
    ),
    "project's key in a phase": (
        PHASE + 'cleanroom.slo = "2s"\n',
        "5:11",
        "lifecycle.test.cleanroom.slo: ",
    ),
    "tools that do not exist": (
        PHASE + 'cleanroom.tools = ["nowhere"]\n',
        "5:20",
        "lifecycle.test.cleanroom.tools[0]: ",
    ),
    "init file missing": (
        PHASE
        + 'cleanroom.containers=["postgres"]\n[cleanroom.services.postgres]\ninit=["no.sql"]\n',
        "7:7",
        "cleanroom.services.postgres.init[0]: ",
    ),
    "service without ready": (
        PHASE + '[cleanroom.services.mail]\ncommand = ["maild"]\n',
        "5:1",
        "cleanroom.services.mail: ",
    ),
    "service with a path for a name": (
        PHASE + '[cleanroom.services."../x"]\ncommand = ["maild"]\nready = { tcp = 1 }\n',
        "5:1",
        'cleanroom.services."../x": ',
    ),
    "runs itself": (
        HEAD + '[lifecycle.test]\ncommand = "cleanroom-engine run test"\n',
        "4:11",
        "lifecycle.test.command: ",
    ),
    "digits without end": ("x = " + "9" * 5000 + "\n" + PHASE, "1:1", ""),
    "deep lists": (HEAD + "x = " + "[" * 20000 + "]" * 20000 + "\n", "3:", ""),
    "deep keys": ("a." * 20000 + "a = 1\n", "1:1", ""),
}


@pytest.mark.parametrize(("text", "place", "start"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_refused_where_it_stands(
    tmp_path: Path, text: str | bytes, place: str, start: str
):
    """Each mistake is exit 2 with the line and column of its key or value,
    and the message begins with the dotted key.
    """
    written(tmp_path, text)
    with pytest.raises(ProjectError) as refused:
        load(tmp_path, ("test",), caller={}, floor=NO_FLOOR)
    assert refused.value.exit == Exit.USAGE
    assert refused.value.where.startswith(f"make.toml:{place}")
    assert refused.value.message.startswith(start)
    assert os.listdir(tmp_path) == ["make.toml"]


OF_BAD = {
    "CR-PROJECT-002": "not UTF-8",
    "CR-PROJECT-003": "broken TOML",
    "CR-PROJECT-004": "deep lists",
    "CR-PROJECT-005": "escaped NUL",
    "CR-PROJECT-006": "unknown key",
    "CR-PROJECT-007": "unknown policy",
    "CR-PROJECT-008": "unknown service",
    "CR-PROJECT-009": "bad duration",
    "CR-PROJECT-010": "output outside",
    "CR-PROJECT-011": "hook names no phase",
    "CR-PROJECT-012": "circle of hooks",
    "CR-PROJECT-013": "runs itself",
    "CR-PROJECT-014": "egress at High",
    "CR-PROJECT-015": "limit above the level's",
    "CR-PROJECT-016": "workspace missing",
    "CR-PROJECT-018": "service without ready",
    "CR-PROJECT-019": "tools that do not exist",
    "CR-PROJECT-020": "service with a path for a name",
}


@pytest.mark.parametrize("code", OF_BAD)
def test_what_is_wrong_has_its_code(tmp_path: Path, code: str):
    """Whoever looks the code up reads of this mistake."""
    written(tmp_path, BAD[OF_BAD[code]][0])
    with pytest.raises(CleanroomError) as refused:
        load(tmp_path, caller={}, floor=NO_FLOOR)
    assert refused.value.code == code


def test_hosts_that_the_command_lines_policy_does_not_allow_have_a_code(tmp_path: Path):
    """The file alone stands: it is the command line that asks for more than the file gives."""
    written(tmp_path, PHASE + 'cleanroom.egress = ["a.example:443"]\n')
    assert load(tmp_path, caller={}, floor=NO_FLOOR).phases
    with pytest.raises(PolicyRefused) as refused:
        load(tmp_path, overrides=Overrides(policy=Level.HIGH), caller={}, floor=NO_FLOOR)
    assert refused.value.code == "CR-POLICY-003"


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        (PHASE + 'cleanroom.policy = "Meduim"\n', "Medium"),
        (PHASE + 'cleanroom.contaners = ["postgres"]\n', "containers"),
        (PHASE + 'cleanroom.containers = ["postgers"]\n', "postgres"),
        (PHASE + '[hooks]\nbefore_test = ["tets"]\n', "test"),
    ],
)
def test_a_misspelling_gets_a_suggestion(tmp_path: Path, text: str, suggestion: str):
    """The hint names the known word that is nearest."""
    with pytest.raises(ProjectError) as refused:
        planned(tmp_path, text, "test")
    assert f"did you mean {suggestion!r}?" in refused.value.hint


def test_without_make_toml_the_hint_is_init(tmp_path: Path):
    """A folder without make.toml is told how to get one."""
    with pytest.raises(ProjectError) as refused:
        load(tmp_path, ("test",), caller={}, floor=NO_FLOOR)
    assert "cleanroom-engine init" in refused.value.hint


def test_a_pipe_in_the_place_of_make_toml_does_not_hold_us(tmp_path: Path):
    """What is no regular file is refused at once."""
    os.mkfifo(tmp_path / "make.toml")
    with pytest.raises(ProjectError) as refused:
        load(tmp_path, caller={}, floor=NO_FLOOR)
    assert refused.value.code == "CR-PROJECT-002"


def test_an_unknown_phase_is_named_with_those_that_exist(tmp_path: Path):
    """A phase that does not exist is a usage error with its name and the existing ones."""
    with pytest.raises(UsageError) as refused:
        planned(tmp_path, PHASE + '[lifecycle.never]\ncommand = "x"\n', "nosuch")
    assert refused.value.code == "CR-USAGE-002"
    assert "nosuch" in refused.value.message
    assert "test, never" in refused.value.message


def test_an_unknown_rule_on_the_command_line_is_a_usage_error(tmp_path: Path):
    """`--allow-degraded` takes names of rules."""
    with pytest.raises(UsageError) as refused:
        planned(tmp_path, PHASE, "test", allow_degraded=("nonsense",))
    assert refused.value.code == "CR-USAGE-001"


def test_hooks_that_multiply_without_bound_are_refused(tmp_path: Path):
    """Hooks run every time, so a small file can ask for 2 to the 20th runs;
    it is refused instead of filling the memory.
    """
    chain = "".join(f'[lifecycle.p{n}]\ncommand = "x"\n' for n in range(21))
    hooks = "".join(f'before_p{n} = ["p{n + 1}", "p{n + 1}"]\n' for n in range(20))
    with pytest.raises(ProjectError) as refused:
        planned(tmp_path, HEAD + chain + "[hooks]\n" + hooks, "p0")
    assert refused.value.code == "CR-PROJECT-017"


def test_a_very_long_chain_of_prerequisites_is_refused(tmp_path: Path):
    """A thousand nested prerequisites are an error of the file, not of the interpreter's stack."""
    chain = (
        "".join(f'[lifecycle.p{n}]\ndepends_on = ["p{n + 1}"]\n' for n in range(1000))
        + "[lifecycle.p1000]\n"
    )
    with pytest.raises(ProjectError) as refused:
        planned(tmp_path, chain, "p0")
    assert refused.value.code == "CR-PROJECT-017"


def test_a_broken_hook_of_a_phase_that_does_not_run_is_listed(tmp_path: Path):
    """A hook that names no phase is ignored where its phase is not in the plan."""
    plan = planned(
        tmp_path, PHASE + '[lifecycle.b]\ncommand = "b"\n[hooks]\nbefore_b = ["nope"]\n', "test"
    )
    assert [(entry.key, entry.line) for entry in plan.ignored] == [("hooks.before_b[0]", 8)]
    assert trace(plan) == ["test"]


def test_policy_below_the_files_needs_both_to_say_so(tmp_path: Path):
    """`--policy Low` is refused with exit 3 until file and command line both let the policy go."""
    allowing = PHASE + '[cleanroom]\nallow_degraded = ["policy"]\n'
    for text, said in ((PHASE, ()), (PHASE, ("policy",)), (allowing, ())):
        with pytest.raises(PolicyRefused) as refused:
            planned(tmp_path, text, "test", policy="Low", allow_degraded=said)
        assert refused.value.exit == Exit.REFUSED
    assert (
        planned(tmp_path, allowing, "test", policy="Low", allow_degraded=("policy",))
        .phases[0]
        .policy.level
        == "Low"
    )


@pytest.mark.parametrize(
    ("floor", "text"),
    [
        ('policy = "High"', PHASE),
        ('policy = "Low"', PHASE + "cleanroom.enabled = false\n"),
        ('backend = "docker"', PHASE + '[cleanroom]\nbackend = "embedded"\n'),
        ('egress = ["*.inside.example:443"]', PHASE + 'cleanroom.egress = ["evil.example:443"]\n'),
        ('images = ["inside/*"]', PHASE + 'cleanroom.image = "python:3"\n'),
        ("polcy = 1", PHASE),
        ("broken", PHASE),
    ],
)
def test_a_project_below_the_organisations_floor_is_refused(tmp_path: Path, floor: str, text: str):
    """Least policy, backend, egress and images of the machine's file hold,
    and a floor nobody can read refuses.
    """
    file = tmp_path / "floor.toml"
    file.write_text(floor)
    with pytest.raises(PolicyRefused) as refused:
        planned(tmp_path / "project", text, "test", floor=file)
    assert refused.value.code == "CR-POLICY-002"


def test_the_floor_allows_an_address_with_brackets(tmp_path: Path):
    """An IPv6 address is no set of characters in the floor's patterns."""
    file = tmp_path / "floor.toml"
    file.write_text('egress = ["[2001:db8::1]:*"]')
    plan = planned(
        tmp_path / "project",
        PHASE + 'cleanroom.egress = ["[2001:db8::1]:443"]\n',
        "test",
        floor=file,
    )
    assert plan.phases[0].policy.egress == ("[2001:db8::1]:443",)


def test_the_floors_backend_is_taken_where_the_project_leaves_it_open(tmp_path: Path):
    """`auto` becomes what the organisation requires."""
    file = tmp_path / "floor.toml"
    file.write_text('backend = "docker"')
    assert planned(tmp_path / "project", PHASE, "test", floor=file).backend == "docker"


@pytest.mark.parametrize(
    "command",
    [
        "exec cleanroom-engine run test",
        "A=1 B='x y' /opt/bin/cleanroom-engine pipeline test",
        "env -i A=1 cleanroom-engine run test",
        "python3.12 -I -m cleanroom run test",
        "echo a && cleanroom-engine run test",
        "(cd x; cleanroom-engine run test)",
        "true\ncleanroom-engine run test",
        "sh -c 'cleanroom-engine run test'",
        "uv run cleanroom-engine run test",
        "uv run python -m cleanroom run test",
        "if true; then cleanroom-engine run test; fi",
        "timeout 5 cleanroom-engine run test",
        "x=$(cleanroom-engine run test)",
    ],
)
def test_the_engine_is_recognised_behind_what_leads_to_it(tmp_path: Path, command: str):
    """A command that would run the engine inside is refused however it is spelled."""
    written(tmp_path, f"{HEAD}[lifecycle.test]\ncommand = '''{command}'''\n")
    with pytest.raises(CleanroomError) as refused:
        load(tmp_path, ("test",), caller={}, floor=NO_FLOOR)
    assert refused.value.code == "CR-PROJECT-013"
    assert "cleanroom.command = " in refused.value.hint


@pytest.mark.parametrize(
    "command",
    [
        "echo cleanroom-engine",
        "pip install cleanroom-engine",
        "grep -m cleanroom x",
        "echo 'open",
        "python -m pytest cleanroom",
    ],
)
def test_naming_the_engine_is_not_running_it(tmp_path: Path, command: str):
    """The engine's name among the arguments of another program is no recursion."""
    written(tmp_path, f'{HEAD}[lifecycle.test]\ncommand = "{command}"\n')
    assert load(tmp_path, ("test",), caller={}, floor=NO_FLOOR).phases


@pytest.mark.parametrize(
    ("limit", "bound"),
    [
        ('memory = "64GiB"', "at most 2 GiB, the bound of Medium,"),
        ("pids = 100000", "at most 1024, the bound of Medium,"),
        ('wall = "9h"', "at most 600 s, the bound of Medium,"),
    ],
)
def test_a_bound_is_written_as_people_write_it(tmp_path: Path, limit: str, bound: str):
    """The bound of a limit has a unit, and no exponent."""
    (tmp_path / "make.toml").write_text(PHASE + f"[lifecycle.test.cleanroom.limits]\n{limit}\n")
    with pytest.raises(ProjectError) as caught:
        load(tmp_path, caller={}, floor=NO_FLOOR)
    assert f"expected {bound} or a reason" in str(caught.value)
