"""A lock has one holder, however many ask, and none once its process has ended."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from cleanroom.locks import Busy, locked, taken


def test_two_threads_of_one_process_exclude_each_other(tmp_path: Path):
    """What one holds the other waits for, and gives up in its time."""
    path = tmp_path / "a.lock"
    refused: list[bool] = []

    def ask() -> None:
        try:
            with locked(path, seconds=0):
                refused.append(False)
        except Busy:
            refused.append(True)

    with locked(path, seconds=1):
        other = threading.Thread(target=ask)
        other.start()
        other.join()
    ask()

    assert refused == [True, False]


def test_a_killed_holder_holds_nothing(tmp_path: Path):
    """The kernel releases what its process held, without any clean-up of ours."""
    path = tmp_path / "a.lock"
    ready, held = os.pipe()
    pid = os.fork()
    if pid == 0:
        taken(path)
        os.write(held, b"x")
        signal.pause()
    os.read(ready, 1)
    assert taken(path) is None
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(ready)
    os.close(held)

    descriptor = taken(path)

    assert descriptor is not None
    os.close(descriptor)


def test_a_removed_file_is_no_lock_any_more(tmp_path: Path):
    """Whoever comes after the removal and whoever waited for the old file do not both hold it."""
    path = tmp_path / "a.lock"
    old = taken(path)
    path.unlink()
    new = taken(path)

    assert old is not None
    assert new is not None
    assert taken(path) is None
    os.close(old)
    assert taken(path) is None
    os.close(new)


def test_a_link_in_the_place_of_the_lock_is_refused(tmp_path: Path):
    """Nothing of anybody else is opened or made through it."""
    (tmp_path / "a.lock").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="symbolic"), locked(tmp_path / "a.lock", seconds=0):
        pass
    assert not (tmp_path / "elsewhere").exists()
