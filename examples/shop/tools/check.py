"""Every file compiles, and migrations are numbered from 001 without a gap."""

from __future__ import annotations

import sys
from pathlib import Path


def problems() -> list[str]:
    found = []
    for path in sorted(Path().glob("[!.]*/**/*.py")):
        try:
            compile(path.read_bytes(), path, "exec")
        except SyntaxError as error:
            found.append(f"{path}:{error.lineno}: {error.msg}")
    names = sorted(path.name for path in Path("shop/migrations").glob("*.sql"))
    for number, name in enumerate(names, 1):
        if not name.startswith(f"{number:03}_"):
            found.append(f"shop/migrations/{name}: expected number {number:03}")
    return found


if __name__ == "__main__":
    sys.exit("\n".join(problems()) or 0)
