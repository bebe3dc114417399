"""The relay of a service: a child of the warden, inside the environment."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cleanroom.sandbox import channel
from cleanroom.sandbox.kernel import constants, privileges, syscalls
from cleanroom.sandbox.network import relay
from cleanroom.sandbox.network.dial import Service

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Identity, RelayFull, RelayOrder, RelayRefused

_FOLDER = constants.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class ServiceRelay:
    """Runs from its construction until its channel is closed."""

    def __init__(
        self,
        service: Service,
        identity: Identity | None,
        inherited: Sequence[socket.socket],
        fork: Callable[[], int] = os.fork,
    ) -> None:
        """Start the child with `fork`, which is 0 in the child.

        `identity`: the user that it becomes; None where the warden is that user already.
        `inherited`: sockets of the warden that it must not hold open.
        """
        self._channel, theirs = channel.pair()
        if fork() == 0:
            with contextlib.suppress(BaseException):
                syscalls.set_process_name("relay")
                # A socket ends for its peer when its last descriptor is closed.
                for end in (*inherited, self._channel):
                    end.close()
                if identity is not None:
                    privileges.drop_privileges(identity)
                # After the change of credentials, which clears it (prctl(2)).
                syscalls.set_parent_death_signal(signal.SIGKILL)
                relay.raise_open_files()
                relay.Relay(theirs, service.dial).serve()
            os._exit(0)
        theirs.close()

    def fileno(self) -> int:
        """Readable once the relay has ended."""
        return self._channel.fileno()

    def send(self, order: RelayOrder, descriptors: Sequence[int]) -> None:
        """Pass an order on."""
        # It has ended, which the warden's next poll(2) finds.
        with contextlib.suppress(OSError):
            channel.RELAY_ORDERS.send(self._channel, order, descriptors)

    def receive(self) -> RelayRefused | RelayFull | None:
        """A report of the relay; None once it has ended."""
        arrived = channel.RELAY_MESSAGES.receive(self._channel)
        return arrived[0] if arrived is not None else None

    def close(self) -> None:
        """End the relay."""
        self._channel.close()


def open_folders_inside(init: int, targets: Sequence[str]) -> dict[str, int]:
    """Open folders in the environment's own view, each by a path that has no link in it.

    Raises:
        OSError: one is not there, or `init` may not be looked into.
    """
    # proc_pid_root(5): leads into the mount namespace of that process.
    root = os.open(f"/proc/{init}/root", _FOLDER)
    try:
        # openat2(2): an absolute path starts at `root`, and a symbolic link in it is ELOOP.
        resolve = constants.RESOLVE_IN_ROOT | constants.RESOLVE_NO_SYMLINKS
        return {target: syscalls.openat2(root, target, _FOLDER, resolve) for target in targets}
    finally:
        os.close(root)


def open_folders_outside(sources: dict[str, str]) -> dict[str, int]:
    """Open folders where they lie on the host, by their paths inside.

    Raises:
        OSError: one is not there.
    """
    # O_PATH: a place to start from, without a right to read.
    return {target: os.open(source, _FOLDER) for target, source in sources.items()}
