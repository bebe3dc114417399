"""Orders to copy up, and what is left where one of them fails."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cleanroom.sandbox.filesystem import copy_up, layer_stack
from cleanroom.sandbox.filesystem.layer_stack import LayerStack
from cleanroom.sandbox.seccomp_notify import copy_ups
from cleanroom.sandbox.seccomp_notify.copy_ups import CopyUps

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import CopyUp


def order(name: str) -> CopyUp:
    return {"op": "copy_up", "folders": [f"/p/{name}"], "names": []}


def waiting(*names: str, too_long: tuple[str, ...] = ()) -> tuple[CopyUps, list[str]]:
    """As `begin` leaves it for calls 0, 1 and so on; what was sent goes to the list."""
    sent: list[str] = []

    def send(told: CopyUp) -> None:
        name = os.path.basename(told["folders"][0])
        if name in too_long:
            raise OSError("no room for the message")
        sent.append(name)

    made = CopyUps([], send)
    made._waiting.extend((number, order(name)) for number, name in enumerate(names))
    return made, sent


def test_an_order_that_cannot_be_sent_holds_nobody_up():
    """Its call continues, and the next one's turn has come."""
    made, sent = waiting("a", "long", "longer", "b", "c", too_long=("long", "longer"))

    assert made.end() == [0, 1, 2]
    assert sent == ["b"]
    assert made.end() == [3]
    assert made.end() == [4]
    assert not made.busy


def test_a_pause_leaves_what_init_was_told():
    """The others continue, and no more begin."""
    made, sent = waiting("a", "b", "c")

    assert (made.pause(), made.busy) == ([1, 2], True)
    assert made.end() == [0]
    assert (made.pause(), made.busy, sent) == ([], False, [])


def test_names_are_measured_as_they_are_sent(tmp_path: Path):
    """A character takes up to twelve bytes in a message."""
    stack = LayerStack("/p", [str(tmp_path)])
    names = ["\N{GRINNING FACE}" * 1000 + str(number) for number in range(20)]

    assert copy_ups._joined(stack, [names]) == []
    assert copy_ups._joined(stack, [names[:2]]) == [[f"/p/{name}" for name in names[:2]]]


def test_a_folder_is_looked_through_once_for_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A rename that is tried again and again would hold the recorder each time."""
    (tmp_path / "upper").mkdir()
    (tmp_path / "lower/big").mkdir(parents=True)
    for number in range(5):
        (tmp_path / f"lower/big/{number}").touch()
    stack = LayerStack("/p", [str(tmp_path / "upper"), str(tmp_path / "lower")])
    looked: list[str] = []
    real = layer_stack._listed
    monkeypatch.setattr(
        layer_stack, "_listed", lambda path, at: (looked.append(path), real(path, at))[1]
    )
    try:
        assert [stack.linked_below("big") for _ in range(3)] == [[], [], []]
    finally:
        stack.close()
    assert looked == ["big"]


def test_what_cannot_be_given_back_is_left_over_and_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A full file system may refuse the way back too."""
    (tmp_path / "a/empty").mkdir(parents=True)
    for number in range(3):
        (tmp_path / f"a/{number}").write_text(str(number))
    real, moved = os.rename, []

    def rename(old: str, new: str, **at: int) -> None:
        if old.isdigit():
            moved.append(old)
            if len(moved) > 2:
                raise OSError(28, "No space left on device")
        real(old, new, **at)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError, match="No space left"):
        copy_up.own_folder(str(tmp_path / "a"))

    texts = sorted(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert texts == ["0", "1", "2"]


def test_nothing_is_left_over_where_a_file_was_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The new one counts."""
    (tmp_path / "a").mkdir()
    for number in range(3):
        (tmp_path / f"a/{number}").write_text("old")
    real = os.rename

    def rename(old: str, new: str, **at: int) -> None:
        if old == "2" and (tmp_path / "a/2").exists():
            (tmp_path / "a/0").write_text("new")
            raise OSError(28, "No space left on device")
        real(old, new, **at)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError, match="No space left"):
        copy_up.own_folder(str(tmp_path / "a"))

    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a/0").read_text() == "new"
    assert (tmp_path / "a/1").read_text() == "old"
