"""Which backends exist, and making one by name.

A backend's module is imported when it is asked for.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cleanroom.backends.base import Backend
from cleanroom.model.capability import CapabilityReport
from cleanroom.model.errors import PolicyRefused, UsageError
from cleanroom.model.policy import Level

if TYPE_CHECKING:
    from cleanroom.backends.embedded.keeper_process import KeeperProcess
    from cleanroom.sandbox.journal import Journal

# name -> class made from run_id, scratch and journal; those of containers also from the engine's
# name, the cache folder and the caller's environment
HOMES = {
    "embedded": "cleanroom.backends.embedded.backend:EmbeddedBackend",
    "docker": "cleanroom.backends.containers.backend:ContainerBackend",
    "podman": "cleanroom.backends.containers.backend:ContainerBackend",
}
CONTAINERS = ("docker", "podman")
# In the order in which `auto` asks them.
# Those of containers are asked for by name: they need what the embedded one needs and root and an
# engine besides,
# so where that one cannot hold a policy they cannot either.
AUTOMATIC = ("embedded",)
LATER = ("kubernetes",)
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
            "CR-BACKEND-001",
            f"backend {name!r}: this version has {', '.join(NAMES)}",
            hint='use backend = "embedded", or leave it "auto"',
        )
    if name not in NAMES:
        raise UsageError(
            "CR-BACKEND-002", f"backend {name!r}: expected one of {', '.join((*NAMES, *LATER))}"
        )
    if not sys.platform.startswith("linux"):
        raise PolicyRefused(
            "CR-BACKEND-003",
            f"backend {name!r} needs Linux, this is {sys.platform}",
            hint="run on Linux (a virtual machine or CI will do); `plan` and `doctor` work here",
        )
    return AUTOMATIC if name == "auto" else (name,)


def make(
    name: str,
    *,
    run_id: str,
    scratch: Path,
    journal: Callable[[], Journal],
    keeper: KeeperProcess | None = None,
    cache: Path | None = None,
    caller: Mapping[str, str] = os.environ,
) -> Backend:
    """The backend called `name`, one of `candidates`.

    `journal` opens the run's, when there is something to write; `keeper` was started ahead;
    `cache` is the user's cache folder, the run's own if none is given.
    """
    if name == "memory":
        from cleanroom.backends.memory.backend import MemoryBackend

        return MemoryBackend()
    module, _, attribute = HOMES[name].partition(":")
    further: dict[str, object] = {} if keeper is None else {"keeper": keeper}
    if name in CONTAINERS:
        further |= {"engine": name, "cache": cache or scratch, "caller": caller}
    backend: Backend = getattr(importlib.import_module(module), attribute)(
        run_id=run_id, scratch=scratch, journal=journal, **further
    )
    return backend


async def enter_first(
    stack: AsyncExitStack,
    names: Iterable[str],
    make_backend: Callable[[str], Backend],
    level: Level,
    refusal: Callable[[CapabilityReport], PolicyRefused | None],
) -> tuple[Backend, CapabilityReport]:
    """Enter the first of these backends that holds what is required, and return its probe's report.

    `make_backend` makes each backend by its name, `level` is what it is probed for.
    `refusal` judges the report: None accepts the backend.
    `stack` leaves every backend that was entered, also those that were refused.

    Raises:
        PolicyRefused: the last one's refusal: none holds it.
    """
    refused: PolicyRefused | None = None
    for name in names:
        backend = await stack.enter_async_context(make_backend(name))
        report = await backend.probe(level)
        refused = refusal(report)
        if refused is None:
            return backend, report
    assert refused is not None, "there is a candidate"
    raise refused


def require_parts(
    name: str, images: Iterable[str], *, caller: Mapping[str, str], cache: Path
) -> None:
    """See that all is there that the backend `name`, one of CONTAINERS,
    needs to run with these images.

    Blocks for some ms.

    Raises:
        BackendUnavailable: something is not; all that is missing is named, images too.
        PolicyRefused: all that is missing is root's rights.
        ProjectError: all that is missing is an image.
    """
    from cleanroom.backends.containers.requirements import inspect_machine, refusal

    if refused := refusal(inspect_machine(name, images, caller, shim=cache / "shim")):  # type: ignore[arg-type]
        raise refused


def image_reader(name: str, caller: Mapping[str, str]) -> Callable[[str], dict[str, Any]]:
    """What tells the description of an image that is there, as the engine of `name`,
    one of CONTAINERS, has it.

    Raises:
        BackendUnavailable: the engine is not there.
        ProjectError: (by the reader) the image is not.
    """
    from cleanroom.backends.containers.client import find_socket, inspect_image

    return partial(inspect_image, name, find_socket(name, caller))  # type: ignore[arg-type]
