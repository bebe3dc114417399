"""Phases in `[tool.cleanroom]` of pyproject.toml, where a project has no make.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from cleanroom.model.errors import ProjectError, UsageError
from cleanroom.model.plan import Plan
from cleanroom.project import load
from support.project_builder import NO_FLOOR, trace

PYPROJECT = """\
[build-system]
requires = ["hatchling"]

[project]
name = "shop"
version = "1"

[tool.ruff]
line-length = 100

[tool.cleanroom]
policy = "Low"

[tool.cleanroom.services.postgres]
version = "15"

[tool.cleanroom.env.ci]
policy = "High"

[tool.cleanroom.lifecycle.init]
command = "true"

[tool.cleanroom.lifecycle.test]
command = "pytest"
env = { A = "1" }
cleanroom.containers = ["postgres"]

[tool.cleanroom.hooks]
before_test = ["init"]
"""


def loaded(root: Path, text: str = PYPROJECT, *requested: str, **more: str) -> Plan:
    for name, content in {"pyproject.toml": text, **more}.items():
        (root / name.replace("_toml", ".toml")).write_text(content)
    return load(root, requested, caller={}, floor=NO_FLOOR)


def test_phases_settings_hooks_and_services_are_read(tmp_path: Path):
    """All that a make.toml says may stand below [tool.cleanroom]; the name is the project's."""
    plan = loaded(tmp_path, PYPROJECT, "test")
    assert plan.project == "shop"
    assert plan.file == str(tmp_path / "pyproject.toml")
    assert [phase.name for phase in plan.phases] == ["init", "test"]
    assert plan.policy.level.value == "Low"
    assert [service.version for service in plan.services] == ["15"]
    assert plan.phases[-1].variables == {"A": "1"}


def test_keys_of_other_tools_are_not_listed_as_ignored(tmp_path: Path):
    """They are none of ours; a key of ours without effect is listed with its own line."""
    assert not loaded(tmp_path).ignored
    text = PYPROJECT.replace('command = "true"', 'command = "true"\ncomand = "x"')
    (entry,) = loaded(tmp_path, text).ignored
    assert (entry.key, text.splitlines()[entry.line - 1]) == (
        "tool.cleanroom.lifecycle.init.comand",
        'comand = "x"',
    )


@pytest.mark.parametrize(
    ("wrong", "where", "message"),
    [
        (("Low", "Lo"), "pyproject.toml:12:10", "tool.cleanroom.policy: expected Low"),
        (('policy = "Low"', "polcy = 1"), "pyproject.toml:12:1", "tool.cleanroom.polcy"),
        (
            ('"pytest"', "7"),
            "pyproject.toml:24:11",
            "tool.cleanroom.lifecycle.test.command: expected a string",
        ),
        (('["postgres"]', '["postgrs"]'), "pyproject.toml:26:25", "containers[0]"),
    ],
)
def test_an_error_says_the_line_of_pyproject(
    tmp_path: Path, wrong: tuple[str, str], where: str, message: str
):
    """File, line, column and key are those of the pyproject.toml."""
    with pytest.raises(ProjectError) as caught:
        loaded(tmp_path, PYPROJECT.replace(*wrong))
    assert caught.value.where == where
    assert message in str(caught.value)


def test_make_toml_goes_before_it_and_a_note_says_so(tmp_path: Path):
    """With both files there is no mixture."""
    plan = loaded(tmp_path, PYPROJECT, make_toml="[lifecycle.other]\ncommand = 'true'\n")
    assert trace(plan) == ["other"]
    assert "make.toml goes before [tool.cleanroom] of pyproject.toml, which has no effect" in (
        plan.notes
    )
    assert not loaded(tmp_path, "[project]\nname = 'cleanroom'\n").notes


@pytest.mark.parametrize("text", ["", "[project]\nname = 'cleanroom-x'\n"])
def test_a_pyproject_without_the_table_is_no_project(tmp_path: Path, text: str):
    """The message is that of a missing make.toml."""
    with pytest.raises(ProjectError) as caught:
        loaded(tmp_path, text)
    assert (caught.value.code, caught.value.where) == ("CR-PROJECT-001", "make.toml")


def test_both_files_decide_what_runs(tmp_path: Path):
    """Neither comes back from a phase by itself: a new make.toml would go before the other."""
    assert loaded(tmp_path).files == (
        str(tmp_path / "make.toml"),
        str(tmp_path / "pyproject.toml"),
    )


def test_an_unknown_phase_is_looked_for_below_the_table(tmp_path: Path):
    """The hint names the table that has the phases."""
    with pytest.raises(UsageError) as caught:
        loaded(tmp_path, PYPROJECT, "zzz")
    assert "[tool.cleanroom.lifecycle]" in caught.value.hint
