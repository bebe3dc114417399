"""Disks that are full or cannot be written, under each of the places where the engine writes:
small file systems in a mount namespace of the run's own.
"""

from __future__ import annotations

from support.command_harness import Project
from support.faults.suite import CommandResult, fault, run

DISK = "the disk"
LOUD = (
    "i=0; while [ $i -lt 400 ]; do echo line-$i; echo other-$i >&2; sleep 0.002; i=$((i+1)); done"
)
FULL = "mount -t tmpfs -o size={size},mode=0700 full {folder}"
READ_ONLY = "mount --bind {folder} {folder}; mount -o remount,bind,ro {folder}"


def mounted(
    project: Project, how: str, where: str, *, size: str = "16k", text: str = LOUD
) -> CommandResult:
    """A run in which the folder `where` is such a file system."""
    folder = (
        (project.root / where) if not where.startswith("cache") else project.root.parent / where
    )
    folder.mkdir(parents=True, exist_ok=True)
    project.write({"test": text}, timeout='"20s"')
    return run(project, mount=how.format(folder=folder, size=size))


@fault(
    DISK,
    "is full under the audit log",
    "nothing may run unrecorded: the run ends",
    code=5,
    says="audit: No space left on device",
    root=True,
)
def audit_full(project: Project) -> CommandResult:
    return mounted(project, FULL, ".ggen/cleanroom/audit")


@fault(
    DISK,
    "cannot be written under the audit log",
    "no phase begins",
    code=5,
    says="Read-only file system",
    root=True,
)
def audit_read_only(project: Project) -> CommandResult:
    return mounted(project, READ_ONLY, ".ggen/cleanroom/audit")


@fault(
    DISK,
    "is full under events and logs",
    "the run ends, and says that its evidence is not whole",
    code=5,
    says="No space left on device",
    root=True,
)
def events_full(project: Project) -> CommandResult:
    return mounted(project, FULL, ".ggen/cleanroom/runs", size="80k")


@fault(
    DISK,
    "is full under the reports",
    "the run was carried out; that its reports are missing is its error",
    code=5,
    says="No space left on device",
    root=True,
)
def reports_full(project: Project) -> CommandResult:
    return mounted(project, FULL, ".ggen/cleanroom/reports", text="true")


@fault(
    DISK,
    "cannot be written under the reports",
    "the same",
    code=5,
    says="Read-only file system",
    root=True,
)
def reports_read_only(project: Project) -> CommandResult:
    return mounted(project, READ_ONLY, ".ggen/cleanroom/reports", text="true")


@fault(
    DISK,
    "cannot be written under the project",
    "no phase begins",
    code=5,
    says="Read-only file system",
    root=True,
)
def project_read_only(project: Project) -> CommandResult:
    return mounted(project, READ_ONLY, ".ggen")


@fault(
    DISK,
    "is full under the cache from the start",
    "no phase begins",
    code=5,
    says="the cache cannot be used: No space left on device",
    root=True,
)
def cache_full(project: Project) -> CommandResult:
    return mounted(project, FULL + "; head -c 100000 /dev/zero > {folder}/full || true", "cache")


@fault(
    DISK,
    "cannot be written under the cache",
    "no phase begins",
    code=5,
    says="could not be probed: OSError: [Errno 30] Read-only file system",
    root=True,
)
def cache_read_only(project: Project) -> CommandResult:
    return mounted(project, READ_ONLY, "cache")


@fault(
    DISK,
    "becomes full under the cache while a phase writes",
    "its write fails inside, and the phase by itself; everything is removed all the same",
    code=1,
    says="No space left on device",
    root=True,
)
def cache_becomes_full(project: Project) -> CommandResult:
    return mounted(
        project, FULL, "cache", size="4m", text="dd if=/dev/zero of=large bs=64k count=200"
    )


@fault(
    DISK,
    "is full where changes are brought back",
    "the first that do not fit are named; the phase passed, its outputs are not there: an error",
    code=5,
    says="build/large (No space left on device)",
    root=True,
)
def project_full(project: Project) -> CommandResult:
    return mounted(
        project,
        FULL,
        "build",
        size="64k",
        text="mkdir -p build; head -c 300000 /dev/zero > build/large",
    )
