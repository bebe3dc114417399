"""What of a project leads out of it, to files that its phases are not shown.

Links of the file system, and what manifests name with `..`: path dependencies of cargo, npm, Go,
pip, uv and Poetry.
Read as text and bounded: a manifest that says more than is read here is no error.
Blocks.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cleanroom.core.paths import is_within
from cleanroom.project.tools import SYSTEM, editable_installs, is_private

FOUND_MAX = 20
_ENTRIES_MAX = 5_000
# A monorepo's packages lie two or three folders deep.
_DEPTH_MAX = 4
_BYTES_MAX = 1 << 20
_MANIFESTS = re.compile(
    r"Cargo\.toml|package\.json|go\.mod|go\.work|pyproject\.toml|setup\.cfg|Pipfile|"
    r"[a-z-]*requirements[a-z-]*\.(txt|in)|pnpm-workspace\.yaml|composer\.json|Gemfile|"
    r"build\.gradle(\.kts)?|settings\.gradle(\.kts)?|tsconfig[a-z.]*\.json"
)
# A word of a manifest that goes up, after a quote, a blank, `=`, or a scheme such as `file:`.
_UPWARDS = re.compile(r"(?:^|[\s\"'=(:@,\[])((?:\./)?\.\./[^\s\"',;#)\]]*|\.\.)(?=$|[\s\"',;#)\]])")
_SKIPPED = frozenset((".git", ".ggen", ".hg", "__pycache__", ".venv", "venv", ".tox", ".nox"))
_PACKAGES = ("node_modules",)


class Outward(NamedTuple):
    """One thing that leads out."""

    # a path in the project, with the line of a manifest
    name: str
    # where it leads, outside of the project
    to: str

    @property
    def shown_by(self) -> str:
        """The folder that `cleanroom.tools` has to name."""
        return self.to if os.path.isdir(self.to) else os.path.dirname(self.to)


def find(
    root: str, shown: Sequence[str], home: str, installs: Sequence[str] = ()
) -> tuple[Outward, ...]:
    """What leads from the project at `root` to existing paths that are not in the folders `shown`.

    `installs` are folders from which its virtual environment uses packages.
    Nothing of the caller's `home` that is private is among them: nobody is told to show that.
    In the order of names, FOUND_MAX at most.
    """
    top = os.path.realpath(root)
    found: dict[Outward, None] = {}
    for name, target in (*((".venv", path) for path in installs), *_leads(top)):
        end = os.path.realpath(target)
        inside = any(is_within(end, folder) for folder in (top, *map(os.path.realpath, shown)))
        # A project below what it leads to, as a package of a monorepo to its root: all would be
        # shown, the project's own siblings too.
        may_be_shown = not is_within(top, end) and not is_private(end, home)
        if not inside and may_be_shown and os.path.exists(end):
            found.setdefault(Outward(name, end))
        if len(found) >= FOUND_MAX:
            break
    return tuple(sorted(found))


def not_shown(root: str, shown: Sequence[str], home: str) -> str:
    """The same in words, with the project's editable installs; empty for nothing."""
    found = find(root, (*SYSTEM, *shown), home, editable_installs(Path(root)))
    return described(found) if found else ""


def described(found: Sequence[Outward], most: int = 5) -> str:
    """Each with where it leads, and the line that shows all of it."""
    named = ", ".join(f"{item.name} to {item.to}" for item in found[:most])
    more = f" and {len(found) - most} more" if len(found) > most else ""
    folders = dict.fromkeys(item.shown_by for item in found)
    outermost = [
        folder
        for folder in folders
        if not any(folder != other and is_within(folder, other) for other in folders)
    ]
    line = ", ".join(f'"{folder}"' for folder in outermost)
    return f"{named}{more}: `cleanroom.tools = [{line}]` shows it"


def _leads(top: str) -> Iterator[tuple[str, str]]:
    """Names in the project, and the paths to which links and manifests lead."""
    pending, seen = [("", 0)], 0
    while pending and seen < _ENTRIES_MAX:
        inside, depth = pending.pop()
        folder = os.path.join(top, inside)
        try:
            with os.scandir(folder) as items:
                entries = sorted(items, key=lambda item: item.name)
        except OSError:
            continue
        packaged = any(part in _PACKAGES for part in inside.split("/"))
        for item in entries:
            seen += 1
            name = f"{inside}/{item.name}" if inside else item.name
            if item.is_symlink():
                yield name, item.path
            elif item.is_dir(follow_symlinks=False):
                # Of packages only those that are links: `node_modules/name`, `.../@scope/name`.
                deeper = depth < _DEPTH_MAX and item.name not in _SKIPPED
                if deeper and (not packaged or item.name.startswith("@")):
                    pending.append((name, depth + 1))
            elif not packaged and _MANIFESTS.fullmatch(item.name):
                yield from _named(folder, name)


def _named(folder: str, name: str) -> Iterator[tuple[str, str]]:
    """Paths that the manifest names which go up from its folder."""
    for number, line in enumerate(_text(os.path.join(folder, os.path.basename(name))), 1):
        for word in _UPWARDS.findall(line):
            yield f"{name}:{number}", os.path.join(folder, word)


def _text(path: str) -> list[str]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return []
        try:
            return file.read(_BYTES_MAX).decode(errors="replace").splitlines()
        except OSError:
            return []


# ruff: noqa: PTH110, PTH112, PTH119
# Paths are compared as the strings under which they will be mounted.
