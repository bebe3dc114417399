"""Real files of the wild."""

from __future__ import annotations

import csv
import shutil
import tomllib
from pathlib import Path

import pytest

from cleanroom.model.errors import ProjectError
from cleanroom.model.plan import Plan
from cleanroom.project import load
from support.project_builder import CORPUS, NO_FLOOR, trace

EXPECTED = [
    (row[0], row[1])
    for row in csv.reader((CORPUS / "expect.tsv").read_text().splitlines(), delimiter="\t")
]
DIALECTS = {
    "rust-cli-lifecycle": "A",
    "full-stack-app": "A",
    "rust-monorepo": "D",
    "embedded-cross": "D",
    "lifecycle-complete": "E",
    "async-web-service": "C",
    "api-endpoint": "C",
}


def corpus(root: Path, name: str, *requested: str) -> Plan:
    """The plan of a corpus file, in a project that has the folders it names."""
    file = next(path for path in CORPUS.iterdir() if name in path.name)
    shutil.copy(file, root / "make.toml")
    try:
        table = tomllib.loads(file.read_text()).get("workspace", {})
    except tomllib.TOMLDecodeError:
        table = {}
    for value in table.values():
        for path in (
            [value["path"]] if isinstance(value, dict) else value if isinstance(value, list) else []
        ):
            (root / path).mkdir(parents=True, exist_ok=True)
    return load(root, requested, caller={}, floor=NO_FLOOR)


@pytest.mark.parametrize(("name", "verdict"), EXPECTED)
def test_every_corpus_file_loads_or_is_refused_at_its_line(tmp_path: Path, name: str, verdict: str):
    """Each real make.toml becomes a plan with phases, or is refused with file, line and column."""
    if verdict == "valid":
        assert corpus(tmp_path, name).phases
        return
    with pytest.raises(ProjectError) as refused:
        corpus(tmp_path, name)
    assert refused.value.where.startswith(f"make.toml:{verdict.partition(':')[2]}:")


@pytest.mark.parametrize(("name", "dialect"), DIALECTS.items())
def test_dialects_of_real_files_are_recognised(tmp_path: Path, name: str, dialect: str):
    """The plan says which dialect the file is written in."""
    assert corpus(tmp_path, name).dialect == dialect


def test_golden_hook_trace(tmp_path: Path):
    """The order recorded from real ggen for the rust-cli-lifecycle file comes out exactly."""
    plan = corpus(tmp_path, "rust-cli-lifecycle", "format", "lint", "test", "build")

    assert trace(plan) == [
        "format",
        "lint",
        "format",
        "test",
        "format",
        "test",
        "lint",
        "build",
        "docs",
    ]


def test_hooks_of_later_library_run_before_release(tmp_path: Path):
    """`before_release`, which ggen 1.2.0 ignores, gates the release."""
    plan = corpus(tmp_path, "rust-cli-lifecycle", "release")

    assert trace(plan)[-2:] == ["release", "install"]
    assert {"build", "test", "bench"} <= set(trace(plan)[:-2])


def test_before_all_of_a_real_file_runs_once_per_workspace(tmp_path: Path):
    """`before_all`, which breaks every phase in real ggen, runs once in each workspace,
    in name order.
    """
    plan = corpus(tmp_path, "full-stack-app", "test")

    assert [workspace.name for workspace in plan.workspaces] == ["backend", "frontend", "shared"]
    assert trace(plan) == ["format", "test"] * 3
    assert plan.parallel


def test_shell_string_hooks_become_hook_phases(tmp_path: Path):
    """Dialect E's hooks of shell strings are phases around their phase,
    prerequisites ahead of both.
    """
    workspace = corpus(tmp_path, "lifecycle-complete", "setup").workspaces[0]

    assert [(phase.name, phase.role, phase.of) for phase in workspace.phases] == [
        ("before_init", "hook", "init"),
        ("init", "prerequisite", "setup"),
        ("after_init", "hook", "init"),
        ("before_setup", "hook", "setup"),
        ("setup", "phase", ""),
        ("after_setup", "hook", "setup"),
    ]
    assert workspace.phases[0].commands == ("echo 'Starting initialization...'",)


def test_cargo_make_tasks_become_shell_text(tmp_path: Path):
    """Command and args are quoted words; a script keeps its interpreter or ends at its first
    error.
    """
    plan = corpus(tmp_path, "api-endpoint", "lint", "pre-commit")

    assert plan.phases[0].commands == ("cargo clippy --all-targets -- -D warnings",)
    assert plan.phases[1].commands[0].startswith("set -e\n")
    assert plan.phases[0].variables["CARGO_MAKE_SKIP_GIT_SKIP_ALLOWED_PUSH_BRANCH_CHECK"] == "true"
