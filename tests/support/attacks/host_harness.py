"""Carries the attacks on the host's side out: whole runs of the real command,
as whoever a column says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio

from support.attacks.host import Host, HostAttack, RunResult, harmed, inventory, plant
from support.ordinary_user import ORDINARY, readable_python
from support.paths import OLDER_KERNEL, SOURCE

LIBRARIES = str(Path(anyio.__file__).parents[1])
RUN_SECONDS = 100.0


class Column(NamedTuple):
    """Who runs it, and how."""

    name: str
    level: str
    user: int = 0  # of the engine; 0 is whoever runs the tests
    owner: int = 0  # of the project
    tier: str = ""  # "E3": as in an ordinary container
    backend: str = "embedded"

    def takes(self, attack: HostAttack) -> bool:
        return self.level in attack.levels and (self.backend == "embedded" or attack.containers)


LEVELS = ("Low", "Medium", "High")
COLUMNS = (
    *(Column(f"root {level}", level) for level in LEVELS),
    *(Column(f"user {level}", level, ORDINARY, ORDINARY) for level in LEVELS),
    Column("root in a user's project, Low", "Low", 0, ORDINARY),
    Column("root in a user's project, Medium", "Medium", 0, ORDINARY),
    Column("root E3", "Medium", tier="E3"),
    Column("user E3", "Medium", ORDINARY, ORDINARY, "E3"),
    Column("docker", "Medium", backend="docker"),
)


@contextmanager
def host() -> Iterator[Host]:
    """A scratch host below a folder that no environment has of its own."""
    base = "/var/lib" if os.geteuid() == 0 else Path.home()
    with tempfile.TemporaryDirectory(prefix="cleanroom-host-", dir=base) as folder:
        Path(folder).chmod(0o755)
        made = Host(Path(folder, "project"), Path(folder, "outside"), Path(folder, "cache"))
        for path in made:
            path.mkdir(mode=0o755)
        yield made


def write(attack: HostAttack, on: Host, column: Column) -> None:
    """The project's make.toml, and what the repository brings."""
    image = ['image = "cleanroom/base"'] if column.backend != "embedded" else []
    lines = [
        "[project]",
        'name = "attacked"',
        "[cleanroom]",
        f'policy = "{column.level}"',
        *image,
        attack.settings,
    ]
    for name, command in attack.phases.items():
        lines += [f"[lifecycle.{name}]", f"command = {json.dumps(filled(command, on))}"]
        lines += [f"cleanroom.{key} = {value}" for key, value in attack.options.items()]
    (on.project / "make.toml").write_text("\n".join(lines) + "\n")
    if attack.prepare is not None:
        attack.prepare(on)


def filled(text: str, on: Host) -> str:
    return text.replace("{outside}", str(on.outside)).replace("{project}", str(on.project))


def give_ownership(on: Host, column: Column) -> None:
    """Give everything to the user of the column; the project to its owner."""
    if os.geteuid() != 0:
        return
    for top, user in (
        (on.project, column.owner),
        (on.outside, column.user),
        (on.cache, column.user),
    ):
        for path in (top, *top.rglob("*")):
            os.chown(path, user, user, follow_symlinks=False)


def call(attack: HostAttack, on: Host, column: Column) -> RunResult:
    """One run."""
    python = (
        readable_python(LIBRARIES, subprocess_user(column))
        if subprocess_user(column)
        else sys.executable
    )
    words = [python, "-B", "-m", "cleanroom", "pipeline", *attack.phases]
    words += ["--backend", column.backend, *attack.arguments]
    if column.tier:
        words = [python, "-B", str(OLDER_KERNEL), "namespaces", "--", *words]
    path = os.pathsep.join(filter(None, (filled(attack.path, on), variables()["PATH"])))
    done = subprocess.run(
        words,
        cwd=on.project,
        env=variables()
        | {"PATH": path, "HOME": str(on.cache), "CLEANROOM_CACHE": str(on.cache / "cleanroom")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=RUN_SECONDS,
        umask=0o022,
        **subprocess_user(column),
    )
    return RunResult(done.returncode, done.stdout)


def subprocess_user(column: Column) -> dict[str, Any]:
    if column.user == 0 or os.geteuid() != 0:
        return {}
    return {"user": column.user, "group": column.user, "extra_groups": []}


def variables() -> Mapping[str, str]:
    given = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("DOCKER_", "CONTAINER_"))
    }
    return given | {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",
        "PYTHONPATH": f"{SOURCE}:{LIBRARIES}",
    }


def carried_out(attack: HostAttack, column: Column) -> tuple[list[str], list[RunResult]]:
    """What was harmed, and what the runs said."""
    with host() as on:
        plant(on)
        write(attack, on, column)
        give_ownership(on, column)
        before = inventory(on)
        said = [call(attack, on, column) for _ in range(attack.runs)]
        return harmed(on, before, attack, said), said
