"""The real command at a terminal: a pseudo-terminal that a test types into and reads."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from support.command_harness import Project

SECONDS = 30.0


class TerminalCommand:
    """A command whose three streams are a terminal of 30 rows and 100 columns."""

    def __init__(self, project: Project, *words: str, before: str = "") -> None:
        self.ours, self.theirs = os.openpty()
        self._open = [self.ours, self.theirs]
        self.resize(30, 100)
        self.seen = ""
        project.caller |= {"TERM": "xterm-256color"}
        self.process = project.started(
            *words,
            before=before,
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def modes(self) -> list[Any]:
        return termios.tcgetattr(self.theirs)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def wait(self, text: str) -> str:
        """Wait until this is shown; returns all that was shown before it since the last wait."""
        until = time.monotonic() + SECONDS
        while text not in self.seen:
            left = until - time.monotonic()
            assert left > 0, f"expected {text!r}, found {self.seen!r}"
            if select.select([self.ours], [], [], min(left, 0.2))[0]:
                self.seen += os.read(self.ours, 65536).decode(errors="replace")
            elif self.process.poll() is not None:
                raise AssertionError(f"ended without {text!r}: {self.seen!r}")
        before, _, self.seen = self.seen.partition(text)
        return before

    def run(self, line: str, end: str = "$ ") -> str:
        """Type a line at a prompt; what was shown until the next one."""
        self.type(f"{line}\r")
        self.wait(line)
        return self.wait(end)

    def ended(self) -> int:
        """Read until the end; the exit status."""
        until = time.monotonic() + SECONDS
        while self.process.poll() is None or select.select([self.ours], [], [], 0)[0]:
            assert time.monotonic() < until, f"does not end: {self.seen!r}"
            if select.select([self.ours], [], [], 0.05)[0]:
                self.seen += os.read(self.ours, 65536).decode(errors="replace")
        return self.process.wait()

    def hang_up(self) -> None:
        """The terminal is gone, as when its window is closed."""
        while self._open:
            os.close(self._open.pop())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.hang_up()


@contextmanager
def at_terminal(project: Project, *words: str, before: str = "") -> Iterator[TerminalCommand]:
    """Start the command at a terminal, and end it if the test does not.

    `before`: Python that it runs first.
    """
    command = TerminalCommand(project, *words, before=before)
    try:
        yield command
    finally:
        command.close()


def without_terminal(project: Project, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end with a script at its standard input."""
    return subprocess.run(
        project.argv(*words),
        cwd=project.root,
        env=project.variables(),
        input="echo hello\n",
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
