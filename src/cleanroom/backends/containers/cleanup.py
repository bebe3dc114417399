"""Removing containers of dead runs: those that bear our label and whose engine process is gone,
however young they are.

A process number means something in its own pid namespace only,
so what another namespace made since the machine was started is left to those who sweep there,
and said; so is what bears our label and names no process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Literal

from msgspec.structs import replace

from cleanroom.backends.base import Leftover
from cleanroom.backends.cleanup import SweepFindings, merged
from cleanroom.backends.containers.client import SOCKETS, find_socket
from cleanroom.model.errors import BackendUnavailable
from cleanroom.sandbox import journal
from cleanroom.sandbox.processes import container_cleanup
from cleanroom.sandbox.processes.container_cleanup import Container

ELSEWHERE = "made in another pid namespace: whoever sweeps there can tell whether its run lives"
NOBODYS = "it bears our label and does not say whose it is: remove it by hand if nobody uses it"


def judge(found: Container, *, boot_id: str, namespace: str) -> Literal["dead", "living"] | str:
    """What is certain of a container's run; else why nothing is, in a sentence."""
    if not found.boot_id:
        return NOBODYS
    if found.boot_id != boot_id:
        return "dead"  # made before the machine was started
    if found.namespace != namespace:
        return ELSEWHERE
    try:
        return "living" if journal.alive(found.owner) else "dead"
    except ValueError:
        return NOBODYS


def sweep_engine(socket: str) -> SweepFindings:
    """Remove what dead runs left in the engine at `socket`. Blocks.

    Raises:
        OSError: it does not answer.
    """
    boot_id, namespace = container_cleanup.boot_id(), container_cleanup.pid_namespace()
    report = SweepFindings()
    for found in container_cleanup.labelled(socket):
        thing = Leftover(kind="container", name=found.name)
        match judge(found, boot_id=boot_id, namespace=namespace):
            case "living":
                report = merged(report, SweepFindings(living=frozenset({found.run_id})))
            case "dead" if container_cleanup.remove(socket, found.identity):
                report = merged(report, SweepFindings(removed=(thing,)))
            case "dead":
                refused = replace(thing, detail=f"{socket} did not remove it")
                report = merged(report, SweepFindings(left=(refused,)))
            case why:
                report = merged(report, SweepFindings(waiting=(replace(thing, detail=why),)))
    return report


def sweep_engines(caller: Mapping[str, str]) -> SweepFindings:
    """The same for every engine that is there, as root; nobody else can have made any."""
    report = SweepFindings()
    for name in SOCKETS if os.geteuid() == 0 else ():
        with contextlib.suppress(BackendUnavailable, OSError):
            report = merged(report, sweep_engine(find_socket(name, caller)))
    return report
