"""The engine's end of the channels to keeper and wardens, and of commands' output pipes,
on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable

# the most an ordinary user may ask for: fewer wake-ups while a build floods its output
PIPE_BYTES = 1 << 20
PIECE = 256 * 1024


class Pipe:
    """One output stream of a command: `far` goes to the command,
    what it writes comes to `on_piece`, `ended` is set when nobody holds it any more.
    """

    def __init__(self, on_piece: Callable[[bytes], None]) -> None:
        self._near, self.far = os.pipe2(os.O_CLOEXEC)
        self._far_open = True
        self._on_piece = on_piece
        self.ended = asyncio.Event()
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._near, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        os.set_blocking(self._near, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._near, self._read)

    def handed_over(self) -> None:
        """The command has its own copy now."""
        if self._far_open:
            self._far_open = False
            os.close(self.far)

    def _read(self) -> None:
        try:
            piece = os.read(self._near, PIECE)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if piece:
            self._on_piece(piece)
        else:
            self._stop()

    def _stop(self) -> None:
        if not self.ended.is_set():
            self._loop.remove_reader(self._near)
            os.close(self._near)
            self.ended.set()

    def close(self) -> None:
        """Stop reading; what a process that outlived the command still writes is lost to it."""
        self.handed_over()
        self._stop()
