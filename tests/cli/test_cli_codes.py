"""The table of codes against the source."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import cleanroom
from cleanroom.cli.app import COMMANDS
from cleanroom.code_examples import EXAMPLES
from cleanroom.codes import CODES, RULE_CODES
from cleanroom.policy import CONTROLS
from cleanroom.project import load

SOURCE = Path(cleanroom.__file__).parent
CODE = re.compile(r"CR-[A-Z]+-\d{3}")
LITERAL = re.compile(rf"[\"']({CODE.pattern})[\"']")


def written() -> set[str]:
    """Every code in the source but for the table itself."""
    return {
        code
        for path in SOURCE.rglob("*.py")
        if path.name not in ("codes.py", "code_texts.py", "code_texts_containers.py", "code_examples.py")
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
    """Every code is well formed, has a title on one line, and an explanation of more than a sentence's length."""
    assert CODE.fullmatch(code)
    assert CODES[code].title
    assert "\n" not in CODES[code].title
    assert len(CODES[code].explanation) >= 80


@pytest.mark.parametrize("code", CODES)
def test_codes_examples_can_be_used(code: str, tmp_path: Path) -> None:
    """What to write into make.toml makes a plan (or is refused for what this machine lacks); what to type names a command that exists."""
    example = CODES[code].example
    if not example.startswith("$ "):
        (tmp_path / "make.toml").write_text(example + "\n")
        assert load(tmp_path, caller={}, floor=tmp_path / "none").workspaces
        return
    for line in example.splitlines():
        assert line.startswith("$ ")
        assert set(re.findall(r"cleanroom-engine (\w+)", line)) <= set(COMMANDS)


def test_codes_no_example_is_left_of_a_code_that_is_gone() -> None:
    """Each example is one of a code."""
    assert sorted(set(EXAMPLES) - set(CODES)) == []


def test_codes_every_rule_has_a_code() -> None:
    """Each control of the policy has a code of its own, and no code is for a rule that does not exist."""
    assert set(RULE_CODES) == {control.rule for control in CONTROLS}
    assert len(set(RULE_CODES.values())) == len(RULE_CODES)


TESTS = Path(__file__).parents[1]
BY_HAND = re.compile(r"(?:Error|Refused|Failed|Unavailable)\(\s*[\"']CR-")


def said_by_tests() -> set[str]:
    """Codes that a test expects of the product. An error that a test makes by hand shows nothing."""
    found = set()
    for path in TESTS.rglob("*.py"):
        if path != Path(__file__):
            lines = [line for line in path.read_text().splitlines() if not BY_HAND.search(line)]
            found.update(CODE.findall("\n".join(lines)))
    return found


def test_codes_every_code_is_made_to_happen_by_a_test() -> None:
    """A code of an error that never happened could be of one that cannot happen, or that lies."""
    of_rules = set(RULE_CODES.values())  # happen with their rule, in the tests of attacks
    missing = set(CODES) - said_by_tests() - of_rules
    assert sorted(missing) == []
