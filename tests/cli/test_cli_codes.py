"""The table of codes against the source."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import cleanroom
from cleanroom.cli.app import COMMANDS
from cleanroom.model import codes
from cleanroom.model.codes.record import Code
from cleanroom.model.codes.table import AREAS, CODES
from cleanroom.model.policy import CONTROLS
from cleanroom.model.rule_codes import RULE_CODES, TOLD_ONLY
from cleanroom.project import load
from support.paths import TESTS

SOURCE = Path(cleanroom.__file__).parent
TABLE = Path(codes.__file__).parent
CODE = re.compile(r"CR-[A-Z]+-\d{3}")
LITERAL = re.compile(rf"[\"']({CODE.pattern})[\"']")


def written() -> set[str]:
    """Every code in the source but for the table itself."""
    return {
        code
        for path in SOURCE.rglob("*.py")
        if path.parent != TABLE
        for code in LITERAL.findall(path.read_text())
    }


def test_codes_every_code_in_the_source_is_explained() -> None:
    """No error is raised under a code that `explain` does not know."""
    assert sorted(written() - set(CODES)) == []


def test_codes_every_explained_code_is_in_use() -> None:
    """No code is explained that nothing raises and no rule has."""
    assert sorted(set(CODES) - written() - set(RULE_CODES.values())) == []


@pytest.mark.parametrize("code", CODES)
def test_codes_explanations_are_worth_reading(code: str) -> None:
    """Every code is well formed, has a title on one line, and an explanation of more than a
    sentence's length.
    """
    assert CODE.fullmatch(code)
    assert CODES[code].title
    assert "\n" not in CODES[code].title
    assert len(CODES[code].paragraph) >= 80


@pytest.mark.parametrize("code", CODES)
def test_codes_examples_can_be_used(code: str, tmp_path: Path) -> None:
    """What to write into make.toml makes a plan (or is refused for what this machine lacks);
    what to type names a command that exists.
    """
    lines = CODES[code].example_lines
    if not CODES[code].is_command:
        (tmp_path / "make.toml").write_text("\n".join(lines) + "\n")
        assert load(tmp_path, caller={}, floor=tmp_path / "none").workspaces
        return
    for line in lines:
        assert line.startswith("$ ")
        assert set(re.findall(r"cleanroom-engine (\w+)", line)) <= set(COMMANDS)


def test_codes_every_code_has_an_example() -> None:
    """Nobody reads "example" above nothing."""
    assert [code for code, record in CODES.items() if not record.example_lines] == []


def test_codes_every_code_is_in_the_module_of_its_area() -> None:
    """Whoever knows the code knows the file; there the codes stand in order, and each once."""
    for area in AREAS:
        name = area.__name__.rpartition(".")[2].upper()
        found = [record.code for record in area.CODES]
        assert {code.split("-")[1] for code in found} == {name}
        assert found == sorted(set(found))
        assert (area.__doc__ or "").startswith(f"CR-{name}: ")


def test_codes_every_module_of_an_area_is_in_the_table() -> None:
    """A new area's codes are not forgotten."""
    others = {"__init__", "record", "rules", "table"}
    files = {path.stem for path in TABLE.glob("*.py")} - others
    assert files == {area.__name__.rpartition(".")[2] for area in AREAS}


@pytest.mark.parametrize("code", CODES)
def test_codes_an_example_has_no_gaps(code: str) -> None:
    """A line that goes on in the next one, and stands in a string that is not raw,
    would have one.
    """
    assert not any("   " in line for line in CODES[code].example_lines)


def test_codes_a_line_of_an_example_goes_on_after_a_backslash() -> None:
    """As in TOML: the line's end and what the next one begins with are no part of it."""
    record = Code(
        "CR-X-001",
        "title",
        "text",
        r"""
        [lifecycle.test]
        cleanroom.expected = [{ target = "a", \
            reason = "b" }]
    """,
    )
    assert record.example_lines == [
        "[lifecycle.test]",
        'cleanroom.expected = [{ target = "a", reason = "b" }]',
    ]


def test_codes_a_run_imports_no_text_of_a_code() -> None:
    """What a run prints needs the codes of rules, and none of the prose."""
    program = (
        "import sys, cleanroom.cli.commands.run, cleanroom.cli.session, "
        "cleanroom.cli.views.live, cleanroom.cli.views.summary; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = {
        name.rpartition(".")[2]
        for name in done.stdout.split()
        if name.startswith("cleanroom.model.codes.")
    }
    assert loaded == set()


def test_codes_every_rule_has_a_code() -> None:
    """Each control of the policy has a code of its own, and no code is for a rule that does not
    exist.
    """
    assert set(RULE_CODES) - TOLD_ONLY == {control.rule for control in CONTROLS}
    assert len(set(RULE_CODES.values())) == len(RULE_CODES)


BY_HAND = re.compile(r"(?:Error|Refused|Failed|Unavailable)\(\s*[\"']CR-")


def said_by_tests() -> set[str]:
    """Codes that a test expects of the product.

    An error that a test makes by hand shows nothing.
    """
    found = set()
    for path in TESTS.rglob("*.py"):
        if path != Path(__file__):
            lines = [line for line in path.read_text().splitlines() if not BY_HAND.search(line)]
            found.update(CODE.findall("\n".join(lines)))
    return found


def test_codes_every_code_is_made_to_happen_by_a_test() -> None:
    """A code of an error that never happened could be of one that cannot happen, or that lies."""
    # happen with their rule, in the tests of attacks
    of_rules = {code for rule, code in RULE_CODES.items() if rule not in TOLD_ONLY}
    missing = set(CODES) - said_by_tests() - of_rules
    assert sorted(missing) == []
