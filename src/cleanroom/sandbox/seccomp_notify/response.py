"""The response to a held call, and the record of it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Target

# The kernel enforces these rules by itself: the empty network namespace, mounts or Landlock.
# The recorder's refusal only attributes the attempt; canaries have to prove the kernel's.
KERNEL_ENFORCED = frozenset(
    (
        "network.egress",
        "network.names",
        "network.sockets",
        "filesystem.write",
        "filesystem.metadata",
        "filesystem.reads",
        "process.exec",
    )
)


class Response(NamedTuple):
    """A response other than SECCOMP_USER_NOTIF_FLAG_CONTINUE, and the record of the attempt."""

    # for the caller; 0: the recorder has performed the call
    errno: int
    # empty: nothing is recorded
    rule: str = ""
    target: Target = {}  # noqa: RUF012
    tags: tuple[str, ...] = ()
    # nothing but this response stops the call, whatever its rule
    recorder_only: bool = False
    # "observed": the call was performed, and is recorded
    outcome: str = "blocked"
    # what the call returns where `errno` is 0
    value: int = 0
    # the call is under way, and is answered when it has ended
    pending: bool = False

    @property
    def kernel_enforced(self) -> bool:
        """Whether the kernel refuses this call without the recorder."""
        return self.rule in KERNEL_ENFORCED and not self.recorder_only

    @property
    def error_name(self) -> str:
        return errno.errorcode.get(self.errno, str(self.errno)) if self.errno else ""
