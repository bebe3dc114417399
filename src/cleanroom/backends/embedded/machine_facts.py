"""Facts of this machine that environments are described by, each read once for a run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio.to_thread

from cleanroom.sandbox.filesystem import mount_plan
from cleanroom.sandbox.kernel import cgroups

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import ProbeReport


class MachineFacts:
    """What the probe and the file system say about this machine."""

    def __init__(self) -> None:
        self.landlock = True
        # a container around the engine has a seccomp filter, which refuses calls before ours
        self.outer_filter = False
        self._cgroup_homes: cgroups.Homes | None = None
        self._host: mount_plan.HostFacts | None = None
        self._limits_proven = False

    def accept(self, report: ProbeReport) -> None:
        """Take over what the probe found."""
        self.landlock = report["landlock"]
        self.outer_filter = report["outer_filter"]

    def cgroup_homes(self) -> cgroups.Homes:
        """The folders in which control groups can be made. Blocks when called first."""
        if self._cgroup_homes is None:
            self._cgroup_homes = (
                cgroups.homes()
                if os.geteuid() == 0
                else cgroups.Homes(0, {}, "not root, and no group was delegated")
            )
        return self._cgroup_homes

    async def host(self) -> mount_plan.HostFacts:
        """What the host's root folder looks like, for mount plans."""
        if self._host is None:
            self._host = await anyio.to_thread.run_sync(mount_plan.read_host_facts)
        return self._host

    def first_limit_proof(self) -> bool:
        """True when called first: the limits' mechanisms are the same in all environments,
        so the canaries of the first one prove them for the run.
        """
        first = not self._limits_proven
        self._limits_proven = True
        return first
