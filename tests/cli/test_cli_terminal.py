"""What a shell leaves of itself in the caller's terminal."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from cleanroom.cli.terminal import RESET

STATE = "#{insert_flag} #{mouse_utf8_flag} #{mouse_any_flag} #{cursor_flag} #{wrap_flag}"


def test_the_terminal_is_reset_after_a_sequence_that_was_begun():
    """CAN ends any of them (ECMA-48); a terminal in a DCS takes all that follows for its text."""
    assert RESET.startswith(b"\x18\x1b\\")


@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs a terminal: tmux is not installed")
@pytest.mark.parametrize("left", [b"\x1b[4h", b"\x1bPq", b"\x1b_x", b"\x1b[?1005h", b"\x1b[3;4"])
def test_a_terminal_shows_what_comes_after_a_hostile_shell(left: bytes, tmp_path: Path):
    (tmp_path / "bytes").write_bytes(left + RESET + b"VISIBLE")
    socket = str(tmp_path / "socket")

    def tmux(*words: str) -> str:
        command = ["tmux", "-f", os.devnull, "-S", socket, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    copy = f"cat {tmp_path / 'bytes'}; exec sleep 60"
    tmux("new-session", "-d", "-x", "80", "-y", "24", copy)
    try:
        until = time.monotonic() + 5
        while "VISIBLE" not in tmux("capture-pane", "-p") and time.monotonic() < until:
            time.sleep(0.05)
        assert "VISIBLE" in tmux("capture-pane", "-p")
        assert tmux("display-message", "-p", STATE).split() == ["0", "0", "0", "1", "1"]
    finally:
        tmux("kill-server")
