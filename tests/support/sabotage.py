"""Controls and constants of the product changed on purpose, one function each.

A test runs `code(...)` of a function first in the process under test: in the command, or in the
keeper, which has the standard library and `cleanroom.sandbox` only.
So each function imports what it changes, and a name that is gone fails `tests/test_sabotage.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from support.paths import TESTS

ALLOW_ALL = 0x7FFF0000  # SECCOMP_RET_ALLOW


def code(sabotage: Callable[[], None]) -> str:
    """Python text that carries out a function of this module in another process."""
    return (
        f"import sys; sys.path.append({str(TESTS)!r}); from support import sabotage; "
        f"sys.path.remove({str(TESTS)!r}); sabotage.{sabotage.__name__}()"
    )


def functions() -> list[Callable[[], None]]:
    """Everything that this module can switch off."""
    own = (item for item in globals().values() if callable(item))
    named = (item for item in own if getattr(item, "__module__", "") == __name__)
    helpers = (code, functions, _replace)
    return [item for item in named if item not in helpers]


def _replace(owner: ModuleType | type, **values: Any) -> None:
    for name, value in values.items():
        assert hasattr(owner, name), f"{owner.__name__} has no {name} any more"
        setattr(owner, name, value)


def no_filter() -> None:
    """Phases run under a filter that allows every system call."""
    import struct

    from cleanroom.sandbox.seccomp import filters

    allow = struct.pack("=HBBI", 6, 0, 0, ALLOW_ALL)
    _replace(filters, phase_filter=lambda machine, **_: allow)


def capabilities_kept() -> None:
    from cleanroom.sandbox.kernel import privileges

    _replace(privileges, drop_all_capabilities=lambda: None)


def no_process_namespace() -> None:
    from cleanroom.sandbox.kernel import constants
    from cleanroom.sandbox.processes import warden_start

    _replace(warden_start, NAMESPACES=warden_start.NAMESPACES & ~constants.CLONE_NEWPID)


def no_network_namespace() -> None:
    from cleanroom.sandbox.kernel import constants
    from cleanroom.sandbox.processes import warden_start

    _replace(warden_start, NAMESPACES=warden_start.NAMESPACES & ~constants.CLONE_NEWNET)


def nothing_recorded() -> None:
    from cleanroom.sandbox.processes.warden import Warden

    _replace(Warden, _report_attempt=lambda self, attempt: None)


def no_files_for_the_probe() -> None:
    """The child that asks the kernel may open no file."""
    import resource

    from cleanroom.sandbox.processes import keeper  # noqa: F401  before no file may be opened
    from cleanroom.sandbox.selftest import probe

    honest = probe.report

    def report(folder: str) -> Any:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
        return honest(folder)

    _replace(probe, report=report)


def no_scopes() -> None:
    """Landlock's scopes are not asked for, and sockets by path or name are all allowed."""
    from cleanroom.sandbox.kernel import landlock
    from cleanroom.sandbox.network import host_network

    _replace(landlock, _SCOPES=0)
    _replace(host_network, judge_unix=lambda *given, **named: host_network.Decision())


def host_loopback_open() -> None:
    from cleanroom.sandbox.network import host_network

    honest = host_network.judge_outgoing

    def judge_outgoing(where: Any, kind: Any, address: Any, port: Any, **named: Any) -> Any:
        if address[:1] == b"\x7f" and port != 53:
            return host_network.Decision()
        return honest(where, kind, address, port, **named)

    _replace(
        host_network,
        judge_unix=lambda *given, **named: host_network.Decision(),
        judge_outgoing=judge_outgoing,
    )


def proc_not_withheld() -> None:
    from cleanroom.sandbox.kernel import process_tree

    _replace(process_tree, within=lambda pid, root: True)


def metadata_not_judged() -> None:
    from cleanroom.sandbox.seccomp_notify import metadata

    _replace(metadata.Metadata, judge=lambda self, call: metadata.Response(0))


def other_processes_not_judged() -> None:
    from cleanroom.sandbox.seccomp_notify.processes_hostns import HostnsProcesses

    _replace(HostnsProcesses, _judge_other=lambda self, call: None)


def held_calls_off() -> None:
    """The engine describes every environment without a recorder."""
    from cleanroom.backends.embedded import tiers

    honest = tiers.describe

    def describe(*given: Any, **named: Any) -> Any:
        return honest(*given, **named) | {"notify": False}

    _replace(tiers, describe=describe)


def no_control_groups() -> None:
    """The same machine as an ordinary user finds it."""
    from cleanroom.sandbox.kernel import cgroups

    _replace(cgroups, homes=lambda: cgroups.Homes(0, {}, "taken away by a test"))


def short_patience() -> None:
    """An inner process that does not answer is killed after half a second."""
    from cleanroom.backends.embedded import commands, keeper_client

    _replace(keeper_client, LEAVE_SECONDS=0.5)
    _replace(commands, KILL_SECONDS=0.5)


def jumping_clock() -> None:
    """Each look at the wall clock is hours or years from the one before."""
    import itertools

    from cleanroom.engine import engine

    hours = itertools.cycle((0, 1, -24, 10000))

    class Jumping(engine.SystemClock):
        def wall_ns(self) -> int:
            return super().wall_ns() + next(hours) * 3600 * 10**9

    _replace(engine, SystemClock=Jumping)
