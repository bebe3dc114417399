"""How much slower is real work in an environment?

Workload, bare and sandboxed in turn with the same interpreter and variables,
each side in a folder of its own with the same content: compiling packages of the standard library
to bytecode, importing many modules of it, running a hundred tests with pytest (the shop's own),
each of which writes and reads files and starts a program,
and unpacking a tar archive of 4,000 small files.
In the sandbox they run in one open environment at policy Medium,
and what they write goes to the workspace's layer.
Unit: milliseconds, and the ratio of neighbours.
Unpacking is measured once more where no call is held, as for
services: that is its floor, what namespaces, Landlock and the overlay cost by themselves.

Both sides work in memory where that is possible (/dev/shm, Linux 6.6 or newer),
and the figures say so: a disk's journal makes the same 4,000 files cost between 0.1 and 2.5
seconds, bare as sandboxed, which hides what is asked for.
Without the disk's share the ratio is the least favourable one.
The target for builds and tests is that of compiling, importing and testing;
unpacking is nothing but system calls and has one of its own.
"""

from __future__ import annotations

import io
import os
import random
import re
import shutil
import sysconfig
import tarfile
import tempfile
from pathlib import Path

import anyio
import msgspec

from bench.doors import PYTHON, bare, inside, needed, sandbox
from bench.figures import BenchmarkFailed, Figure, compared
from bench.machine import ROOT

# an overlay's extended attributes are kept there since then
MEMORY, MEMORY_BYTES, MEMORY_KERNEL = "/dev/shm", 512 << 20, (6, 6)
RATIO, UNPACKING_RATIO = 1.10, 2.2  # builds and tests: at most 10 %
FILES, FOLDERS, BYTES = 4_000, 40, 2_000
UNPACKING = "mkdir NAME-{round} && tar -xf files.tar -C NAME-{round}"
PACKAGES = ("json", "asyncio", "email", "unittest")
PYTEST = ("pytest", "_pytest", "py.py", "pluggy", "iniconfig", "packaging", "pygments")
TESTS = """
import json, subprocess, pytest

@pytest.mark.parametrize("number", range(COUNT))
def test_files(number, tmp_path):
    for name in range(5):
        (tmp_path / f"{name}.json").write_text(json.dumps({"n": [number] * 50}))
    assert sum(len(json.loads(path.read_text())["n"]) for path in tmp_path.iterdir()) == 250
    if number % 10 == 0:
        assert subprocess.run(["true"]).returncode == 0
"""
MODULES = (
    "argparse asyncio concurrent.futures csv ctypes dataclasses decimal difflib doctest "
    "email.mime.text fractions ftplib hashlib html.parser "
    "http.server inspect ipaddress json logging.handlers mailbox multiprocessing.pool "
    "optparse pdb pickle pprint pydoc random shelve smtplib sqlite3 "
    "ssl statistics tarfile tempfile tomllib unittest.mock urllib.request uuid "
    "xml.etree.ElementTree xmlrpc.client zipfile"
)


def measure(small: bool) -> list[Figure]:
    return anyio.run(_measure, small, 1 if small else 5)


async def _measure(small: bool, rounds: int) -> list[Figure]:
    needed("tar")
    place = _memory()
    with tempfile.TemporaryDirectory(prefix="bench-work-", dir=place) as name:
        folder = Path(name)
        files = 200 if small else FILES
        _fill(folder / "project", files, PACKAGES[:1] if small else PACKAGES)
        _fill_tests(folder / "project", 5 if small else 100)
        shutil.copytree(folder / "project", folder / "bare")
        works = {
            "compiling": f"'{PYTHON}' -I -m compileall -q -f sources",
            "importing": f"'{PYTHON}' -I -c 'import {', '.join(MODULES.split())}'",
            "testing": (
                f"PYTHONPATH=packages '{PYTHON}' -m pytest -q -p no:cacheprovider "
                f"--basetemp=temporary-{{round}} tests"
            ),
            f"unpacking {files:,} files": UNPACKING.replace("NAME", "unpacked"),
        }
        figures: list[Figure] = []
        async with sandbox(folder) as cage, cage.stack(), cage.environment() as environment:
            for title, work in works.items():
                pairs = []
                for number in range(rounds + 1):
                    command = work.replace("{round}", str(number))
                    pairs.append(
                        (bare(folder / "bare", command), await inside(environment, command))
                    )
                # The first round fills the page cache and, inside, copies up what is rewritten.
                target = UNPACKING_RATIO if title.startswith("unpacking") else RATIO
                figures += compared(
                    "work", f"{title}, sandboxed", f"{title}, bare", pairs[1:], ratio_at_most=target
                )
        figures.append(await _floor(folder, rounds, f"unpacking {files:,} files, nothing held"))
    return [
        msgspec.structs.replace(figure, note="in memory" if place else "on disk")
        for figure in figures
    ]


async def _floor(folder: Path, rounds: int, title: str) -> Figure:
    """Unpacking in an environment of which no call is held, by the same in the bare."""
    pairs = []
    async with sandbox(folder) as cage, cage.stack(), cage.environment(held=False) as environment:
        for number in range(rounds + 1):
            command = UNPACKING.replace("NAME", "floor").replace("{round}", str(number))
            pairs.append((bare(folder / "bare", command), await inside(environment, command)))
    return compared("work", title, "", pairs[1:])[-1]


def _fill_tests(project: Path, count: int) -> None:
    """Tests, and the pytest of the shop's environment that runs them."""
    library = next(
        (ROOT / "examples" / "shop" / ".venv" / "lib").glob("python3*/site-packages"), None
    )
    if library is None:
        raise BenchmarkFailed("examples/shop has no .venv; `make shop` makes it")
    (project / "packages").mkdir()
    for name in PYTEST:
        copy = shutil.copytree if (library / name).is_dir() else shutil.copyfile
        copy(library / name, project / "packages" / name)
    (project / "tests").mkdir()
    (project / "tests" / "test_work.py").write_text(TESTS.replace("COUNT", str(count)))


def _memory() -> str | None:
    """A folder in memory that is large enough and can hold a workspace's layers;
    None where there is none.
    """
    version = re.match(r"(\d+)\.(\d+)", os.uname().release)
    kernel = (int(version[1]), int(version[2])) if version else (0, 0)
    if kernel < MEMORY_KERNEL or not os.access(MEMORY, os.W_OK) or not os.path.ismount(MEMORY):
        return None
    free = os.statvfs(MEMORY)
    return MEMORY if free.f_bavail * free.f_frsize >= MEMORY_BYTES else None


def _fill(project: Path, files: int, packages: tuple[str, ...]) -> None:
    """Sources to compile and an archive to unpack, the same bytes every time."""
    library = Path(sysconfig.get_path("stdlib"))
    for package in packages:
        shutil.copytree(
            library / package,
            project / "sources" / package,
            ignore=shutil.ignore_patterns("__pycache__", "test*"),
        )
    rng = random.Random(42)
    with tarfile.open(project / "files.tar", "w") as archive:
        for number in range(files):
            entry = tarfile.TarInfo(f"folder-{number % FOLDERS}/file-{number}")
            entry.size = rng.randrange(BYTES)
            archive.addfile(entry, io.BytesIO(rng.randbytes(entry.size)))
