"""Folders of a server's client programs, on PATH of the phases that name it.

A client of another version is of little use: pg_dump refuses a newer server, and psql's commands
read catalogs that change.
Only the clients are there: pg_config beside them would be taken by whoever builds a driver.

On the host they are links, first on PATH.
The programs of an image are copied out of it with their libraries and the loader that belongs to
them, since a phase's image may have others or none. They are last on PATH: what the phase's image
has itself goes before.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

# A shell function. Fills the folder $1, which phases see as $2, from the folder of programs of the
# server $3; the names of the clients follow. A program names its loader by a path that is the
# image's, so each is started by a script, which names ours.
COPY_CLIENTS = r"""
copy_clients() {
  made=$1 shown=$2
  from=$(dirname "$(readlink -f "$(command -v "$3")")")
  shift 3
  mkdir -p "$made/.files"
  for name in "$@"; do
    [ -x "$from/$name" ] || continue
    needed=$(ldd "$from/$name" | sed -n 's/^[[:space:]]*\(.* => \)\{0,1\}\(\/[^ ]*\) (.*/\2/p')
    loader=
    for file in $needed; do
      case ${file##*/} in ld-*|ld.so*) loader=${file##*/} ;; esac
      [ -e "$made/.files/${file##*/}" ] || cp -L "$file" "$made/.files/" || continue 2
    done
    [ -n "$loader" ] || continue
    cp -L "$from/$name" "$made/.files/$name" || continue
    printf '#!/bin/sh\nexec %s/%s --library-path %s %s/%s "$@"\n' \
      "$shown/.files" "$loader" "$shown/.files" "$shown/.files" "$name" >"$made/$name"
    chmod 755 "$made/$name"
  done
  chmod -R a+rX "$made"
}
"""


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
