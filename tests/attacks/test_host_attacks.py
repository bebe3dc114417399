"""What a phase, a service or a repository leaves harms nobody outside:
every attack of the table, as root and as an ordinary user, at each level and tier.
"""

from __future__ import annotations

import os
import re
import sys

import pytest

from support import container_harness
from support.attacks.document import DOCUMENT
from support.attacks.host import ATTACKS, HOST_ELSEWHERE, HostAttack
from support.attacks.host_harness import COLUMNS, Column, carried_out

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]

CELLS = [
    (column, attack) for column in COLUMNS for attack in ATTACKS.values() if column.takes(attack)
]


def require(column: Column) -> None:
    """Skip what this machine cannot carry out."""
    if column.backend != "embedded":
        container_harness.require("docker")
    if os.geteuid() != 0 and (column.user == 0 or column.owner != column.user):
        pytest.skip("only root can be root")


@pytest.mark.parametrize(
    ("column", "attack"), CELLS, ids=[f"{column.name}-{attack.id}" for column, attack in CELLS]
)
def test_an_attack_on_the_host_comes_to_nothing(column: Column, attack: HostAttack):
    """No program was started outside, nothing there was changed,
    and nothing came back that runs later.
    """
    require(column)
    harm, said = carried_out(attack, column)
    assert harm == [], said[-1].printed[-2000:]
    assert {answer.code for answer in said} <= {0, 1, 2, 3}, said[-1].printed[-2000:]


def test_the_published_table_has_these_rows():
    """`docs/isolation-attacks.md` lists the same attacks, and none that is not held."""
    text = DOCUMENT.read_text()
    rows = {
        tuple(line.strip("| ").split(" | ")[:2])
        for line in text.splitlines()
        if re.match(r"\| HOST-\d", line)
    }
    elsewhere = {(identity, title) for identity, (title, _) in HOST_ELSEWHERE.items()}
    assert rows == {(attack.id, attack.title) for attack in ATTACKS.values()} | elsewhere
    assert "**not held**" not in text


def test_what_is_carried_out_elsewhere_is_there():
    """Each row that names a test names one that exists."""
    top = DOCUMENT.parents[1]
    named = [
        path
        for _, where in HOST_ELSEWHERE.values()
        for path in re.findall(r"tests/[\w/]+\.py", where)
    ]
    assert [path for path in named if not (top / path).exists()] == []
    assert len(named) >= len(HOST_ELSEWHERE)
