"""pip's own cache of answers, filled by pip itself from files that were verified before.

It is how pip without a network has what a requirement names by its address. A proxy on the loopback
answers for the address, and pip does not look whose certificate it has.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cleanroom.dependencies.model import Overlay, Problem, Stored
from cleanroom.dependencies.pip_report import COMMAND
from cleanroom.dependencies.session import SERVED, WORK, Session, ToolRun
from cleanroom.dependencies.store import take_folder

CACHE = "pip-cache"  # in a view, and in the folder that pip starts in
_NAMES = "addresses.in"
# The pip of an environment that a phase makes may be an older one, with a cache of its own layout.
_FILL = """
fill() {
    "$@" -m pip download --no-input --disable-pip-version-check --progress-bar off --quiet \\
        --no-deps --no-index --dest /tmp/wheels --requirement addresses.in
}
fill $python
if python3 -m venv /tmp/environment; then fill /tmp/environment/bin/python; fi
"""


async def lay_out(
    session: Session, wheels: Sequence[Stored], versions: dict[str, bytes], view: Path
) -> None:
    """The cache with these wheels, each under its address; a failure is noted.

    `versions`: what chooses the interpreter.
    """
    if not wheels:
        return
    lines = [f"{one.artifact.name} @ {one.artifact.url}\n" for one in wheels]
    hosts = dict.fromkeys(urlsplit(one.artifact.url).netloc for one in wheels)
    result = await session.run(
        ToolRun(
            ["sh", "-ec", COMMAND + _FILL],
            files={_NAMES: "".join(lines).encode(), **versions},
            variables={
                "PIP_CONFIG_FILE": "/dev/null",
                "PIP_CACHE_DIR": f"{WORK}/{CACHE}",
                "PIP_PROXY": SERVED,
                "PIP_TRUSTED_HOST": " ".join(hosts),
            },
            served={_path(one.artifact.url): session.file(one) for one in wheels},
        )
    )
    if result.exit_code:
        last = result.output.decode(errors="replace").strip().splitlines()[-1:]
        why = f"`pip install` will not find it: {shlex.join(last)[-300:]}"
        for one in wheels:
            session.note(Problem(entry=f"{one.artifact.name} @ {one.artifact.url}", why=why))
        return
    take_folder(result.folder / CACHE, view / CACHE)


def access(view: str) -> tuple[dict[str, str], tuple[Overlay, ...]]:
    """Variables and folders of phases: pip writes to its cache, so it is copy-on-write."""
    cache = f"{view}/{CACHE}"
    if not Path(cache).is_dir():
        return {}, ()
    return {"PIP_CACHE_DIR": cache}, (Overlay(cache, cache),)


def _path(url: str) -> str:
    """Where the server has the file of an address."""
    parts = urlsplit(url)
    return f"/{parts.netloc}{unquote(parts.path)}"
