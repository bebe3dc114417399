"""Any bytes at all: an error of ours or a plan, and nothing written."""

from __future__ import annotations

import os
import tempfile
import tomllib
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cleanroom.model.errors import CleanroomError
from cleanroom.project import load
from cleanroom.project.positions import Positions
from cleanroom.project.source import dotted
from support.project_builder import CORPUS, NO_FLOOR, written

PIECES = [
    *(
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        ",",
        ".",
        '"',
        "'",
        '"""',
        "'''",
        "\n",
        " ",
        "#",
        "\\",
        "\\u0000",
        "\x00",
        "\x1b[2J",
        "é",
        "🚀",
        "\ufeff",
    ),
    *(
        "lifecycle",
        "phases",
        "tasks",
        "hooks",
        "env",
        "workspace",
        "cleanroom",
        "test",
        "build",
        "command",
        "commands",
        "before_test",
        "depends_on",
    ),
    *(
        "members",
        "path",
        "policy",
        "limits",
        "memory",
        "containers",
        "services",
        "ready",
        "egress",
        "outputs",
        "script",
        "args",
        "cwd",
        "prod",
    ),
    *(
        "1",
        "-1",
        "1.5",
        "inf",
        "nan",
        "true",
        "1979-05-27",
        "07:32:00",
        '"x"',
        '"../.."',
        '"Low"',
        "[]",
        "{}",
        '["test"]',
        '["build"]',
        '"2m"',
    ),
]
toml_like = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)
lines = st.lists(
    st.tuples(
        st.sampled_from(PIECES[23:49]), st.sampled_from(PIECES[23:49]), st.sampled_from(PIECES[49:])
    ).map(lambda p: f"{p[0]}.{p[1]}.cleanroom.{p[0]} = {p[2]}"),
    max_size=6,
).map("\n".join)
valid_lines = st.lists(
    st.tuples(
        st.sampled_from(PIECES[23:49]), st.sampled_from(PIECES[23:49]), st.sampled_from(PIECES[49:])
    ).map(lambda p: f"[{p[0]}.{p[1]}]\n{p[1]} = {p[2]}"),
    max_size=6,
).map("\n".join)


def only_ours(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = written(Path(name), data)
        refused: CleanroomError | None = None
        try:
            load(root, caller={"HOME": name, "GGEN_ENV": "prod"}, floor=NO_FLOOR)
        except CleanroomError as error:
            refused = error
        assert refused is None or (
            refused.exit in (2, 3) and refused.where.startswith("make.toml:")
        )
        assert os.listdir(root) == ["make.toml"]


@given(data=st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_any_bytes_end_in_a_plan_or_an_error_of_ours(data: bytes):
    """No bytes make another exception, and nothing is written."""
    only_ours(data)


@given(text=st.one_of(toml_like, lines, valid_lines))
@settings(max_examples=250, deadline=None)
def test_any_text_like_toml_ends_in_a_plan_or_an_error_of_ours(text: str):
    """No text out of the words that mean something makes another exception."""
    only_ours(text.encode())


def leaves(value: object, path: tuple[str | int, ...] = ()):
    if isinstance(value, dict):
        for key, child in value.items():
            yield (*path, key)
            yield from leaves(child, (*path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield (*path, index)
            yield from leaves(child, (*path, index))


def test_every_key_of_real_files_has_its_own_position():
    """For each key of each readable corpus file the line at its position holds the key."""
    for file in CORPUS.glob("*make.toml"):
        text = file.read_text()
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            continue
        positions, shown = Positions(text), text.split("\n")
        for path in leaves(table):
            line, column = positions.key(path)
            if isinstance(path[-1], str):
                assert path[-1] in shown[line - 1][column - 1 :], (file.name, dotted(path))


def test_strings_with_odd_ends_do_not_mislead_positions():
    """Quotes at the ends of long strings, dates with a space and dotted keys leave later positions
    right.
    """
    text = (
        'a = """x\n""""\nb = \'\'\'y\'\'\'\'\'\nc = 1979-05-27 07:32:00\n"d.e" . f = [1, # ]\n'
        ' "]", {g = 2}]\n[[t]]\n[[t]]\nh = 1\n[t.u]\ni = 1\n'
    )
    tomllib.loads(text)
    positions = Positions(text)
    assert positions.key(("b",)) == (3, 1)
    assert positions.value(("c",)) == (4, 5)
    assert positions.key(("d.e", "f", 2, "g")) == (6, 8)
    assert positions.key(("t", 1, "h")) == (9, 1)
    assert positions.key(("t", 1, "u", "i")) == (11, 1)
