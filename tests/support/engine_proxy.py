"""A socket in front of a container engine's: slow, watched, or gone from one moment to the next."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cleanroom.backends.containers.client import VARIABLES, EngineName, find_socket


class EngineProxy:
    """Made by `proxied`."""

    def __init__(
        self,
        engine: EngineName,
        real: str,
        path: str,
        delay_seconds: float,
        watch: Callable[[bytes], None],
    ) -> None:
        # what leads the command under test here
        self.caller = {VARIABLES[engine]: f"unix://{path}"}
        self._real, self._path, self._delay, self._watch = real, path, delay_seconds, watch
        self._ends: list[socket.socket] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(path)
        self._listening.listen(64)
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self) -> None:
        """Gone, with all its connections. Safe to call twice."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        for end in (self._listening, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                theirs, _ = self._listening.accept()
                ours = socket.socket(socket.AF_UNIX)
                ours.connect(self._real)
                self._ends += (theirs, ours)
                threading.Thread(target=self._pump, args=(theirs, ours, True), daemon=True).start()
                threading.Thread(target=self._pump, args=(ours, theirs, False), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, asking: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if asking:
                    time.sleep(self._delay)  # what makes it slow
                    self._watch(data)
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextmanager
def proxied(
    engine: EngineName,
    folder: Path,
    *,
    delay_seconds: float = 0.0,
    watch: Callable[[bytes], None] = lambda data: None,
    caller: Mapping[str, str] = os.environ,
) -> Iterator[EngineProxy]:
    """In front of the engine that `caller` has.

    `watch` sees what is asked before the engine does.
    """
    made = EngineProxy(
        engine, find_socket(engine, caller), str(folder / "between.sock"), delay_seconds, watch
    )
    try:
        yield made
    finally:
        made.cut()
