"""Faults as data: what goes wrong, what comes of it, the exit code, and what is read.

`document` makes docs/faults.md of the same rows.

The modules beside this one register their rows here.
Each is carried out by the real command, in the form that people read.
"""

from __future__ import annotations

import importlib
import os
import subprocess
from collections.abc import Callable, Mapping
from typing import NamedTuple

from cleanroom.backends.containers.client import EngineName
from cleanroom.sandbox.kernel import cgroups
from support.command_harness import Project

MODULES = ("phases", "services", "disks", "runs", "containers")


class CommandResult(NamedTuple):
    """How the command ended, and all that it said."""

    code: int
    text: str


class Fault(NamedTuple):
    """One row."""

    area: str
    name: str
    happens: str
    code: int
    says: str  # in what the command prints
    # of the project, and of the engine where it is carried out on some
    carry_out: Callable[..., CommandResult]
    root: bool = False  # needs mounts that only root makes
    groups: bool = False  # without a control group nobody can say it for certain
    slow: bool = False
    engines: tuple[EngineName, ...] = ()
    code_by_samples: int | None = None  # without a control group, where it is another one


FAULTS: dict[str, Fault] = {}


def fault(
    area: str,
    name: str,
    happens: str,
    *,
    code: int,
    says: str,
    root: bool = False,
    groups: bool = False,
    slow: bool = False,
    engines: tuple[EngineName, ...] = (),
    code_by_samples: int | None = None,
) -> Callable[[Callable[..., CommandResult]], Callable[..., CommandResult]]:
    """Register the decorated function, which prepares the project and runs the command:
    once, or once on each of `engines`.
    """

    def register(carry_out: Callable[..., CommandResult]) -> Callable[..., CommandResult]:
        assert name not in FAULTS, name
        FAULTS[name] = Fault(
            area, name, happens, code, says, carry_out, root, groups, slow, engines, code_by_samples
        )
        return carry_out

    return register


def load() -> dict[str, Fault]:
    """All rows, in their order."""
    for name in MODULES:
        importlib.import_module(f"support.faults.{name}")
    return FAULTS


def run(
    project: Project,
    *words: str,
    mount: str = "",
    before: str = "",
    timeout_seconds: float = 60,
    backend: str = "embedded",
    caller: Mapping[str, str] = {},
) -> CommandResult:
    """`run test`, or other words, in the form that people read.

    `mount`: a shell's text that is run first, in a mount namespace of its own.
    `caller`: further variables of the command's environment.
    """
    argv = project.argv(
        *(words or ("run", "test")),
        *(("--backend", backend) if not words or words[0] in ("run", "pipeline") else ()),
        before=before,
    )
    if mount:
        argv = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-ec",
            f'{mount}; exec "$@"',
            "sh",
            *argv,
        ]
    done = subprocess.run(
        argv,
        cwd=project.root,
        env={**project.variables(), **caller},
        capture_output=True,
        timeout=timeout_seconds,
        stdin=subprocess.DEVNULL,
    )
    return CommandResult(done.returncode, (done.stdout + done.stderr).decode(errors="replace"))


def is_root() -> bool:
    return os.geteuid() == 0


def has_groups() -> bool:
    """Whether limits are held by control groups here, and not found by samples."""
    return bool(cgroups.homes().version)
