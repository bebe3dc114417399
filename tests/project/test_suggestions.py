"""What was probably meant: keys without `cleanroom.`, typing errors, keys that stand twice."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from cleanroom.model.errors import ProjectError
from cleanroom.project import load
from cleanroom.project.repeated_keys import repeated_key
from cleanroom.project.source import parse_source

TEST = '[lifecycle.test]\ncommand = "true"\n'
MEANT = {
    "policy": (TEST + 'policy = "High"\n', "did you mean 'cleanroom.policy'?"),
    "misspelt setting": (TEST + 'polcy = "High"\n', "did you mean 'cleanroom.policy'?"),
    "table of limits": (
        TEST + "[lifecycle.test.limits]\nmemory = 1\n",
        "did you mean 'cleanroom.limits'?",
    ),
    "misspelt key": (TEST + 'comand = "x"\n', "did you mean 'command'?"),
    "misspelt cleanroom": (TEST + 'cleanrom.policy = "Low"\n', "did you mean 'cleanroom'?"),
    "misspelt table": (TEST + "[lifecyle.build]\n", "did you mean 'lifecycle'?"),
    "services of the project": (TEST + "[services.db]\n", "did you mean 'cleanroom.services'?"),
    "misspelt phase of a hook": (
        TEST + "[hooks]\nbefore_tset = ['test']\n",
        "there is no phase 'tset'; did you mean 'test'?",
    ),
    "hook of npm": (TEST + "[hooks]\npre_test = ['x']\n", "did you mean 'before_test'?"),
    "setting of a task": (
        '[tasks.test]\ncommand = "true"\npolicy = "High"\n',
        "did you mean 'cleanroom.policy'?",
    ),
    "table of another tool": (TEST + "[ai]\nmodel = 'x'\n", ""),
    "key of another tool": (TEST + "retries = 3\n", ""),
}
TWICE = {
    "table": (TEST + TEST, "lifecycle.test", "1:1", "3:1"),
    "key": (TEST + 'command = "y"\n', "lifecycle.test.command", "2:1", "3:1"),
    "key and table": (
        TEST + 'cleanroom.policy = "Low"\n[lifecycle.test.cleanroom]\n',
        "lifecycle.test.cleanroom",
        "3:1",
        "4:1",
    ),
    "table in a line": (
        TEST + "cleanroom = { seed = 1 }\n[lifecycle.test.cleanroom.limits]\n",
        "lifecycle.test.cleanroom",
        "3:1",
        "4:1",
    ),
    "in a line": ("a = { b = 1, b = 2 }\n", "a.b", "1:7", "1:14"),
    "dotted into a table": ("[a.b]\nx = 1\n[a]\nb.c = 2\n", "a.b", "1:1", "4:1"),
}


@pytest.mark.parametrize(("text", "reason"), MEANT.values(), ids=MEANT)
def test_ignored_key_says_what_was_meant(tmp_path: Path, text: str, reason: str) -> None:
    """A key without effect is listed with the one that was probably meant, if any."""
    (tmp_path / "make.toml").write_text(text)
    (entry,) = load(tmp_path, caller={}).ignored
    assert entry.reason == reason


@pytest.mark.parametrize(("text", "key", "first", "second"), TWICE.values(), ids=TWICE)
def test_key_that_stands_twice_is_named_with_both_places(
    text: str, key: str, first: str, second: str
) -> None:
    """The error stands at the second place and names the first."""
    with pytest.raises(ProjectError) as caught:
        parse_source(text.encode(), "make.toml")
    assert caught.value.code == "CR-PROJECT-003"
    assert caught.value.where == f"make.toml:{second}"
    assert f"{key}: expected this key once" in str(caught.value)
    assert str(caught.value).endswith(f"first at make.toml:{first}")


VALID = (
    "[a]\nx = 1\n[b]\nx = 1\n[a.c]\n[[l]]\nx = 1\n[[l]]\nx = 1\n[l.t]\n",
    "[a.b]\n[a]\nc.d = 1\nc.e = 2\n",
    "x = [{ a = 1 }, { a = 2 }]\n",
    '"a" = 1\nb = """\na = 1\n"""\n',
)


@pytest.mark.parametrize("text", VALID)
def test_nothing_stands_twice_in_what_is_toml(text: str) -> None:
    """Elements of lists, tables that are extended, and text in strings repeat nothing."""
    parse_source(text.encode(), "make.toml")
    assert repeated_key(text) is None


@given(some.text(some.sampled_from("ab.=[]{}\"'\n ,1#"), max_size=60))
def test_any_text_ends_in_a_project_error_at_worst(text: str) -> None:
    """Whatever stands in the file, the search for the other place raises nothing itself."""
    with suppress(ProjectError):
        parse_source(text.encode(), "make.toml")
