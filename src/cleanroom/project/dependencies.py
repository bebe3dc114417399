"""Packages that a phase's command needs and that are not in the project: what would put them there.

Reads a few names in the project's folder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from cleanroom.core.files import is_folder, is_there, open_to_read
from cleanroom.model.policy import Policy

_READ_MAX = 4 << 20  # of a lock file: the first megabytes tell whether it names any package


class _Manager(NamedTuple):
    programs: str  # words that call it
    missing: Callable[[Path], bool]
    helps: str


def missing_dependencies(root: Path, commands: Sequence[str], policy: Policy) -> str:
    """What helps a phase that has no network and whose package manager would need one;
    empty where nothing is missed.
    """
    if not policy.offline:
        return ""
    text = "\n".join(commands)
    found = (
        manager
        for manager in _MANAGERS
        if re.search(rf"(?:^|[\s;&|(/])(?:{manager.programs})(?:\s|$)", text)
    )
    return next((manager.helps for manager in found if manager.missing(root)), "")


def _cargo(root: Path) -> bool:
    return (
        "registry+" in _text(root / "Cargo.lock")
        and not is_folder(root / "vendor")
        and "[source." not in _text(root / ".cargo/config.toml")
    )


def _go(root: Path) -> bool:
    return bool(_text(root / "go.sum").strip()) and not is_folder(root / "vendor")


def _node(root: Path) -> bool:
    wanted = re.search(r'"(?:devD|d)ependencies"\s*:\s*\{\s*"', _text(root / "package.json"))
    return (
        wanted is not None
        and not is_folder(root / "node_modules")
        and not is_there(root / ".pnp.cjs")
    )


def _text(file: Path) -> str:
    try:
        with open_to_read(file) as stream:
            return stream.read(_READ_MAX).decode(errors="replace")
    except OSError:
        return ""


_WHY = "phases have no network, and its packages are not in the project"
_MANAGERS = (
    _Manager(
        "cargo",
        _cargo,
        f"{_WHY}: run `mkdir -p .cargo && cargo vendor >> .cargo/config.toml` before",
    ),
    _Manager("go", _go, f"{_WHY}: run `go mod vendor` before"),
    _Manager("npm|npx|node|yarn|pnpm", _node, f"{_WHY}: run `npm ci` (or its like) before"),
)
