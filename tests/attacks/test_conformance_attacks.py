"""Every attack of the list, carried out in real environments at Medium: as whoever runs the tests, and as an ordinary user where that is root."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from attack_elsewhere import ELSEWHERE, NUMBERS
from attack_suite import Attack, load
from attack_table import DOCUMENT

import cleanroom

pytestmark = [pytest.mark.sandbox, pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux")]

ORDINARY = 54321  # a uid that nobody has
ATTACKS = list(load().values())
NOTICES = {"resolver", "probe", "pycache"}  # what programs try on every host and do without


@pytest.fixture(scope="module", params=["caller", "ordinary user"])
def found(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """What came of all attacks, carried out once by a process of its own."""
    with tempfile.TemporaryDirectory(prefix="cleanroom-attacks-") as folder:
        os.chmod(folder, 0o755)
        here, run = Path(folder, "tests"), Path(folder, "run")
        shutil.copytree(Path(__file__).parent, here, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(Path(cleanroom.__file__).parent, Path(folder, "src/cleanroom"), ignore=shutil.ignore_patterns("__pycache__"))
        run.mkdir(mode=0o755)
        who: dict[str, Any] = {}
        program = sys.executable
        libraries = str(Path(anyio.__file__).parents[1])
        if request.param == "ordinary user":
            if os.geteuid() != 0:
                pytest.skip("the tests run as an ordinary user already")
            os.chown(run, ORDINARY, ORDINARY)
            who = {"user": ORDINARY, "group": ORDINARY, "extra_groups": []}
            program = readable_python(libraries, who)
        variables = {"PATH": "/usr/bin:/bin", "HOME": str(run), "PYTHONPATH": f"{folder}/src:{libraries}", "PLANTED_TOKEN": "planted"}
        argv = [program, "-B", str(here / "attack_collect.py"), str(run)]
        done = subprocess.run(argv, env=variables, cwd=folder, capture_output=True, text=True, timeout=100, **who)
        assert done.returncode == 0, done.stderr
        yield json.loads((run / "found.json").read_text())


def readable_python(libraries: str, who: dict[str, Any]) -> str:
    """An interpreter that another user may run, with these libraries."""
    for program in (sys.executable, "/usr/bin/python3"):
        variables = {"PATH": "/usr/bin:/bin", "PYTHONPATH": libraries}
        try:
            done = subprocess.run([program, "-c", "import anyio, msgspec, psutil"], env=variables, cwd="/", capture_output=True, **who)
        except PermissionError:
            continue
        if done.returncode == 0:
            return program
    pytest.skip(f"no interpreter that an ordinary user may run can import {libraries}")


def filled(target: dict[str, Any], facts: dict[str, Any]) -> dict[str, str]:
    return {key: value.format(**facts) if isinstance(value, str) else str(value) for key, value in target.items()}


def attempts_of(found: dict[str, Any], attack: Attack) -> list[dict[str, Any]]:
    return list(found["results"][attack.id]["attempts"])


def skip_what_is_not_here(found: dict[str, Any], attack: Attack) -> None:
    if attack.id == "NET-17" and not found["address"]:
        pytest.skip("this machine has no address but its loopback's")
    if attack.id in ("RES-04", "RES-07") and not found["memory"]:
        pytest.skip("no control group: memory is sampled, which is the engine's part (tests/acceptance)")


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.id)
def test_an_attack_comes_to_what_the_list_says(found: dict[str, Any], attack: Attack):
    """Inside, every step works or fails exactly as the column Medium says, and nothing hangs."""
    skip_what_is_not_here(found, attack)
    result = found["results"][attack.id]
    assert not result["timed_out"]
    if attack.may_die and result["exit_code"] == 137:
        return
    assert result["exit_code"] == 0, result["stderr"]
    assert result["steps"]
    wrong = {}
    for step, outcome in result["steps"].items():
        accepted = attack.expect.get(step, attack.expect.get("*", ""))
        if accepted != "*" and outcome not in accepted.split():
            wrong[step] = f"{outcome}, not {accepted}"
    assert not wrong


def expected_gaps(attacks: list[Attack]) -> list[Any]:
    marks = {attack.id: [pytest.mark.xfail(strict=True, reason=attack.gap)] if attack.gap else [] for attack in attacks}
    return [pytest.param(attack, id=attack.id, marks=marks[attack.id]) for attack in attacks if attack.seen]


@pytest.mark.parametrize("attack", expected_gaps(ATTACKS))
def test_an_attack_is_told_with_process_and_target(found: dict[str, Any], attack: Attack):
    """One record for each target, which names the program that tried."""
    skip_what_is_not_here(found, attack)
    attempts = attempts_of(found, attack)
    for seen in attack.seen:
        target = filled(seen.target, found["facts"])
        told = [a for a in attempts if a["rule"] == seen.rule and target.items() <= {k: str(v) for k, v in a["target"].items()}.items()]
        assert told, f"{seen.rule} {target} is not among {[(a['rule'], a['target']) for a in attempts]}"
        for attempt in told:
            assert attempt["outcome"] == (
                "observed" if attempt["mechanism"] == "name_answerer" else "killed" if attack.medium == "L" else "blocked"
            )
            assert attempt["process"]["argv"][-1] == attack.id
            if attempt["certainty"] == "held_syscall":
                assert Path(attempt["process"]["exe"]).name.startswith("python3")
                assert attempt["process"]["pid"] > 0


@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if attack.medium in "Ab"], ids=lambda attack: attack.id)
def test_what_is_allowed_or_ordinary_is_no_violation(found: dict[str, Any], attack: Attack):
    """What works, and what fails as it would anywhere, leaves no record but notices."""
    assert [attempt for attempt in attempts_of(found, attack) if not set(attempt["tags"]) & NOTICES] == []


@pytest.mark.parametrize(("identity", "count"), [("NET-36", 1000), ("PROC-30", 2000)])
def test_a_loop_of_refusals_is_counted_in_full(found: dict[str, Any], identity: str, count: int):
    """Folded into few records whose counts add up: nothing is lost."""
    attempts = found["results"][identity]["attempts"]
    assert sum(attempt["count"] for attempt in attempts) == count
    assert len(attempts) <= 20


def test_a_name_and_the_connection_to_it_are_one_record(found: dict[str, Any]):
    """NET-07: host, ip and port together, and no separate record of the question."""
    told = [a for a in found["results"]["NET-07"]["attempts"] if not set(a["tags"]) & NOTICES]
    assert [(a["rule"], a["target"]["host"], a["target"]["port"]) for a in told] == [("network.egress", "api.example.test", 443)]
    assert told[0]["target"]["ip"].startswith("198.18.")


def test_a_grandchild_is_named_by_its_own_number(found: dict[str, Any]):
    """NET-33: the record is the grandchild's, not its parent's."""
    result = found["results"]["NET-33"]
    (told,) = (a for a in result["attempts"] if a["target"].get("port") == 2)
    assert str(told["process"]["ns_pid"]) == result["steps"]["pid"]


def test_nothing_happened_outside(found: dict[str, Any]):
    """No planted listener heard anything, no planted file changed in content, owner, mode, times or attributes, and the stranger lives."""
    assert found["outside"] == {"heard": [], "changed": [], "stranger lives": True}


def test_nothing_is_left_of_the_attackers(found: dict[str, Any]):
    """No process outlived its attack, and the ledger balances."""
    assert found["left over"] == []
    created, removed, left = found["ledger"]
    assert (created, left) == (removed, [])
    assert created > 0


def test_every_row_of_the_list_is_accounted_for():
    """Each number is carried out here, or says where it is proven or why not."""
    have = {re.sub(r"[a-z]$", "", attack.id) for attack in ATTACKS} | set(ELSEWHERE)
    assert have == {f"{area}-{number:02}" for area, most in NUMBERS.items() for number in range(1, most + 1)}


def test_the_published_table_has_these_rows():
    """`docs/isolation-attacks.md` lists the same attacks, titles and levels."""
    lines = DOCUMENT.read_text().splitlines()
    rows = {tuple(line.strip("| ").split(" | ")[:3]) for line in lines if re.match(r"\| [A-Z]+-\d", line)}
    assert rows == {(a.id, a.title, a.medium) for a in ATTACKS} | {(identity, title, "-") for identity, (title, _) in ELSEWHERE.items()}
