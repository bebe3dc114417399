"""Id maps for mounts: environments of root see a project's files as their own, while the files keep
their owner on disk.
"""

from __future__ import annotations

import os
import signal

from cleanroom.sandbox.kernel import constants, privileges, syscalls

# ids that distributions give out; files with ids beyond belong to nobody inside
TOP = 65536


def open_map(owner: int, owner_group: int, user: int, group: int) -> int:
    """Make a user namespace whose map shows `owner` on disk as `user`, every other id as itself.

    Returns its descriptor.

    Needs root.

    Raises:
        OSError: user namespaces or maps are refused here.
    """
    ready_read, ready_write = os.pipe()
    done_read, done_write = os.pipe()
    # A child makes it: unshare(2) moves its caller, and a map of several ids needs CAP_SETUID in
    # the parent namespace.
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.set_parent_death_signal(signal.SIGKILL)
            os.close(done_write)
            # The namespace has no id map yet, which only a privileged process outside may give it.
            syscalls.unshare(constants.CLONE_NEWUSER)
            os.write(ready_write, b"r")
            os.read(done_read, 1)
        finally:
            os._exit(0)
    os.close(ready_write)
    os.close(done_read)
    try:
        if not os.read(ready_read, 1):
            raise OSError(1, "no user namespace for the id map")
        # user_namespaces(7): a map can be written once.
        privileges.write_id_maps(pid, lines(owner, user), lines(owner_group, group))
        # The descriptor keeps the namespace after its only process has ended (namespaces(7)).
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready_read)
        os.close(done_write)
        os.waitpid(pid, 0)


def lines(owner: int, becomes: int, top: int = TOP) -> str:
    """The text of a map file."""
    rows = [(0, 0, min(owner, top)), (owner, becomes, 1), (owner + 1, owner + 1, top - owner - 1)]
    return "".join(f"{inside} {outside} {count}\n" for inside, outside, count in rows if count > 0)
