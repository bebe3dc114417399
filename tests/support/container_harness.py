"""What the tests of the container backends share: which engines are there, and a backend in each.

An engine that is not there skips its tests with the reason;
one that CLEANROOM_REQUIRE names (docker, podman) fails them.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from cleanroom.backends.base import Backend
from cleanroom.backends.containers.client import EngineName, find_socket, inspect_image
from cleanroom.backends.registry import make
from cleanroom.model.errors import CleanroomError
from cleanroom.sandbox.processes import container_cleanup
from support.open_folders import journal_at
from support.required_tools import require_or_skip

ENGINES: tuple[EngineName, ...] = ("docker", "podman")
IMAGE = "cleanroom/base"
# pid 1 is built once for all tests of a process, in a folder that nobody can have laid anything
# into before
CACHE = Path(tempfile.mkdtemp(prefix="cleanroom-tests-"))
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)


@functools.cache
def lacking(name: EngineName, *images: str) -> str:
    """Why the tests of this engine cannot be run here; empty where they can."""
    try:
        socket = find_socket(name, os.environ)
        container_cleanup.call(socket, "GET", "/_ping")
        for image in images or (IMAGE,):
            inspect_image(name, socket, image)
    except (CleanroomError, OSError) as error:
        return f"{error}; {getattr(error, 'hint', '')}"
    return ""


def require(name: EngineName, *images: str) -> None:
    """Skip, or fail where the engine is required. Only root may use one, so others always skip."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("the container backends run on Linux as root")
    if reason := lacking(name, *images):
        require_or_skip(name, reason)


def backend(name: EngineName, run_id: str, scratch: Path, journal: Path) -> Backend:
    return make(
        name,
        run_id=run_id,
        scratch=scratch,
        journal=journal_at(journal),
        cache=CACHE,
        caller=os.environ,
    )


def labelled(name: EngineName, run_id: str) -> list[str]:
    """The names of a run's containers."""
    return [
        found.name for found in container_cleanup.labelled(find_socket(name, os.environ), run_id)
    ]


def inspected(name: EngineName, run_id: str) -> list[dict[str, object]]:
    """What the engine says of a run's containers."""
    socket = find_socket(name, os.environ)
    rows = []
    for found in container_cleanup.labelled(socket, run_id):
        status, row = container_cleanup.call(socket, "GET", f"/containers/{found.identity}/json")
        assert status == 200, json.dumps(row)
        rows.append(row)
    return rows
