"""Make the picture of a run from its event log.

python scripts/readme_picture.py .ggen/cleanroom/runs/RUN/events.jsonl docs/run.svg
"""

from __future__ import annotations

import sys
from pathlib import Path

from cleanroom.core.files import hold, write_atomic
from cleanroom.evidence.reports.fold import fold
from cleanroom.evidence.reports.timeline import timeline
from cleanroom.model.events import decode


def main(source: str, target: str) -> None:
    result = fold(decode(line) for line in Path(source).read_bytes().splitlines())
    with hold(Path(target).parent) as folder:
        write_atomic(folder, Path(target).name, timeline(result).encode() + b"\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
