"""Decoys on the host: what the canaries must not be able to find, reach or signal."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from cleanroom.backends.base import EnvironmentSpec
from cleanroom.core.beneath import Folder, unix_address
from cleanroom.sandbox import journal
from cleanroom.sandbox.filesystem.constants import HOME
from cleanroom.sandbox.network.control_sockets import CONTAINER_ENGINES

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import (
        AllowlistExpectations,
        Expectations,
        HostNetworkExpectations,
    )

# An environment has its own folder at each of these: a cache below one is hidden.
PRIVATE = ("/tmp/", "/var/tmp/", "/dev/shm/")
# files that no environment is shown; one of them is on every machine
UNREAD = ("/etc/shadow", "/etc/fstab", "/etc/hosts.allow")
# The search for a port that the phase did not declare begins here.
FIRST_PORT = 47_800
OUTSIDE = ("/usr", "/etc")  # folders that every environment sees and none may write


class Decoys:
    """Listening sockets and a secret file on the host, for as long as canaries run.

    One unix socket has a path, one is abstract, and one TCP port is on the host's loopback.
    """

    def __init__(self, folder: Path) -> None:
        self._name = secrets.token_hex(8)
        self._folder = Folder.at(folder)
        self._secret = folder / f"secret-{self._name}"
        self._path = folder / f"s-{self._name[:6]}"
        self._listening: list[socket.socket] = []
        self._port = 0  # of the host's loopback

    def __enter__(self) -> Decoys:
        secret = self._folder.open(self._secret.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(secret, "w") as file:
            file.write(secrets.token_hex(16))
            # the sandbox has to refuse it, not the file's mode
            os.fchmod(secret, 0o644)
        self._listen(f"\0cleanroom-canary-{self._name}")
        self._listen(unix_address(self._folder.descriptor, self._path.name))
        os.chmod(self._path.name, 0o777, dir_fd=self._folder.descriptor)  # noqa: S103 -- nor from this
        self._port = self._listen_on_loopback()
        return self

    def _listen(self, address: str) -> None:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.append(listening)
        listening.bind(address)
        listening.listen(1)

    def _listen_on_loopback(self) -> int:
        listening = socket.create_server(("127.0.0.1", 0))
        self._listening.append(listening)
        return int(listening.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        for listening in self._listening:
            listening.close()
        for path in (self._secret, self._path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path.name, dir_fd=self._folder.descriptor)
        self._folder.close()

    def expectations(
        self, spec: EnvironmentSpec, temporary: str = "", *, outer_filter: bool = False
    ) -> Expectations:
        """The canaries' part of the `prove` order: where the decoys are, and the engine's pid.

        `temporary` is the folder for temporary files of an environment without mounts.
        `outer_filter`: a seccomp filter around the engine refuses calls before ours sees them.
        """
        shared, listed = spec.host_network, spec.allowlist
        return {
            "unix": str(self._path),
            "abstract": f"cleanroom-canary-{self._name}",
            "unix_private": not temporary and str(self._path).startswith(PRIVATE),
            "secret": str(self._secret),
            "name": f"{secrets.token_hex(6)}.canary.example",
            "outside": list(OUTSIDE),
            "temporary": temporary or "/tmp",
            "port": self._port,
            "pid": os.getpid(),
            "start": journal.start_time(os.getpid()),
            "bare": bool(temporary),
            "outer_filter": outer_filter,
            "allowlist": self._allowlist(spec) if listed else None,
            "host_network": self._host_network() if shared else None,
        }

    def _host_network(self) -> HostNetworkExpectations:
        """What the canaries on the host's network expect."""
        return {"port": self._listen_on_loopback(), "runtime": CONTAINER_ENGINES[0]}

    def _allowlist(self, spec: EnvironmentSpec) -> AllowlistExpectations:
        """What the canaries of an allowlist expect."""
        used = {*spec.policy.listen, *(forward.port for forward in spec.port_forwards)}
        unread = str(self._secret)
        if unread.startswith(PRIVATE):
            unread = next((path for path in UNREAD if os.path.lexists(path)), UNREAD[0])
        return {
            "unread": unread,
            "port": next(port for port in range(FIRST_PORT, 65536) if port not in used),
            "program": "/bin/sh",
            "written": HOME,
        }
