"""Folders of links to a server's client programs, first on PATH of the phases that name it.

A client of another version is of little use: pg_dump refuses a newer server, and psql's commands
read catalogs that change.
Only the clients are linked: pg_config beside them would be taken by whoever builds a driver.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec


def link_clients(
    folder: Path, programs: Mapping[str, str], files: Mapping[str, str] | None = None
) -> str:
    """A folder below `folder` with these links, name -> program, and these files, name -> text; ""
    where there is nothing to link, or it cannot be written.

    Blocks. Its name tells its content, so that it is made once.
    """
    files = files or {}
    if not programs and not files:
        return ""
    content = msgspec.json.encode((programs, files), order="sorted")
    digest = hashlib.sha256(content).hexdigest()
    made = folder / digest[:16]
    if made.is_dir():
        return str(made)
    building = folder / f"{digest[:16]}.{secrets.token_hex(4)}"
    try:
        building.mkdir(parents=True)
        for name, program in programs.items():
            (building / name).symlink_to(program)
        for name, text in files.items():
            (building / name).write_text(text)
        # another process may have been faster
        with suppress(OSError):
            building.rename(made)
    except OSError:
        return ""
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return str(made) if made.is_dir() else ""
