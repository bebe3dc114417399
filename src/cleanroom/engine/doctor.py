"""The checks of `cleanroom-engine doctor`: the policies that this machine can hold, its services.

The checks use the backend's own probe and the services' own discovery, and change nothing.
Each check that is not ok has a code and a hint.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from cleanroom.core.beneath import Folder
from cleanroom.core.files import is_there
from cleanroom.model.capability import CapabilityReport, unmet
from cleanroom.model.errors import CleanroomError
from cleanroom.model.policy import Level
from cleanroom.sandbox.journal import Journal

if TYPE_CHECKING:
    from cleanroom.backends.containers.requirements import Machine
    from cleanroom.sandbox.kernel.cgroups import Homes
    from cleanroom.services.programs import Programs

Status = Literal["ok", "warn", "fail"]

# The level that the exit status is about: projects that say nothing have it.
NEEDED = Level.MEDIUM

_DISK_FREE_MIN = 2 << 30  # one cached template, one run's layers and its logs stay well below this
# tarfile's filters could be walked around before these (CVE-2025-4517 and its kin).
_TARFILE_FIXED = {(3, 11): 13, (3, 12): 11, (3, 13): 4}


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One check and its result."""

    name: str
    status: Status
    detail: str
    code: str = ""  # of what is not ok
    hint: str = ""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """All checks. `medium` decides the exit status."""

    checks: tuple[Check, ...]
    levels: dict[str, bool]  # level -> it can be held here
    medium: bool
    backend: str = ""
    tier: str = ""


def diagnose(*, caller: Mapping[str, str]) -> Diagnosis:
    """Make all checks. One that cannot be made is a finding, never an exception.

    `caller` is the caller's environment: its PATH is searched for servers.
    Runs an event loop of its own for the backend's probe.
    """
    import anyio

    host = host_checks(caller)
    report, failure = anyio.run(_probe)
    if report is None:
        return Diagnosis(
            checks=(*host, failure), levels={level.value: False for level in Level}, medium=False
        )
    levels = {level.value: not unmet(report, level) for level in Level}
    checks = (*host, *capability_checks(report), *level_checks(report))
    return Diagnosis(
        checks=checks,
        levels=levels,
        medium=levels[NEEDED.value],
        backend=report.backend,
        tier=report.tier,
    )


def host_checks(caller: Mapping[str, str]) -> tuple[Check, ...]:
    """The checks that need no backend."""
    from cleanroom.core.locations import cache_folder

    cache = cache_folder(caller)
    return (
        platform_check(sys.platform, platform.machine()),
        python_check(sys.version_info[:3]),
        distribution_check(_installed("cleanroom")),
        *_kernel_checks(),
        *_service_checks(caller),
        *_container_checks(caller, cache),
        disk_check(cache, shutil.disk_usage(_existing(cache)).free),
        leftovers_check(cache),
    )


async def _probe() -> tuple[CapabilityReport | None, Check]:
    """The embedded backend's own word, or why it has none."""
    from cleanroom.backends import registry

    try:
        names = registry.candidates("embedded")
        with (
            tempfile.TemporaryDirectory(prefix="cleanroom-doctor-") as scratch,
            Folder.at(Path(scratch)) as folder,
        ):
            make = partial(
                registry.make,
                run_id="doctor",
                scratch=folder.path / "scratch",
                journal=partial(Journal.at, folder),
            )
            async with AsyncExitStack() as stack:
                backend, report = await registry.enter_first(
                    stack, names, make, NEEDED, lambda _: None
                )
                return report, Check(name="backend", status="ok", detail=backend.name)
    except CleanroomError as error:
        return None, Check(
            name="backend", status="fail", detail=str(error), code=error.code, hint=error.hint
        )
    except OSError as error:
        return None, Check(
            name="backend",
            status="fail",
            detail=f"embedded: {error}",
            code="CR-DOCTOR-001",
            hint="see `explain CR-DOCTOR-001`",
        )


def capability_checks(report: CapabilityReport) -> tuple[Check, ...]:
    """One check for each dimension: how far it holds, by what, and the probe's own words."""
    rows = []
    for row in report.dimensions:
        held = {"yes": "ok", "partial": "warn", "no": "fail"}[row.enforced]
        detail = (
            f"enforced {row.enforced}, detected {row.detected}, attributed {row.attributed}; "
            f"{row.mechanism}"
        )
        evidence = f" ({row.evidence})" if row.evidence else ""
        code = "" if held == "ok" else "CR-DOCTOR-002"
        rows.append(Check(name=row.dimension, status=held, detail=detail + evidence, code=code))  # type: ignore[arg-type]
    return (
        Check(name="backend", status="ok", detail=f"{report.backend}, tier {report.tier}"),
        *rows,
    )


def level_checks(report: CapabilityReport) -> tuple[Check, ...]:
    """One check for each policy level; where it cannot be held, with the rules that are missing."""
    checks = []
    for level in Level:
        lacking = unmet(report, level)
        if not lacking:
            checks.append(Check(name=f"policy {level.value}", status="ok", detail="can be held"))
            continue
        status: Status = "fail" if level is NEEDED else "warn"
        why = "; ".join(f"{missing.rule}: {missing.why}" for missing in lacking)
        hint = "; ".join(dict.fromkeys(missing.hint for missing in lacking if missing.hint))
        checks.append(
            Check(
                name=f"policy {level.value}",
                status=status,
                detail=f"cannot be held: {why}",
                code="CR-DOCTOR-003",
                hint=hint,
            )
        )
    return tuple(checks)


def platform_check(system: str, machine: str) -> Check:
    if system == "linux":
        return Check(name="platform", status="ok", detail=f"Linux {machine}")
    hint = (
        "`plan`, `audit`, `events` and `report` work here; run pipelines on Linux, in a virtual "
        "machine or in CI"
    )
    return Check(
        name="platform",
        status="fail",
        detail=f"{system} {machine}: environments need Linux",
        code="CR-DOCTOR-004",
        hint=hint,
    )


def python_check(version: tuple[int, int, int]) -> Check:
    shown = ".".join(map(str, version))
    fixed = _TARFILE_FIXED.get(version[:2])
    if fixed is not None and version[2] < fixed:
        hint = f"update to {version[0]}.{version[1]}.{fixed} or later"
        return Check(
            name="python",
            status="warn",
            detail=f"{shown}: its tarfile has known holes (CVE-2025-4517)",
            code="CR-DOCTOR-005",
            hint=hint,
        )
    return Check(name="python", status="ok", detail=shown)


def distribution_check(version: str | None) -> Check:
    """An unrelated distribution named cleanroom installs the same package name."""
    if version is None:
        return Check(
            name="distributions",
            status="ok",
            detail="no other distribution claims the package name cleanroom",
        )
    return Check(
        name="distributions",
        status="fail",
        detail=(
            f"the unrelated distribution cleanroom {version} is installed and overwrites files "
            "of this package"
        ),
        code="CR-DOCTOR-006",
        hint="pip uninstall cleanroom, then install this engine again from where it came",
    )


def _installed(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _kernel_checks() -> Iterable[Check]:
    """Kernel version, Landlock and cgroups; only on Linux."""
    if sys.platform != "linux":
        return
    from cleanroom.sandbox.kernel import cgroups, syscalls

    yield Check(name="kernel", status="ok", detail=platform.release())
    try:
        abi = syscalls.landlock_abi()
    except OSError as error:
        yield Check(
            name="landlock",
            status="warn",
            detail=str(error),
            code="CR-DOCTOR-007",
            hint="a kernel with landlock in its lsm= list",
        )
    else:
        yield landlock_check(abi)
    yield cgroup_check(cgroups.homes())


def landlock_check(abi: int) -> Check:
    if abi > 0:
        return Check(name="landlock", status="ok", detail=f"ABI {abi}")
    hint = "a kernel >= 5.13 with landlock in its lsm= list adds a second line behind the mounts"
    return Check(
        name="landlock", status="warn", detail="not there", code="CR-DOCTOR-007", hint=hint
    )


def cgroup_check(homes: Homes) -> Check:
    """Without control groups, rlimits and samples hold the limits, and every report says so."""
    if homes.version:
        return Check(
            name="cgroups",
            status="ok",
            detail=f"version {homes.version}, writable: {', '.join(sorted(homes.folders))}",
        )
    hint = (
        "run as root, or under `systemd-run --user --scope -p Delegate=yes`, for limits that the "
        "kernel holds exactly"
    )
    detail = f"not writable ({homes.why}): limits are held by rlimits and samples"
    return Check(name="cgroups", status="warn", detail=detail, code="CR-DOCTOR-008", hint=hint)


def _service_checks(caller: Mapping[str, str]) -> Iterable[Check]:
    from cleanroom.services import programs

    path = caller.get("PATH", "")
    yield _found(
        "postgres", lambda: programs.find_postgres(path, caller.get("CLEANROOM_POSTGRES_BIN", ""))
    )
    yield _found("redis", lambda: programs.find_redis(path, caller.get("CLEANROOM_REDIS_BIN", "")))


def _found(name: str, find: Callable[[], Programs]) -> Check:
    """A service's programs, with version and place.

    A project without services does not need them, so their absence only warns.
    """
    try:
        found = find()
    except CleanroomError as error:
        return Check(name=name, status="warn", detail=str(error), code=error.code, hint=error.hint)
    return Check(name=name, status="ok", detail=f"{found.version}, {found.source}: {found.server}")


def _container_checks(caller: Mapping[str, str], cache: Path) -> Iterable[Check]:
    """The container engines of this machine, each with all that a run would lack.

    A machine without one gets no check: its user needs none.
    """
    from cleanroom.backends import registry
    from cleanroom.backends.containers.requirements import inspect_machine

    for name in registry.CONTAINERS:
        machine = inspect_machine(name, (), caller, shim=cache / "shim")  # type: ignore[arg-type]
        if machine.program or machine.socket:
            yield container_check(machine)


def container_check(machine: Machine) -> Check:
    from cleanroom.backends.containers.requirements import refusal

    refused = refusal(machine)
    if refused is None:
        return Check(name=machine.engine, status="ok", detail=f"answers at {machine.socket}")
    return Check(
        name=machine.engine,
        status="warn",
        detail=refused.message,
        code=refused.code,
        hint=refused.hint,
    )


def disk_check(cache: Path, free_bytes: int) -> Check:
    shown = f"{free_bytes / (1 << 30):.1f} GiB free for {cache}"
    if free_bytes >= _DISK_FREE_MIN:
        return Check(name="disk", status="ok", detail=shown)
    return Check(
        name="disk",
        status="warn",
        detail=shown,
        code="CR-DOCTOR-009",
        hint="free space, or set CLEANROOM_CACHE to a larger disk",
    )


def leftovers_check(cache: Path) -> Check:
    """Folders in the cache of runs that have ended, as `sweep` tells them from living ones."""
    from cleanroom.backends.cleanup import dead_run_folders

    try:
        os.scandir(cache / "runs").close()
    except FileNotFoundError:
        pass
    except OSError as error:
        found = f"{cache / 'runs'} cannot be looked at: {error.strerror}"
        hint = "make it yours, or name another with CLEANROOM_CACHE"
        return Check(name="leftovers", status="warn", detail=found, code="CR-DOCTOR-010", hint=hint)
    runs = dead_run_folders(cache)
    if not runs:
        return Check(name="leftovers", status="ok", detail="none")
    hint = "`cleanroom-engine sweep` removes them"
    return Check(
        name="leftovers",
        status="warn",
        detail=f"{len(runs)} folders of ended runs in {cache / 'runs'}",
        code="CR-DOCTOR-010",
        hint=hint,
    )


def _existing(folder: Path) -> Path:
    """The nearest folder above that exists."""
    while not is_there(folder):
        folder = folder.parent
    return folder
