"""Programs do inside what they do outside: each row, by a shell and by phases."""

from __future__ import annotations

import shutil

import pytest

from support.attacks.host_harness import Column
from support.container_harness import require
from support.inside.harness import COLUMNS, CONTAINERS, inside, outside
from support.inside.rows import ROWS, Row

SLOW = (pytest.mark.slow, pytest.mark.timeout(400))
CASES = [pytest.param(row, id=row.id, marks=SLOW if row.slow else ()) for row in ROWS]


def _require(row: Row) -> None:
    if row.needs and shutil.which(row.needs) is None:
        pytest.skip(f"no {row.needs}")


@pytest.mark.parametrize("row", CASES)
def test_a_shell_outside_does_it(row: Row):
    """What a row expects is what happens without the engine."""
    _require(row)
    assert outside(row) == []


@pytest.mark.sandbox
@pytest.mark.parametrize("column", COLUMNS, ids=[column.name for column in COLUMNS])
@pytest.mark.parametrize("row", CASES)
def test_a_phase_inside_does_it(row: Row, column: Column):
    """The same commands pass as phases, and the project has the same afterwards."""
    _require(row)
    if column.name in row.gaps or (row.only and column.name not in row.only):
        pytest.skip(row.gaps.get(column.name, f"no {row.needs} there"))
    assert inside(row, column) == []


@pytest.mark.slow
@pytest.mark.parametrize("row", CASES)
def test_a_phase_in_a_container_does_it(row: Row):
    """As far as the row does not say how it differs there."""
    require("docker", "cleanroom/base")
    (column,) = CONTAINERS
    if column.name in row.gaps or row.only:
        pytest.skip(row.gaps.get(column.name, f"no {row.needs} there"))
    assert inside(row, column) == []
