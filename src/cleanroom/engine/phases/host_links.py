"""Symbolic links of a project, read from the host: where each leads at last. Blocks."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Sequence

from cleanroom.backends.base import Change
from cleanroom.core.paths import parents
from cleanroom.engine.phases.autorun import is_packaged, opened_by, started_by
from cleanroom.engine.phases.project_links import ALL_STEPS_MAX, parts_below, resolve

READ_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def with_links(root: str, paths: Iterable[str]) -> tuple[str, ...]:
    """These absolute paths, the links on the way to each, and the path that each leads to.

    Only links and paths below `root`, spelled as below `root`.
    """
    tops = (os.path.normpath(root), os.path.realpath(root))
    found = dict.fromkeys(paths)
    for path in tuple(found):
        below = parts_below(tops, path)
        resolved = resolve(
            "/".join(below or ()), tops, lambda at: _link_target(os.path.join(tops[1], at))
        )
        led = [*resolved.links, *([resolved.end] if resolved.end else [])]
        found.update(dict.fromkeys(os.path.join(tops[0], at) for at in led))
    return tuple(found)


def link_ends(
    root: str, changes: Sequence[Change], project: int, mode_of: Callable[[str], int]
) -> dict[str, str]:
    """Where links lead: the changed ones, and the host's in the folders above the changes.

    `project` is the open folder, `mode_of` gives the mode of a path of the host.
    Links whose names tools know are followed first: a phase, also one of an earlier run,
    could make more others than ALL_STEPS_MAX allows.
    """
    tops = (os.path.normpath(root), os.path.realpath(root))
    planned = {change.path: change for change in changes}
    links: list[str] = []
    for folder in ("", *parents(planned)):
        exists = not folder or stat.S_ISDIR(mode_of(folder))
        if exists and not is_packaged(f"{folder}/"):
            links += [path for path in _links_in(project, folder) if path not in planned]
    links += [change.path for change in changes if change.kind == "symlink"]
    links.sort(key=lambda path: not _is_known(path))
    known: dict[str, str | None] = {}

    def link_at(path: str) -> str | None:
        if path in planned:
            return planned[path].target or None
        if path not in known:
            known[path] = _link_target(path, project)
        return known[path]

    ends: dict[str, str] = {}
    steps = 0
    for link in links:
        if steps > ALL_STEPS_MAX:
            break
        # Package managers link thousands of packages to one another.
        if is_packaged(link) and not _is_known(link):
            continue
        resolved = resolve(link, tops, link_at)
        steps += resolved.steps
        if resolved.end is not None:
            ends[link] = resolved.end
    return ends


def _is_known(link: str) -> bool:
    """Whether the host's tools read a link of this name, or look into the folder behind it."""
    return bool(started_by(link) or opened_by(link))


def _links_in(project: int, folder: str) -> list[str]:
    try:
        descriptor = os.open(folder or ".", READ_FOLDER, dir_fd=project)
    except OSError:
        return []
    try:
        with os.scandir(descriptor) as items:
            return [f"{folder}/{item.name}".lstrip("/") for item in items if item.is_symlink()]
    finally:
        os.close(descriptor)


def _link_target(path: str, folder: int | None = None) -> str | None:
    """Target of a link; None if the path is no link."""
    try:
        return os.readlink(path, dir_fd=folder)
    except (OSError, ValueError):
        return None
