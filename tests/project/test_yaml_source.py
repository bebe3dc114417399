"""YAML read as text with places."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.model.errors import ProjectError
from cleanroom.project.yaml_source import parse_yaml

TEXT = """\
x-common: &common
  restart: on
  ports: [22:22, 1_000]
services:
  db:
    <<: *common
    restart: no
    environment:
      A:
      B: "null"
"""


def test_every_scalar_is_its_text():
    """No number, date or boolean is made of it, and merge keys are resolved."""
    assert parse_yaml(TEXT.encode(), "c.yaml").table["services"]["db"] == {
        "restart": "no",
        "environment": {"A": "", "B": "null"},
        "ports": ["22:22", "1_000"],
    }


def test_a_key_has_its_line_and_column():
    """Errors of readers name the place in the YAML file, for merged values where they stand."""
    database = parse_yaml(TEXT.encode(), "c.yaml").node.child("services").child("db")
    assert database.child("restart").error("X", "no", at_key=True).where == "c.yaml:7:5"
    assert database.child("environment").child("B").error("X", "no").where == "c.yaml:10:10"
    assert database.child("ports").child(1).error("X", "no").where == "c.yaml:3:18"


BOMB = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 8)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


# What is wrong -> the text, the place (None: anywhere) and the code.
REFUSED = {
    "an open list": ("a: [", "c.yaml:1:5", "CR-PROJECT-003"),
    "indentation": ("a: 1\n b: 2\n", "c.yaml:2:3", "CR-PROJECT-003"),
    "a list": ("- a\n", "c.yaml:1:1", "CR-PROJECT-003"),
    "nothing": ("", "c.yaml:1:1", "CR-PROJECT-003"),
    "an unknown alias": ("a: *b", "c.yaml:1:4", "CR-PROJECT-003"),
    "a control character": ("a: \x07", "c.yaml:1:1", "CR-PROJECT-003"),
    "an alias of itself": ("a: &a [*a]", "c.yaml:1:4", "CR-PROJECT-004"),
    "merged with itself": ("a: &a\n  <<: *a\n", "c.yaml:1:4", "CR-PROJECT-004"),
    "deep": ("a: " + "[" * 200 + "]" * 200, "c.yaml:1:104", "CR-PROJECT-004"),
    "deeper than the stack": ("a: " + "[" * 9000 + "]" * 9000, "c.yaml:1:1", "CR-PROJECT-004"),
    "aliases of aliases": (BOMB, None, "CR-PROJECT-004"),
}


@pytest.mark.parametrize("wrong", REFUSED)
def test_what_is_no_yaml_or_too_much_is_refused_with_its_place(wrong: str):
    """Malformed, endless and exploding files end with an error of ours, and soon."""
    text, where, code = REFUSED[wrong]
    with pytest.raises(ProjectError) as caught:
        parse_yaml(text.encode(), "c.yaml")
    assert caught.value.code == code
    assert where in (None, caught.value.where)


def test_no_tag_makes_an_object():
    """A tag that would be a Python object is text as any other."""
    text = "a: !!python/object/apply:os.system [id]\nb: !!timestamp 2001-01-01\n"
    assert parse_yaml(text.encode(), "c.yaml").table == {"a": ["id"], "b": "2001-01-01"}


@given(st.text(alphabet="ab:-[]{}&*<!\"'|>#\n \t,?%", max_size=60))
def test_any_text_is_read_or_refused(text: str):
    """Nothing else comes of it."""
    with contextlib.suppress(ProjectError):
        parse_yaml(text.encode(), "c.yaml")
