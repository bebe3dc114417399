"""Which backends exist, and making one by name. A backend's module is imported when it is asked for."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cleanroom.backends.base import Backend
from cleanroom.errors import PolicyRefused, UsageError

if TYPE_CHECKING:
    from cleanroom.backends.keeper import KeeperProcess

HOMES = {"embedded": "cleanroom.backends.embedded:EmbeddedBackend"}  # name -> class made from run_id, scratch and journal
AUTOMATIC = ("embedded",)  # in the order in which `auto` asks them
LATER = ("docker", "podman", "kubernetes")
NAMES = ("auto", *HOMES, "memory")


def candidates(name: str) -> tuple[str, ...]:
    """The backends that `name` stands for, first choice first.

    Raises:
        UsageError: there is no such backend.
        PolicyRefused: this version or this system does not have it.
    """
    if name == "memory":
        return ("memory",)
    if name in LATER:
        raise PolicyRefused(
            "CR-BACKEND-001", f"backend {name!r}: this version has {', '.join(NAMES)}", hint='use backend = "embedded", or leave it "auto"'
        )
    if name not in NAMES:
        raise UsageError("CR-BACKEND-002", f"backend {name!r}: expected one of {', '.join((*NAMES, *LATER))}")
    if not sys.platform.startswith("linux"):
        raise PolicyRefused(
            "CR-BACKEND-003",
            f"backend {name!r} needs Linux, this is {sys.platform}",
            hint="run on Linux (a virtual machine or CI will do); `plan` and `doctor` work here",
        )
    return AUTOMATIC if name == "auto" else (name,)


def ahead(name: str | None, cache: Path) -> KeeperProcess | None:
    """Start what most runs need while the plan is still being read. None where `name` rules it out; whoever gets it hands it to `make` or abandons it."""
    if name not in (None, "auto", "embedded") or not sys.platform.startswith("linux"):
        return None
    from cleanroom.backends.keeper import KeeperProcess, nearest_folder

    return KeeperProcess(probe=str(nearest_folder(cache / "runs")))


def make(name: str, *, run_id: str, scratch: Path, journal: Path, keeper: KeeperProcess | None = None) -> Backend:
    """The backend called `name`, one of `candidates`. `keeper` was started ahead."""
    if name == "memory":
        from cleanroom.backends.memory import MemoryBackend

        return MemoryBackend()
    module, _, attribute = HOMES[name].partition(":")
    further = {} if keeper is None or name != "embedded" else {"keeper": keeper}
    backend: Backend = getattr(importlib.import_module(module), attribute)(run_id=run_id, scratch=scratch, journal=journal, **further)
    return backend
