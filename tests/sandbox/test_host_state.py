"""What of a project counts as known: by times of change alone, on clocks that people set."""

from __future__ import annotations

import os
import time
from pathlib import Path

from cleanroom.sandbox.filesystem.host_state import HostState, beginning

SECOND = 1_000_000_000


def test_a_clock_that_was_set_back_moves_the_beginning_back() -> None:
    """Ten seconds went by and the wall clock lost an hour:
    what is changed now is dated before the run.
    """
    assert beginning(7200 * SECOND, -3590 * SECOND, 10 * SECOND) == 3600 * SECOND


def test_a_clock_that_is_kept_right_or_set_forward_moves_nothing() -> None:
    """Some milliseconds are no change, and a clock ahead dates what comes later."""
    assert beginning(SECOND, 9_990_000_000, 10 * SECOND) == SECOND
    assert beginning(SECOND, 90 * SECOND, 10 * SECOND) == SECOND


def test_what_we_left_is_known_until_somebody_changes_it(tmp_path: Path) -> None:
    """By inode: under another name it is the same; after a chmod it is not."""
    host = HostState(0)
    (tmp_path / "file").write_text("x")
    assert not host.is_unmodified(os.stat(tmp_path / "file"))
    host.record(os.stat(tmp_path / "file"))
    assert host.is_unmodified(os.stat(tmp_path / "file"))
    (tmp_path / "file").chmod(0o600)
    assert not host.is_unmodified(os.stat(tmp_path / "file"))


def test_a_folder_with_new_entries_is_the_same_and_a_renamed_one_is_not(tmp_path: Path) -> None:
    """Nor is one that was chmod'ed; and what is added later does not make it the same again."""
    (tmp_path / "folder").mkdir()
    host = HostState(time.time_ns() - 3600 * SECOND)
    (tmp_path / "folder/file").write_text("x")
    assert not host.is_replaced(os.stat(tmp_path / "folder"))
    (tmp_path / "folder").rename(tmp_path / "other")
    assert host.is_replaced(os.stat(tmp_path / "other"))
    (tmp_path / "other/file").unlink()
    assert host.is_replaced(os.stat(tmp_path / "other"))


def test_what_a_phase_on_the_host_changed_is_ours_and_what_came_before_is_not(
    tmp_path: Path,
) -> None:
    """By the moments at which it began and ended."""
    (tmp_path / "file").write_text("x")
    changed_ns = os.stat(tmp_path / "file").st_ctime_ns
    before, during = HostState(0), HostState(0)
    before.add_own_interval(changed_ns + SECOND, changed_ns + 2 * SECOND)
    during.add_own_interval(changed_ns, changed_ns + SECOND)
    assert not before.is_unmodified(os.stat(tmp_path / "file"))
    assert during.is_unmodified(os.stat(tmp_path / "file"))
