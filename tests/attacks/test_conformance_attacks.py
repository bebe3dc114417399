"""Every attack of the list, carried out in real environments at Low, Medium and High:
as whoever runs the tests, and as an ordinary user where that is root.
"""

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

import cleanroom
from support.attacks.columns import COLUMNS, OTHERWISE, listed
from support.attacks.document import DOCUMENT
from support.attacks.elsewhere import ELSEWHERE, NUMBERS
from support.attacks.suite import Attack, load
from support.ordinary_user import ORDINARY, readable_python
from support.paths import TESTS

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]

ATTACKS = list(load().values())
NOTICES = {"resolver", "probe", "pycache"}  # what programs try on every host and do without


@pytest.fixture(
    scope="module",
    params=[f"{level}-{who}" for level in COLUMNS for who in ("caller", "ordinary user")],
)
def found(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """What came of all attacks, carried out once by a process of its own."""
    level, _, user = request.param.partition("-")
    # below a folder that no environment has of its own, so that what was planted is hidden by the
    # level and not by its /tmp
    with tempfile.TemporaryDirectory(
        prefix="cleanroom-attacks-", dir="/var/lib" if os.geteuid() == 0 else Path.home()
    ) as folder:
        os.chmod(folder, 0o755)
        run = Path(folder, "run")
        for package, copy in (
            (TESTS / "support", "tests/support"),
            (Path(cleanroom.__file__).parent, "src/cleanroom"),
        ):
            shutil.copytree(
                package, Path(folder, copy), ignore=shutil.ignore_patterns("__pycache__")
            )
        run.mkdir(mode=0o755)
        who: dict[str, Any] = {}
        program = sys.executable
        libraries = str(Path(anyio.__file__).parents[1])
        if user == "ordinary user":
            if os.geteuid() != 0:
                pytest.skip("the tests run as an ordinary user already")
            os.chown(run, ORDINARY, ORDINARY)
            who = {"user": ORDINARY, "group": ORDINARY, "extra_groups": []}
            program = readable_python(libraries, who)
        variables = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(run),
            "PYTHONPATH": f"{folder}/src:{folder}/tests:{libraries}",
            "PLANTED_TOKEN": "planted",
        }
        argv = [program, "-B", "-m", "support.attacks.collect", str(run), level]
        done = subprocess.run(
            argv, env=variables, cwd=folder, capture_output=True, text=True, timeout=300, **who
        )
        assert done.returncode == 0, done.stderr
        yield json.loads((run / "found.json").read_text()) | {"level": level}


def filled(target: dict[str, Any], facts: dict[str, Any]) -> dict[str, str]:
    return {
        key: value.format(**facts) if isinstance(value, str) else str(value)
        for key, value in target.items()
    }


def attempts_of(found: dict[str, Any], attack: Attack) -> list[dict[str, Any]]:
    return list(found["results"][attack.id]["attempts"])


def at_its_level(found: dict[str, Any], attack: Attack) -> Attack:
    """The row as the level's column has it, unless this machine cannot carry it out."""
    attack = attack.at(found["level"])
    if attack.letter == "-":
        pytest.skip(attack.gap)
    if attack.id == "NET-17" and not found["address"]:
        pytest.skip("this machine has no address but its loopback's")
    if (
        attack.id == "FS-17"
        and found["level"] == "High"
        and str(found["facts"]["secrets"]).startswith("/tmp/")
    ):
        pytest.skip(
            "an ordinary user's home below /tmp, which each environment has of its own: "
            "nothing of it can be tried"
        )
    if attack.id in ("RES-04", "RES-07") and not found["memory"]:
        pytest.skip(
            "no control group: memory is sampled, which is the engine's part (tests/acceptance)"
        )
    return attack


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.id)
def test_an_attack_comes_to_what_the_list_says(found: dict[str, Any], attack: Attack):
    """Inside, every step works or fails exactly as the level's column says, and nothing hangs."""
    attack = at_its_level(found, attack)
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


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.id)
def test_an_attack_is_told_with_process_and_target(found: dict[str, Any], attack: Attack):
    """One record for each target, which names the program that tried."""
    attack = at_its_level(found, attack)
    attempts = attempts_of(found, attack)
    for seen in attack.seen:
        target = filled(seen.target, found["facts"])
        told = [
            a
            for a in attempts
            if a["rule"] == seen.rule
            and target.items() <= {k: str(v) for k, v in a["target"].items()}.items()
        ]
        assert told, (
            f"{seen.rule} {target} is not among {[(a['rule'], a['target']) for a in attempts]}"
        )
        for attempt in told:
            seen_only = (
                attempt["mechanism"] == "name_answerer" or attempt["rule"] == "network.record"
            )
            assert attempt["outcome"] == (
                "observed" if seen_only else "killed" if attack.letter == "L" else "blocked"
            )
            if not attempt["tags"]:  # what runtimes try by habit is one record for all that do
                assert attempt["process"]["argv"][-1] == attack.id
            if attempt["certainty"] == "held_syscall":
                assert Path(attempt["process"]["exe"]).name.startswith("python3")
                assert attempt["process"]["pid"] > 0


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.id)
def test_what_is_allowed_or_ordinary_is_no_violation(found: dict[str, Any], attack: Attack):
    """What works, and what fails as it would anywhere (A and b), leaves no record but notices."""
    attack = at_its_level(found, attack)
    if attack.letter not in "Ab":
        return
    assert [
        attempt for attempt in attempts_of(found, attack) if not set(attempt["tags"]) & NOTICES
    ] == []


@pytest.mark.parametrize(("identity", "count"), [("NET-36", 1000), ("PROC-30", 2000)])
def test_a_loop_of_refusals_is_counted_in_full(found: dict[str, Any], identity: str, count: int):
    """Folded into few records whose counts add up: nothing is lost."""
    attempts = found["results"][identity]["attempts"]
    assert sum(attempt["count"] for attempt in attempts) == count
    assert len(attempts) <= 20


def test_a_name_and_the_connection_to_it_are_one_record(found: dict[str, Any]):
    """NET-07: host, ip and port together, and no separate record of the question."""
    told = [a for a in found["results"]["NET-07"]["attempts"] if not set(a["tags"]) & NOTICES]
    rule, address = (
        ("network.record", "203.0.113.5")
        if found["level"] == "Low"
        else ("network.egress", "198.18.")
    )
    assert [(a["rule"], a["target"]["host"], a["target"]["port"]) for a in told] == [
        (rule, "api.shop.example", 443)
    ]
    assert told[0]["target"]["ip"].startswith(address)


def test_a_grandchild_is_named_by_its_own_number(found: dict[str, Any]):
    """NET-33: the record is the grandchild's, not its parent's."""
    result = found["results"]["NET-33"]
    (told,) = (a for a in result["attempts"] if a["target"].get("port") == 2)
    assert str(told["process"]["ns_pid"]) == result["steps"]["pid"]


def test_nothing_happened_outside(found: dict[str, Any]):
    """No planted listener heard anything that its level forbids,
    no planted file changed in content, owner, mode, times or attributes, the stranger lives.
    """
    outside = found["outside"]
    allowed = (found["address"], found["facts"]["agent"]) if found["level"] == "Low" else ()
    assert [heard for heard in outside["heard"] if not any(name in heard for name in allowed)] == []
    assert (outside["changed"], outside["stranger lives"]) == (
        ["{run}/second-name".format(**found["facts"])] if found["level"] == "Low" else [],
        True,
    )


def test_nothing_is_left_of_the_attackers(found: dict[str, Any]):
    """No process outlived its attack, and the ledger balances."""
    assert found["left over"] == []
    created, removed, left = found["ledger"]
    assert (created, left) == (removed, [])
    assert created > 0


def test_every_row_of_the_list_is_accounted_for():
    """Each number is carried out here, or says where it is proven or why not."""
    have = {re.sub(r"[a-z]$", "", attack.id) for attack in ATTACKS} | set(ELSEWHERE)
    assert have == {
        f"{area}-{number:02}" for area, most in NUMBERS.items() for number in range(1, most + 1)
    }


def test_the_published_table_has_these_rows():
    """`docs/isolation-attacks.md` lists the same attacks, titles and levels."""
    lines = DOCUMENT.read_text().splitlines()
    rows = {
        tuple(line.strip("| ").split(" | ")[:5])
        for line in lines
        if re.match(r"\| (?!HOST)[A-Z]+-\d", line)
    }
    carried_out = {(a.id, a.title, *(a.at(level).letter for level in COLUMNS)) for a in ATTACKS}
    assert rows == carried_out | {
        (identity, title, "-", "-", "-") for identity, (title, _) in ELSEWHERE.items()
    }


def test_every_cell_is_what_the_list_says_or_says_why_not():
    """Low, Medium and High, row by row; a stronger b than asked for is none,
    and a reason that is not needed is an error.
    """
    wrong = set()
    for attack in ATTACKS:
        letters = listed().get(attack.id) or listed()[re.sub(r"[a-z]$", "", attack.id)]
        for level, letter in zip(COLUMNS, letters, strict=True):
            if attack.at(level).letter not in (letter, "-"):
                wrong.add((attack.id, level))
    assert wrong == set(OTHERWISE)


def test_each_level_contains_the_one_before_it():
    """What a level refuses every higher level refuses: A and O may become B, b or L,
    and never the other way.

    But for what is not the same at Low, on the host's network:
    others could come to who listens there, and its loopback is the host's.
    """
    others = {identity for identity, level in OTHERWISE if level == "Low"}
    for attack in (attack for attack in ATTACKS if attack.id not in others):
        refused = [
            attack.at(level).letter in "BbL" for level in COLUMNS if attack.at(level).letter != "-"
        ]
        assert refused == sorted(refused), attack.id
