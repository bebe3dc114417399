"""The real ggen with `lifecycle`, for tests and for trying the engine under it:
`python scripts/ggen.py` prints where it is, and builds it if need be.

The program is `ggen` on PATH, else ggen-VERSION.xz in the folder CLEANROOM_TOOLS,
else it is built from its crate: about 40 minutes on one processor, once per user.
Needs Cargo, and libclang for one of its crates (Debian: libclang-dev).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import tools

VERSION = "1.2.0"  # the only published version with `ggen lifecycle`


def build() -> Path:
    """Built from crates.io, with the dependencies that its lock file names."""
    if not shutil.which("cargo"):
        sys.exit("make ggen needs a `ggen` on PATH, CLEANROOM_TOOLS, or Cargo to build it")
    print(f"building ggen {VERSION} from its crate, which takes long", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=tools.folder(), prefix=".") as folder:
        subprocess.run(
            ["cargo", "install", f"ggen@{VERSION}", "--locked", "--root", folder], check=True
        )
        return Path(folder, "bin", "ggen").rename(tools.folder() / f"ggen-{VERSION}")


if __name__ == "__main__":
    print(tools.find("ggen") or build())
