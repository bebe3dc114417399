"""Landlock: the kernel's list of the paths that a process tree may read, write and execute, as a
second layer over the mounts.

`restrict` holds for the calling thread and everything it starts, for good;
call it in a single-threaded child before exec.
Not covered by Landlock, so left to mounts, seccomp and the network namespace:
chmod, chown, times, xattr, UDP, unix sockets by path.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable

from cleanroom.sandbox.kernel import syscalls
from cleanroom.sandbox.kernel.constants import (
    LANDLOCK_ACCESS_FS_EXECUTE,
    LANDLOCK_ACCESS_FS_IOCTL_DEV,
    LANDLOCK_ACCESS_FS_READ_DIR,
    LANDLOCK_ACCESS_FS_READ_FILE,
    LANDLOCK_ACCESS_FS_TRUNCATE,
    LANDLOCK_ACCESS_FS_WRITE_FILE,
    LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET,
    LANDLOCK_SCOPE_SIGNAL,
)

# any other right on a file's rule is EINVAL
_FILE_RIGHTS = (
    LANDLOCK_ACCESS_FS_EXECUTE
    | LANDLOCK_ACCESS_FS_WRITE_FILE
    | LANDLOCK_ACCESS_FS_READ_FILE
    | LANDLOCK_ACCESS_FS_TRUNCATE
    | LANDLOCK_ACCESS_FS_IOCTL_DEV
)
# the ABI that knows scopes: Linux 6.12
SCOPES_SINCE = 6
# abstract unix sockets and signals of processes outside
_SCOPES = LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | LANDLOCK_SCOPE_SIGNAL

# Programs take these for granted (git dies without a writable /dev/null,
# pytest wants terminals of its own).
DEVICES = (
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/tty",
    "/dev/random",
    "/dev/urandom",
    "/dev/ptmx",
    "/dev/pts",
)

# handled access bits by ABI: REFER came with 2, TRUNCATE with 3, IOCTL_DEV with 5
_HANDLED = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}


def abi() -> int:
    """The version this kernel speaks; 0 where Landlock is absent or switched off."""
    return syscalls.landlock_abi()


def restrict(
    readable: Iterable[str],
    writable: Iterable[str],
    executable: Iterable[str] = (),
    listable: Iterable[str] = (),
    *,
    run_written: bool = True,
    devices: Iterable[str] = DEVICES,
) -> None:
    """Allow reading `readable`, reading and executing `executable`, everything in `writable`,
    listing folders in `listable`, and nothing else.

    Without `run_written` a file in `writable` may be executed only if it is in `executable` too.

    Paths that cannot be opened are skipped: a rule for a missing path would allow nothing.
    Overlays need their rule on the merged mount.

    Raises:
        OSError: there is no Landlock here, or it refused.
    """
    attributes, allowed = rules(
        readable, writable, executable, listable, run_written=run_written, devices=devices
    )
    ruleset = syscalls.landlock_create_ruleset(attributes)
    try:
        for path, access in allowed:
            _allow(ruleset, path, access)
        # EPERM without it, as long as this process has no CAP_SYS_ADMIN.
        syscalls.set_no_new_privileges()
        syscalls.landlock_restrict_self(ruleset)
    finally:
        os.close(ruleset)


def rules(
    readable: Iterable[str],
    writable: Iterable[str],
    executable: Iterable[str] = (),
    listable: Iterable[str] = (),
    *,
    run_written: bool = True,
    devices: Iterable[str] = DEVICES,
) -> tuple[bytes, list[tuple[str, int]]]:
    """The rules of `restrict` for this kernel: the ruleset's struct, and paths with the rights that
    each has if it is a folder.
    """
    # A ruleset with a right that the kernel does not know is EINVAL.
    version = abi()
    handled = _HANDLED.get(version, (1 << 16) - 1)
    grants = (
        (listable, LANDLOCK_ACCESS_FS_READ_DIR),
        (readable, LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR),
        (
            executable,
            LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_EXECUTE,
        ),
        (
            (*writable, *devices),
            handled if run_written else handled & ~LANDLOCK_ACCESS_FS_EXECUTE,
        ),
    )
    return _attributes(version, handled), [
        (path, access & handled) for paths, access in grants for path in paths
    ]


def _attributes(version: int, handled: int) -> bytes:
    """The ruleset's struct, as long as this ABI knows it: paths, from 4 on network,
    from 6 on scopes.

    Ports are left to the namespace.
    """
    # A longer struct than the kernel's is E2BIG unless the rest is zeros; a shorter one is allowed.
    if version >= SCOPES_SINCE:
        return struct.pack("=QQQ", handled, 0, _SCOPES)
    return struct.pack("=QQ", handled, 0) if version >= 4 else struct.pack("=Q", handled)


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        # landlock_add_rule(2) takes O_PATH, which needs no right to read.
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            access &= _FILE_RIGHTS
        syscalls.landlock_add_path(ruleset, descriptor, access)
    finally:
        os.close(descriptor)
