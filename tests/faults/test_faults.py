"""Every fault of the table, carried out by the real command:
its exit code, its words, and nothing left.
"""

from __future__ import annotations

import os
import sys
from typing import Literal

import pytest

from cleanroom.backends.containers.client import EngineName
from support.command_harness import Project
from support.container_harness import require
from support.faults.elsewhere import ELSEWHERE
from support.faults.suite import Fault, has_groups, is_root, load
from support.paths import ROOT

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]


# A row that is carried out on container engines is a test for each.
ROWS = [
    pytest.param(
        row,
        engine,
        id="-".join((*row.name.split(), *([engine] if engine else []))),
        marks=pytest.mark.timeout(700 if row.slow else 300 if engine else 120),
    )
    for row in load().values()
    for engine in row.engines or ("",)
]


@pytest.mark.parametrize(("row", "engine"), ROWS)
def test_a_fault_comes_to_what_the_table_says(
    project: Project, row: Fault, engine: EngineName | Literal[""]
):
    """The run ends by itself with this code and these words, the engine does not break,
    and nothing is left.
    """
    if engine:
        require(engine)
    if row.slow and not os.environ.get("CLEANROOM_SLOW"):
        pytest.skip("takes minutes; CLEANROOM_SLOW=1 carries it out")
    if row.root and not is_root():
        pytest.skip("only root mounts small file systems")
    told = row.carry_out(project, engine) if engine else row.carry_out(project)

    by_samples = row.groups and not has_groups()
    code = row.code_by_samples if by_samples and row.code_by_samples is not None else row.code
    assert told.code == code, told.text
    assert row.says in told.text or by_samples, told.text
    assert "CR-ENGINE-000" not in told.text, told.text
    assert project.settled() == {}


def test_every_test_that_the_table_names_exists():
    """A row that is proven elsewhere names a file that is there."""
    assert [where for *_, where in ELSEWHERE if not (ROOT / where).exists()] == []
