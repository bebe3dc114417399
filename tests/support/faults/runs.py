"""Clocks, caches, and runs beside each other."""

from __future__ import annotations

import json
import subprocess

from support import sabotage
from support.command_harness import Project
from support.faults.suite import CommandResult, fault, run

RUN = "the run"
# The engine's own clock seam: an hour later and a day earlier at every other look.


@fault(
    RUN,
    "sees the wall clock jump back and forth",
    "times are odd, durations and verdict are not; the audit log verifies",
    code=0,
    says="PASSED",
)
def clock(project: Project) -> CommandResult:
    project.write({"test": "sleep 0.2"})
    told = run(project, before=sabotage.code(sabotage.jumping_clock))
    verified = run(project, "audit", "verify")
    assert verified.code == 0, verified.text
    (report,) = (project.root / ".ggen/cleanroom/reports").glob("test_results.json")
    (phase,) = json.loads(report.read_text())["phases"]
    assert 0.2 <= phase["duration_seconds"] < 20
    return told


@fault(
    RUN,
    "shares its project with another run at the same time",
    "both pass, both are in the state and in one audit log that verifies",
    code=0,
    says="PASSED",
)
def two(project: Project) -> CommandResult:
    project.write({"test": "sleep 0.5; echo a > a", "other": "sleep 0.5; echo b > b"})
    other = subprocess.Popen(
        project.argv("run", "other", "--backend", "embedded"),
        cwd=project.root,
        env=project.variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    told = run(project)
    assert other.wait(timeout=30) == 0
    assert run(project, "audit", "verify").code == 0
    history = json.loads((project.root / ".ggen/state.json").read_text())["phase_history"]
    assert {entry["phase"] for entry in history} == {"test", "other"}
    assert ((project.root / "a").read_text(), (project.root / "b").read_text()) == ("a\n", "b\n")
    return told


@fault(
    RUN,
    "has a damaged home cache",
    "a file where the folder should be is told by its name",
    code=5,
    says="found a file",
)
def home(project: Project) -> CommandResult:
    (project.cache / "home-caches").write_text("not a folder")
    project.write({"test": "true"})
    return run(project)


@fault(
    RUN,
    "finds bytes of its prepared database changed in the cache",
    "the server does not start from it; it is found out, made anew, and the run goes on",
    code=0,
    says="was damaged in the cache",
)
def database(project: Project) -> CommandResult:
    project.write({"test": "true"}, containers='["postgres"]')
    assert run(project).code == 0
    for control in project.cache.glob("services/templates/*/data/**/global/pg_control"):
        control.write_bytes(bytes(len(control.read_bytes())))
    return run(project)


@fault(
    RUN,
    "has 600 phases that leave changes in layers",
    "layers are folded into one before the kernel's limit of 500 is reached",
    code=0,
    says="phase p599 passed",
    slow=True,
)
def many(project: Project) -> CommandResult:
    names = [f"p{number}" for number in range(600)]
    project.write(
        {name: f"test ! -e log || test -s log; echo {name} >> log" for name in names},
        outputs='["nothing/"]',
    )
    return run(project, "pipeline", *names, timeout_seconds=600)
