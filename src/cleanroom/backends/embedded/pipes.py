"""The output pipes of a command, read on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable

# /proc/sys/fs/pipe-max-size: the largest that an unprivileged process may set.
# A build that floods its output wakes the engine less often.
PIPE_BYTES = 1 << 20
CHUNK_BYTES = 256 * 1024


class OutputPipe:
    """One output stream of a command.

    The command gets `write_end`; what it writes is passed to `on_chunk`.
    `ended` is set when the last holder of the write end has closed it.
    """

    def __init__(self, on_chunk: Callable[[bytes], None]) -> None:
        self._read_end, self.write_end = os.pipe2(os.O_CLOEXEC)
        self._write_end_open = True
        self._on_chunk = on_chunk
        self.ended = asyncio.Event()
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._read_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        os.set_blocking(self._read_end, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._read_end, self._read)

    def close_write_end(self) -> None:
        """Close our copy of the write end, once the command has its own."""
        if self._write_end_open:
            self._write_end_open = False
            os.close(self.write_end)

    def _read(self) -> None:
        try:
            chunk = os.read(self._read_end, CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if chunk:
            self._on_chunk(chunk)
        else:
            self._stop()

    def _stop(self) -> None:
        if not self.ended.is_set():
            self._loop.remove_reader(self._read_end)
            os.close(self._read_end)
            self.ended.set()

    def close(self) -> None:
        """Stop reading.

        A process that outlived the command gets SIGPIPE or EPIPE for what it writes from now on.
        """
        self.close_write_end()
        self._stop()
