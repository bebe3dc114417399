"""Removing containers over a container engine's socket, with the standard library only.

The keeper does it when its owner is gone, and `sweep` for runs that died with their keeper.
Both remove containers with our label and nothing else.
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

# labels of every container
RUN, OWNER, BOOT, NAMESPACE = (
    "cleanroom.run_id",
    "cleanroom.owner",
    "cleanroom.boot_id",
    "cleanroom.pid_namespace",
)
CALL_SECONDS = 10.0
# A creation that was requested and not answered when the owner died may still make a container.
UNBORN_SECONDS = 2.0
PAUSE_SECONDS = 0.05


class Container(NamedTuple):
    """A container with our label.

    `owner` is PID:START, `namespace` the pid namespace in which the owner has that pid.
    """

    identity: str
    name: str
    run_id: str
    owner: str
    boot_id: str
    namespace: str
    made_unix: int


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=CALL_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        # An ordinary user connects only with the right to write to the socket (unix(7)).
        self.sock.connect(self._path)


def call(engine: str, method: str, target: str, body: bytes | None = None) -> tuple[int, Any]:
    """Send one request to the engine whose socket is at `engine`; returns status and decoded body.

    Raises:
        OSError: the engine cannot be reached, or does not answer in time.
    """
    connection = _Connection(engine)
    try:
        connection.request(
            method, target, body, {"Content-Type": "application/json"} if body else {}
        )
        answer = connection.getresponse()
        content = answer.read()
    except http.client.HTTPException as error:
        raise OSError(5, f"{method} {target}: {error}") from error
    finally:
        connection.close()
    with contextlib.suppress(ValueError):
        return answer.status, json.loads(content)
    return answer.status, None


def boot_id() -> str:
    """Identifies this boot of this machine: pids are not comparable across boots (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def pid_namespace() -> str:
    """Identifies this process's pid namespace (namespaces(7))."""
    return os.readlink("/proc/self/ns/pid")


def owner_labels(run_id: str) -> dict[str, str]:
    """The labels from which another process learns whether this process's run is over."""
    return {
        RUN: run_id,
        OWNER: journal.process_name(os.getpid()),
        BOOT: boot_id(),
        NAMESPACE: pid_namespace(),
    }


def labelled(engine: str, run_id: str = "") -> list[Container]:
    """All containers with our label, stopped ones too, or those of one run.

    Raises:
        OSError: the engine cannot be reached, or refuses to list them.
    """
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
    """Remove a container by force, or wait for a removal under way; True once it is gone."""
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
    """Containers that the keeper's owner announced."""

    def __init__(self) -> None:
        # The order that announced a container, by its name.
        self._announced: dict[str, TrackContainer] = {}
        self._created: set[str] = set()

    def track(self, order: TrackContainer) -> None:
        """Follow one step: "asked" before a creation, "made" after it, "gone" after the removal."""
        name = order["name"]
        match order["step"]:
            case "asked":
                self._announced[name] = order
            case "made":
                self._created.add(name)
            case "gone":
                self._announced.pop(name, None)

    def remove(self, report_gone: Callable[[str, str], None]) -> None:
        """Remove every container that is left; call `report_gone` with kind and name of each.

        In a thread each: an engine takes seconds for one.
        """
        threads = [
            threading.Thread(target=self._remove, args=(name, order, report_gone))
            for name, order in self._announced.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _remove(
        self, name: str, order: TrackContainer, report_gone: Callable[[str, str], None]
    ) -> None:
        """Remove one; where its creation was not answered, look for it again for a while."""
        began = time.monotonic()
        gone = _remove_ours(order["engine"], order["run_id"], name)
        while gone and name not in self._created and time.monotonic() - began < UNBORN_SECONDS:
            time.sleep(PAUSE_SECONDS)
            gone = _remove_ours(order["engine"], order["run_id"], name)
        if gone:
            report_gone("container", name)


def _remove_ours(engine: str, run_id: str, name: str) -> bool:
    """Remove the run's container of that name, and no other run's; True if there is none left."""
    try:
        ours = [found.identity for found in labelled(engine, run_id) if found.name == name]
        return all(remove(engine, identity) for identity in ours)
    except OSError:
        return False
