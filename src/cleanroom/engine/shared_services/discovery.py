"""How runs find the server of shared services, or start it: one folder a server, with a socket.

Blocks; call it in a worker thread.

    CACHE/runs/KIND-KEY-RANDOM/   mode 0700; the server's keeper removes it
        holder.json               a `ServerConfig`
        owner                     the server's process, by pid and start time, for `sweep`
        socket
        log                       output of the server's interpreter, normally empty

The first run makes the listening socket and hands it to the process that it starts,
so that other runs can connect before that process is ready.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import msgspec

from cleanroom.core import host_programs
from cleanroom.core.beneath import Folder, unix_address
from cleanroom.core.locks import locked
from cleanroom.core.private_cache import open_cache
from cleanroom.model.errors import ServiceFailed
from cleanroom.model.policy import Policy
from cleanroom.sandbox import channel, journal
from cleanroom.sandbox.filesystem import tree_removal
from cleanroom.sandbox.network import peers

Kind = Literal["session", "pool", "up"]
# Kinds of services whose state can be made anew for each run;
# of any other server only its own project knows.
POOLABLE_KINDS = ("postgres", "redis")

LOCK_SECONDS = 20.0  # held for milliseconds
BACKLOG = 128  # runs that connect while the server starts
CONFIG_FILE, SOCKET_NAME, OWNER_FILE, LOCK_NAME = "holder.json", "socket", "owner", "holders.lock"
ENDED_FILE = "ended"  # in the evidence of a server that was told to end


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a server is for, and what it needs to know of whoever starts it."""

    kind: Kind
    key: str  # the same for all runs that are to find it
    project: str
    root: str
    runs: str  # the folder in which it has its own
    templates: str
    backend: str = "embedded"
    # variables of the environment of whoever starts it that name a container engine
    caller: dict[str, str] = {}
    policy: Policy
    seed: int
    owner: str = ""  # process with which it ends, as `journal.process_name` writes it; "": none
    # it ends with its owner also when it is told to stay
    foreground: bool = False
    idle_seconds: float = 0.0  # it ends when no run has used it for so long; 0: never

    @property
    def leases(self) -> bool:
        """Whether each run gets state of its own, as in a pool; runs of a session share it."""
        return self.kind == "pool"

    @property
    def cache(self) -> Path:
        """The user's cache folder."""
        return Path(self.runs).parent


def mark_ended(evidence: Folder) -> None:
    """Note in the evidence of a server that its end is known."""
    with suppress(OSError):
        _write(evidence, ENDED_FILE, b"")


def unmarked(sessions: Folder, kind: Kind, key: str) -> Iterator[Folder]:
    """The evidence of servers of this kind and key whose end is not known, held until the next."""
    for name in sorted(sessions.names()):
        if not name.startswith(f"{kind}-{key}-"):
            continue
        with suppress(OSError), sessions.folder(name) as folder:
            if ENDED_FILE not in folder.names():
                yield folder


def discovery_key(*parts: str) -> str:
    """A short digest of what runs must have in common to share a server, this user included."""
    return hashlib.sha256(
        "\0".join((str(os.geteuid()), *parts)).encode("utf-8", "surrogateescape")
    ).hexdigest()[:12]


def connect_or_start(
    config: ServerConfig, *, start: bool = True
) -> tuple[str, socket.socket] | None:
    """The id of the server of this configuration, and a connection to it.

    A server that is missing is started; without `start`, None is returned instead.

    Raises:
        ServiceFailed: the cache folder cannot be used, another process keeps the lock,
            or the server that is started ends at once.
    """
    with _locked(config.cache):
        return find_server(config.runs, config.kind, config.key) or (
            _start(config) if start else None
        )


def find_server(runs: str, kind: Kind, key: str) -> tuple[str, socket.socket] | None:
    """The id of a server that listens, and a connection to it; None where there is none."""
    try:
        around = Folder.at(Path(runs))
    except OSError:
        return None
    with around:
        for name in around.names():
            if name.startswith(f"{kind}-{key}-") and (end := _connect(around, name)) is not None:
                return name, end
    return None


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    try:
        with open_cache(cache) as folder, locked(folder, LOCK_NAME, seconds=LOCK_SECONDS):
            yield
    except TimeoutError:
        raise ServiceFailed(
            "CR-SESSION-001",
            f"{cache / LOCK_NAME}: expected the lock within {LOCK_SECONDS:g} s; "
            "another process holds it",
            hint="end the engine that hangs, or use --fresh, with which a run has its own services",
        ) from None
    except OSError as error:
        raise ServiceFailed(
            "CR-SESSION-001",
            f"{error.filename or cache}: services cannot be held for a session: {error.strerror}",
            hint=f"make {cache} yours; CLEANROOM_CACHE names another folder",
        ) from error


def _connect(runs: Folder, name: str) -> socket.socket | None:
    """A connection to the server in this folder; None where none listens."""
    try:
        with runs.folder(name) as folder:
            end = peers.connect(
                folder.descriptor, SOCKET_NAME, peers.of_our_user, socket.SOCK_SEQPACKET
            )
    except OSError:
        return None
    return channel.widened(end)


def _start(config: ServerConfig) -> tuple[str, socket.socket]:
    name = f"{config.kind}-{config.key}-{secrets.token_hex(4)}"
    with (
        Folder.at(config.cache) as cache,
        cache.folder(Path(config.runs).name, make=True, mode=0o700) as runs,
    ):
        os.mkdir(name, 0o700, dir_fd=runs.descriptor)
        with runs.folder(name) as folder, _removed_unless_started(runs, folder):
            _write(folder, CONFIG_FILE, msgspec.json.format(msgspec.json.encode(config), indent=1))
            with channel.end() as listening:
                listening.bind(unix_address(folder.descriptor, SOCKET_NAME))
                listening.listen(BACKLOG)
                pid = _spawn(folder, listening, config.root)
            _write(folder, OWNER_FILE, journal.process_name(pid).encode())
        end = _connect(runs, name)
    if end is None:
        raise ServiceFailed(
            "CR-SESSION-002",
            f"{name}: the process that holds the services ended at once",
            hint=_hint_to_log(folder.path),
        )
    return name, end


@contextmanager
def _removed_unless_started(runs: Folder, folder: Folder) -> Iterator[None]:
    """Where whoever starts a server is interrupted before, no process would remove its folder."""
    try:
        yield
    except BaseException:
        if "log" not in folder.names():
            with suppress(OSError):
                tree_removal.remove_beneath(runs.descriptor, folder.path.name)
        raise


def _write(folder: Folder, name: str, data: bytes) -> None:
    with os.fdopen(folder.open_own(name, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        file.truncate(0)
        file.write(data)


def _hint_to_log(folder: Path) -> str:
    return f"what it said is in {folder / 'log'}"


def _spawn(folder: Folder, listening: socket.socket, root: str) -> int:
    """Start a server with the code that this process runs, in an isolated interpreter.

    Returns:
        Its pid.
    """
    path = host_programs.import_path([root], ("cleanroom", "msgspec", "anyio"))
    code = (
        f"import sys; sys.path[:] = {json.dumps(path)}; from "
        f"cleanroom.engine.shared_services.server import main; main({str(folder.path)!r})"
    )
    log = folder.open_own("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return host_programs.leave_python(code, stdin=listening.fileno(), output=log)
    finally:
        os.close(log)
