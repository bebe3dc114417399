"""Packs the service into one runnable file.

Order and times are fixed, so that the same source gives the same bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the first moment a zip file can name
START = b"import sys\nfrom shop.__main__ import main\nsys.exit(main(sys.argv[1:]))\n"


def build(target: Path) -> None:
    sources = sorted(path for path in Path("shop").rglob("*") if path.suffix in (".py", ".sql"))
    target.parent.mkdir(exist_ok=True)
    with ZipFile(target, "w", ZIP_DEFLATED) as archive:
        archive.writestr(ZipInfo("__main__.py", LONG_AGO), START)
        for path in sources:
            archive.writestr(ZipInfo(path.as_posix(), LONG_AGO), path.read_bytes())
    print(f"{target}: {len(sources)} files, {target.stat().st_size} bytes")


if __name__ == "__main__":
    build(Path(sys.argv[1]))
