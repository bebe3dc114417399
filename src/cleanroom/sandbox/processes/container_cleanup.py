"""Removing containers without the engine that made them:
over a container engine's socket, with the standard library only.

The keeper does it when its owner is gone, and `sweep` for runs that died together with their
keeper.
Both remove what bears our label and nothing else.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cleanroom.sandbox import journal

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import TrackContainer

# labels of everything that is made
RUN, OWNER, BOOT, NAMESPACE = (
    "cleanroom.run_id",
    "cleanroom.owner",
    "cleanroom.boot_id",
    "cleanroom.pid_namespace",
)
CALL_SECONDS = 10.0
# how long a container may still appear whose creation was asked for and not answered when the owner
# died
UNBORN_SECONDS = 2.0
PAUSE_SECONDS = 0.05


class Container(NamedTuple):
    """One that bears our label."""

    identity: str
    name: str
    run_id: str
    owner: str  # pid:start
    boot_id: str
    namespace: str  # the pid namespace in which the owner has its number
    made_unix: int


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=CALL_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def call(engine: str, method: str, target: str, body: bytes | None = None) -> tuple[int, Any]:
    """One request to the engine whose socket is at `engine`: status and decoded body.

    Raises:
        OSError: it cannot be reached, or does not answer in time.
    """
    connection = _Connection(engine)
    try:
        connection.request(
            method, target, body, {"Content-Type": "application/json"} if body else {}
        )
        answer = connection.getresponse()
        said = answer.read()
    except http.client.HTTPException as error:
        raise OSError(5, f"{method} {target}: {error}") from error
    finally:
        connection.close()
    with contextlib.suppress(ValueError):
        return answer.status, json.loads(said)
    return answer.status, None


def boot_id() -> str:
    """Names this boot of this machine: process numbers mean nothing beyond it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def pid_namespace() -> str:
    """Names this process's pid namespace."""
    return os.readlink("/proc/self/ns/pid")


def owner_labels(run_id: str) -> dict[str, str]:
    """The labels by which others tell whether this process's run is over."""
    return {
        RUN: run_id,
        OWNER: journal.process_name(os.getpid()),
        BOOT: boot_id(),
        NAMESPACE: pid_namespace(),
    }


def labelled(engine: str, run_id: str = "") -> list[Container]:
    """All containers of ours, also stopped ones, or those of one run."""
    wanted = {"label": [f"{RUN}={run_id}" if run_id else RUN]}
    query = urllib.parse.urlencode({"all": "true", "filters": json.dumps(wanted)})
    status, rows = call(engine, "GET", f"/containers/json?{query}")
    if status != 200:
        raise OSError(5, f"listing containers: status {status}")
    return list(_containers(rows or ()))


def _containers(rows: Any) -> Iterator[Container]:
    for row in rows:
        labels = row.get("Labels") or {}
        if RUN in labels:
            made = row.get("Created")
            name = str((row.get("Names") or [""])[0]).lstrip("/")
            yield Container(
                row["Id"],
                name,
                labels[RUN],
                labels.get(OWNER, ""),
                labels.get(BOOT, ""),
                labels.get(NAMESPACE, ""),
                made if isinstance(made, int) else 0,
            )


def remove(engine: str, identity: str, seconds: float = CALL_SECONDS) -> bool:
    """Remove one by force; True once it is seen to be gone.

    A removal that is under way is waited for.
    """
    deadline = time.monotonic() + seconds
    while True:
        status = 0
        with contextlib.suppress(OSError):
            status, _ = call(
                engine, "DELETE", f"/containers/{urllib.parse.quote(identity)}?force=true&v=true"
            )
        if status == 404:
            return True
        if time.monotonic() > deadline:
            return False
        if status not in (200, 204):
            time.sleep(PAUSE_SECONDS)


class Containers:
    """Those that the keeper's owner said it would make."""

    def __init__(self) -> None:
        self._asked: dict[str, TrackContainer] = {}  # name -> the order that announced it
        self._born: set[str] = set()

    def take(self, order: TrackContainer) -> None:
        """`step` is "asked" before one is created, "made" once the engine has said so,
        "gone" after it was removed.
        """
        name = order["name"]
        match order["step"]:
            case "asked":
                self._asked[name] = order
            case "made":
                self._born.add(name)
            case "gone":
                self._asked.pop(name, None)

    def remove(self, tell: Callable[[str, str], None]) -> None:
        """Remove all that is left, all at once since an engine takes its time for each,
        and `tell` kind and name of each that is gone.
        """
        threads = [
            threading.Thread(target=self._remove, args=(name, order, tell))
            for name, order in self._asked.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _remove(self, name: str, order: TrackContainer, tell: Callable[[str, str], None]) -> None:
        """One that may still be on its way is waited for a moment."""
        began = time.monotonic()
        gone = _remove_ours(order["engine"], order["run_id"], name)
        while gone and name not in self._born and time.monotonic() - began < UNBORN_SECONDS:
            time.sleep(PAUSE_SECONDS)
            gone = _remove_ours(order["engine"], order["run_id"], name)
        if gone:
            tell("container", name)


def _remove_ours(engine: str, run_id: str, name: str) -> bool:
    """Remove the run's container of that name; a stranger's of the same name is not touched.

    True where there is none, or none any more.
    """
    try:
        ours = [found.identity for found in labelled(engine, run_id) if found.name == name]
        return all(remove(engine, identity) for identity in ours)
    except OSError:
        return False
