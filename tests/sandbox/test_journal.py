"""Claims about the journal of what was made."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cleanroom.sandbox.journal import Journal, Resource, alive, process_name, read
from support.open_folders import open_folder


def test_what_was_made_and_not_seen_gone_is_left_newest_first(tmp_path: Path):
    """A reader after a crash learns what to remove, in the order of removal."""
    journal = Journal.at(open_folder(tmp_path))
    journal.open("run-1")
    first, second, third = (journal.make("folder", name) for name in "abc")
    journal.gone(second)

    record = read(open_folder(tmp_path))

    assert record.left == (third, first)
    assert (record.run_id, record.made, record.closed) == ("run-1", 3, False)


def test_a_torn_last_line_is_ignored(tmp_path: Path):
    """A crash in the middle of a write leaves half a line: what it announced was not made yet."""
    journal = Journal.at(open_folder(tmp_path))
    journal.open("run-1")
    thing = journal.make("folder", "a")
    with open(tmp_path / "journal.jsonl", "ab") as file:
        file.write(b'{"op":"make","kind":"fol')

    assert read(open_folder(tmp_path)).left == (thing,)


def test_the_owner_is_known_by_pid_and_start_time(tmp_path: Path):
    """Our own journal's owner lives; the same pid with another start does not."""
    Journal.at(open_folder(tmp_path)).open("run-1")
    own = process_name(os.getpid())

    assert read(open_folder(tmp_path)).owner_lives
    assert not alive(f"{os.getpid()}:{int(own.split(':')[1]) + 1}")
    assert not alive("4194303:5")


@given(lines=st.lists(st.binary(max_size=40), max_size=10))
def test_no_bytes_break_the_reader(tmp_path_factory, lines):
    """A journal full of rubbish is read as an empty one."""
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    path.write_bytes(b"\n".join(lines))

    assert isinstance(read(open_folder(path.parent), path.name).left, tuple)


@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=30))
def test_left_is_made_without_gone(tmp_path_factory, steps):
    """For any sequence, what is left is what was made after it was last seen gone."""
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    journal = Journal.at(open_folder(path.parent), path.name)
    expected: dict[Resource, None] = {}
    for make, number in steps:
        thing = Resource("folder", str(number))
        if make:
            journal.make(*thing)
            expected[thing] = None
        else:
            journal.gone(thing)
            expected.pop(thing, None)

    assert set(read(open_folder(path.parent), path.name).left) == set(expected)
