"""Whose the TCP ports are that services on the host's network listen on."""

from __future__ import annotations

import socket

from cleanroom.sandbox.kernel import process_tree
from cleanroom.sandbox.seccomp_notify import sockets

_LOOPBACK = socket.inet_aton("127.0.0.1")


class PortOwners:
    """Tells the ports of one tree of processes from those of other programs.

    A relay asks for each connection, so the descriptor that was found last is looked at first: all
    descriptors of all processes are looked through where it is another file by now.
    """

    def __init__(self, proc_fd: int, root: int) -> None:
        """`root` is the process at the tree's top."""
        self._proc_fd = proc_fd
        self._root = root
        # inode of a listening socket -> a process that has it open, and its descriptor
        self._holders: dict[int, tuple[int, int]] = {}

    def owns(self, port: int) -> bool:
        """Whether all sockets that listen there are the tree's, and there is one."""
        listening = sockets.receiving_inodes(self._proc_fd, "tcp", _LOOPBACK, port)
        if not listening:
            return False
        if not all(map(self._is_held, listening)):
            self._look_through()
        return self._holders.keys() >= set(listening)

    def _is_held(self, inode: int) -> bool:
        if inode not in self._holders:
            return False
        pid, descriptor = self._holders[inode]
        # The process last: its number may be another's, but not one of the tree's.
        return sockets.has_socket_at(self._proc_fd, pid, descriptor, inode) and process_tree.within(
            pid, self._root
        )

    def _look_through(self) -> None:
        tree = [self._root, *process_tree.descendants(self._root)]
        self._holders = {
            inode: (pid, descriptor)
            for pid in tree
            for inode, descriptor in sockets.descriptors_of_sockets(self._proc_fd, pid).items()
        }
