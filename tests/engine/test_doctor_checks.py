"""The doctor's judgements, from facts that a test owns; and one real look at this machine."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from cleanroom.backends.containers.requirements import Interpreter, Machine
from cleanroom.backends.run_folders import OWNER
from cleanroom.engine import doctor
from cleanroom.model.capability import Missing
from cleanroom.model.codes.table import CODES
from cleanroom.model.policy import Level
from cleanroom.sandbox.journal import process_name
from cleanroom.sandbox.kernel.cgroups import Homes
from support.event_log_builder import capability

REPORT = capability().report
LACKING = Missing(rule="filesystem.reads", why="not there yet", hint="use Medium")


def test_doctor_a_level_is_held_only_with_all_its_rules() -> None:
    """A missing rule of High leaves Low and Medium ok, and High and Locked name the rule with what
    helps.
    """
    checks = {
        check.name: check
        for check in doctor.level_checks(msgspec.structs.replace(REPORT, missing=(LACKING,)))
    }
    assert [checks[f"policy {level.value}"].status for level in Level] == [
        "ok",
        "ok",
        "warn",
        "warn",
    ]
    assert "filesystem.reads" in checks["policy High"].detail
    assert checks["policy High"].hint == "use Medium"


def test_doctor_medium_that_cannot_be_held_is_a_failure() -> None:
    """What Medium lacks is a failure and not a warning, since runs are refused by default then."""
    missing = Missing(rule="network.egress", why="no namespaces", hint="allow user namespaces")
    checks = {
        check.name: check
        for check in doctor.level_checks(msgspec.structs.replace(REPORT, missing=(missing,)))
    }
    assert checks["policy Medium"].status == "fail"


def run_folder(cache: Path, owner: str) -> Path:
    """The folder of a run, with the process to which it belongs."""
    folder = cache / "runs" / "20261124-0"
    folder.mkdir(parents=True)
    (folder / OWNER).write_text(owner)
    return folder


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ((3, 11, 7), "warn"),
        ((3, 11, 13), "ok"),
        ((3, 12, 10), "warn"),
        ((3, 13, 4), "ok"),
        ((3, 14, 0), "ok"),
    ],
)
def test_doctor_python_with_known_holes_is_warned_of(
    version: tuple[int, int, int], status: str
) -> None:
    """Interpreters before the tarfile fixes are warned of, and no later one is."""
    assert doctor.python_check(version).status == status


def test_doctor_other_systems_are_told_what_works_there() -> None:
    """On macOS the platform check fails and says what can be done there."""
    check = doctor.platform_check("darwin", "arm64")
    assert check.status == "fail"
    assert "plan" in check.hint


def test_doctor_the_unrelated_distribution_is_a_failure() -> None:
    """A distribution named cleanroom beside ours is a failure with the line that removes it."""
    check = doctor.distribution_check("0.4.2")
    assert check.status == "fail"
    assert "pip uninstall cleanroom" in check.hint


def test_doctor_small_disks_and_leftovers_are_warned_of(tmp_path: Path) -> None:
    """Little free space and a dead run's folder each warn; enough space, no folder, and that of a
    living run do not.
    """
    assert doctor.disk_check(tmp_path, 1 << 30).status == "warn"
    assert doctor.disk_check(tmp_path, 10 << 30).status == "ok"
    assert doctor.leftovers_check(tmp_path).status == "ok"
    killed = run_folder(tmp_path, "2147483646:1")
    assert doctor.leftovers_check(tmp_path).status == "warn"
    (killed / OWNER).write_text(process_name(os.getpid()))
    assert doctor.leftovers_check(tmp_path).status == "ok"


def test_doctor_whatever_is_not_ok_has_a_code(tmp_path: Path) -> None:
    """On this machine every check that is not ok has a code that `explain` knows."""
    checks = doctor.host_checks({"PATH": "", "CLEANROOM_CACHE": str(tmp_path)})
    assert [check for check in checks if check.status != "ok" and check.code not in CODES] == []


def test_doctor_an_engine_is_warned_of_with_all_that_it_lacks() -> None:
    """Each part in one row, and every line that brings them in one hint;
    nothing but the socket where all is there.
    """
    machine = Machine(
        engine="docker", interpreter=Interpreter(program="/v/bin/python"), socket="/run/docker.sock"
    )
    assert doctor.container_check(machine).status == "ok"
    check = doctor.container_check(msgspec.structs.replace(machine, socket="", library=False))
    assert (check.status, check.code) == ("warn", "CR-CONTAINER-013")
    assert len(check.hint.splitlines()) == 4


def test_doctor_each_warning_has_its_code(tmp_path: Path) -> None:
    """What is said of a machine leads to its explanation."""
    missing = Missing(rule="network.egress", why="no namespaces", hint="")
    unheld = msgspec.structs.replace(REPORT, missing=(missing,))
    lesser = [msgspec.structs.replace(row, enforced="no") for row in REPORT.dimensions]
    run_folder(tmp_path, "2147483646:1")
    found = {
        "CR-DOCTOR-002": doctor.capability_checks(
            msgspec.structs.replace(REPORT, dimensions=tuple(lesser))
        )[-1],
        "CR-DOCTOR-003": doctor.level_checks(unheld)[1],
        "CR-DOCTOR-004": doctor.platform_check("darwin", "arm64"),
        "CR-DOCTOR-005": doctor.python_check((3, 11, 7)),
        "CR-DOCTOR-006": doctor.distribution_check("0.4.2"),
        "CR-DOCTOR-007": doctor.landlock_check(0),
        "CR-DOCTOR-008": doctor.cgroup_check(Homes(0, {}, "read-only")),
        "CR-DOCTOR-009": doctor.disk_check(tmp_path, 1 << 30),
        "CR-DOCTOR-010": doctor.leftovers_check(tmp_path),
    }
    assert {code: check.code for code, check in found.items()} == {code: code for code in found}
