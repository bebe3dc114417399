"""Links of a project: where each leads, and what the host starts under the names that they give.

With `.cargo` a link to `cfg`, cargo reads `cfg/config.toml` as `.cargo/config.toml`.
Values only: the caller says which links there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from cleanroom.core.paths import is_within
from cleanroom.engine.phases.autorun import opened_by, started_below, started_by

# Of one path with its links; a longer way is a circle.
STEPS_MAX = 4096
# Of all links together, half a second: a phase can make many links that lead through many.
ALL_STEPS_MAX = 200_000
# The kernel follows as many links in one path (MAXSYMLINKS, path_resolution(7)).
HOPS_MAX = 40

# path in the project -> target of the link there; None if it is no link
LinkAt = Callable[[str], str | None]


class ResolvedPath(NamedTuple):
    """A path of the project with its links followed. Paths are relative to the project."""

    # on the way, in their order
    links: tuple[str, ...]
    # where it leads at last; None if that is outside, or nowhere
    end: str | None
    # names that were looked at
    steps: int


def resolve(path: str, tops: tuple[str, ...], link_at: LinkAt) -> ResolvedPath:
    """Follow a path of the project, step by step; `tops` are the project's absolute paths."""
    links: list[str] = []
    at: list[str] = []
    waiting = parts_of(path)
    for steps in range(STEPS_MAX):
        if not waiting:
            return ResolvedPath(tuple(links), "/".join(at), steps)
        name = waiting.pop(0)
        if name == "..":
            if not at:
                break
            at.pop()
            continue
        here = "/".join([*at, name])
        target = link_at(here)
        if target is None:
            at.append(name)
            continue
        links.append(here)
        if target.startswith("/"):
            below = parts_below(tops, target)
            if below is None:
                break
            at, waiting = [], [*below, *waiting]
        else:
            waiting = [*parts_of(target), *waiting]
    return ResolvedPath(tuple(links), None, STEPS_MAX)


def parts_below(tops: tuple[str, ...], path: str) -> list[str] | None:
    """The names of an absolute path below one of the `tops`; None if it lies below none."""
    for top in tops:
        if is_within(path, top):
            return parts_of(path.removeprefix(top))
    return None


def parts_of(path: str) -> list[str]:
    """The names of a path, without empty ones and dots."""
    return [part for part in path.split("/") if part not in ("", ".")]


class ProjectLinks:
    """What the host's tools start in a project with these links."""

    def __init__(self, ends: Mapping[str, str] = {}) -> None:
        """`ends`: link -> the path that it leads to at last."""
        # path -> the tool that starts it
        self._exact: dict[str, str] = {}
        # path -> the tool that starts it and everything below it
        self._below: dict[str, str] = {}
        # folder -> name of a link to it, in lower case -> that link; tools look for some files in
        # a folder of that name
        self._opened: dict[str, dict[str, str]] = {}
        for link, end in ends.items():
            if opened_by(link):
                name = link.casefold().rpartition("/")[2]
                self._opened.setdefault(end, {}).setdefault(name, link)
        # Each round finds paths that are one link further away.
        for _ in range(HOPS_MAX):
            known = len(self._exact) + len(self._below)
            for link, end in ends.items():
                self._add(link, end)
            if len(self._exact) + len(self._below) == known:
                break

    def started_by(self, path: str, *, is_folder: bool = False, is_link: bool = False) -> str:
        """The tool that starts or reads this path by itself, under any of its names; or empty."""
        by = started_by(path, is_folder=is_folder) or (opened_by(path) if is_link else "")
        return by or ("" if is_folder else self._started_through(path, started_by))

    def _add(self, link: str, end: str) -> None:
        """Add the end of a link that a tool starts, alone or with everything below it."""
        for found, rule in ((self._below, started_below), (self._exact, started_by)):
            by = rule(link)
            by = f"{by} through {link}" if by else self._started_through(link, rule)
            if by and end not in self._below:
                found.setdefault(end, by)

    def _started_through(self, path: str, rule: Callable[[str], str]) -> str:
        """The tool that starts a path under a name that links give it, by `rule` of that name."""
        if rule is started_by and path in self._exact:
            return self._exact[path]
        for above, below in _splits(path):
            if above in self._below:
                return self._below[above]
            for link in self._opened.get(above, {}).values() if below else ():
                by = rule(f"{link}/{below}")
                if by:
                    return f"{by} through {link}"
        return ""


def _splits(path: str) -> Iterator[tuple[str, str]]:
    """The path, then each folder above it with the rest below; the project itself is the last."""
    above, below = path, ""
    while above:
        yield above, below
        above, _, name = above.rpartition("/")
        below = f"{name}/{below}" if below else name
    yield "", below
