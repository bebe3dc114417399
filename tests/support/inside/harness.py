"""Carries a row out: by a shell outside, and by the real command in each column."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.attacks.host_harness import LIBRARIES, Column, subprocess_user, variables
from support.inside.rows import Row
from support.ordinary_user import ORDINARY, readable_python
from support.paths import OLDER_KERNEL
from support.tiers_harness import wait_until

_PROGRAMS = Path(__file__).parents[1] / "phase_programs"
# They lie in each project.
PROGRAMS = tuple(
    _PROGRAMS / name for name in ("random_tree.py", "asked_service.py", "service_client.py")
)
SECONDS = 100.0
# Of a row that is slow everywhere.
SLOW_SECONDS = 300.0
# rustup finds its toolchains in the home folder, which is another one here.
TOOLCHAIN = {
    "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", str(Path("~/.rustup").expanduser())),
}
COLUMNS = (
    Column("root Medium", "Medium"),
    Column("user Medium", "Medium", ORDINARY, ORDINARY),
    Column("root High", "High"),
    Column("E3", "Medium", tier="E3"),
)
# Where there is an engine.
CONTAINERS = (Column("docker", "Medium", backend="docker"),)


@contextmanager
def project(row: Row, column: Column | None) -> Iterator[Path]:
    """The project of a row, prepared, and owned by the column's user."""
    base = "/var/lib" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="inside-", dir=base) as folder:
        top = Path(folder, "project")
        top.mkdir(mode=0o755)
        Path(folder).chmod(0o755)
        if column is not None and subprocess_user(column):
            os.chown(folder, column.user, column.user)
            os.chown(top, column.user, column.user)
        for program in PROGRAMS:
            shutil.copy(program, top)
        done = shell(row.prepare, top, column)
        assert done.returncode == 0, done.stdout
        yield top / row.inside


def shell(command: str, where: Path, column: Column | None) -> subprocess.CompletedProcess[str]:
    """A shell command outside, as the column's user."""
    who = subprocess_user(column) if column is not None else {}
    return subprocess.run(
        ["sh", "-c", command],
        cwd=where,
        env={**TOOLCHAIN, "PATH": os.environ["PATH"], "HOME": str(where), "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        umask=0o022,
        **who,
    )


def outside(row: Row) -> list[str]:
    """What failed when shells carried the row out, and what was there afterwards."""
    with project(row, None) as where, _service(row, where):
        for command in row.phases:
            done = shell(command, where, None)
            if done.returncode:
                return [done.stdout]
        return [] if shell(row.check, where, None).returncode == 0 else [row.check]


@contextmanager
def _service(row: Row, where: Path) -> Iterator[None]:
    """The service of a row, started outside; it listens when this returns."""
    if not row.service:
        yield
        return
    serving = subprocess.Popen(row.service, cwd=where)
    try:
        assert wait_until(lambda: _listens(row.port), 20)
        yield
    finally:
        serving.kill()
        serving.wait()


def _listens(port: int) -> bool:
    with socket.socket() as end:
        return end.connect_ex(("127.0.0.1", port)) == 0


def inside(row: Row, column: Column) -> list[str]:
    """What failed when phases of the command carried the row out."""
    with project(row, column) as where:
        _write(row, where, column)
        done = _call(row, where, column)
        if done.returncode:
            return [done.stdout]
        checked = shell(row.check, where, column)
        return [] if checked.returncode == 0 else [row.check, checked.stdout, done.stdout]


def _write(row: Row, where: Path, column: Column) -> None:
    lines = ["[project]", 'name = "inside"', "[cleanroom]", f'policy = "{column.level}"']
    if column.backend != "embedded":
        lines.append('image = "cleanroom/base"')
    for number, command in enumerate(row.phases):
        lines += [f"[lifecycle.p{number}]", f"command = {json.dumps(command)}"]
        lines += [f"cleanroom.{key} = {value}" for key, value in row.settings.items()]
        lines += ['cleanroom.containers = ["asked"]'] if row.service else []
    if row.service:
        lines += ["[cleanroom.services.asked]", f"command = {json.dumps(list(row.service))}"]
        lines.append(f"ready = {{ tcp = {row.port} }}")
        lines += ['image = "cleanroom/base"'] if column.backend != "embedded" else []
    (where / "make.toml").write_text("\n".join(lines) + "\n")


def _call(row: Row, where: Path, column: Column) -> subprocess.CompletedProcess[str]:
    who = subprocess_user(column)
    python = readable_python(LIBRARIES, who) if who else sys.executable
    phases = [f"p{number}" for number in range(len(row.phases))]
    words = [python, "-B", "-m", "cleanroom", "pipeline", *phases, "--backend", column.backend]
    if column.tier:
        words = [python, "-B", str(OLDER_KERNEL), "namespaces", "--", *words]
    home = where.parent if row.inside == "." else where.parents[1]
    return subprocess.run(
        words,
        cwd=where,
        env={**TOOLCHAIN, **variables(), "HOME": str(home), "CLEANROOM_CACHE": str(home / "cache")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=SLOW_SECONDS if row.slow else SECONDS,
        umask=0o022,
        **who,
    )
