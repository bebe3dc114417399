"""Links of a project: where each leads, and what starts by itself under the names that they give.

With `.cargo` a link to `cfg`, `cfg/config.toml` is read as `.cargo/config.toml`. Values only: who
asks says which links there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from cleanroom.engine.phases.autorun import opened_by, started_below, started_by

STEPS_MAX = 4096  # of a path and its links; a longer way is a circle
# Of all ways together, half a second: a phase can make many links that lead through many.
ALL_STEPS_MAX = 200_000
HOPS_MAX = 40  # as many links as the kernel follows for one path

LinkAt = Callable[[str], str | None]  # path in the project -> the target of a link that lies there


class Way(NamedTuple):
    """How a path of the project leads on. Paths are relative to the project."""

    links: tuple[str, ...]  # on the way, in their order
    end: str | None  # where it leads at last; None where that is outside, or nowhere
    steps: int  # names that were looked at


def followed(path: str, tops: tuple[str, ...], link_at: LinkAt) -> Way:
    """Follow a path of the project, step by step; `tops` are the project's absolute paths."""
    links: list[str] = []
    at: list[str] = []
    waiting = pieces(path)
    for steps in range(STEPS_MAX):
        if not waiting:
            return Way(tuple(links), "/".join(at), steps)
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
            below = pieces_below(tops, target)
            if below is None:
                break
            at, waiting = [], [*below, *waiting]
        else:
            waiting = [*pieces(target), *waiting]
    return Way(tuple(links), None, STEPS_MAX)


def pieces_below(tops: tuple[str, ...], path: str) -> list[str] | None:
    """The parts of an absolute path below one of the `tops`, if it lies there."""
    for top in tops:
        if path == top or path.startswith(f"{top.rstrip('/')}/"):
            return pieces(path.removeprefix(top))
    return None


def pieces(path: str) -> list[str]:
    """The parts of a path that lead anywhere."""
    return [part for part in path.split("/") if part not in ("", ".")]


class Linked:
    """What the host's tools start of a project with these links."""

    def __init__(self, ends: Mapping[str, str] = {}) -> None:
        """`ends` says of each link where it leads at last."""
        self._itself: dict[str, str] = {}  # path -> what starts it
        self._all: dict[str, str] = {}  # path -> what starts it and all below it
        # Folder -> links that lead to it and in which tools look for some files, by their names.
        self._opened: dict[str, dict[str, str]] = {}
        for link, end in ends.items():
            if opened_by(link):
                name = link.casefold().rpartition("/")[2]
                self._opened.setdefault(end, {}).setdefault(name, link)
        # Each round finds what is one link further away.
        for _ in range(HOPS_MAX):
            known = len(self._itself) + len(self._all)
            for link, end in ends.items():
                self._note(link, end)
            if len(self._itself) + len(self._all) == known:
                break

    def started_by(self, path: str, *, is_folder: bool = False, is_link: bool = False) -> str:
        """What of the host starts or reads by itself what is at this path, by any of its names."""
        by = started_by(path, is_folder=is_folder) or (opened_by(path) if is_link else "")
        return by or ("" if is_folder else self._through(path, started_by))

    def _note(self, link: str, end: str) -> None:
        """What starts the link starts its end; what starts all below it, all below its end."""
        for found, look in ((self._all, started_below), (self._itself, started_by)):
            by = look(link)
            by = f"{by} through {link}" if by else self._through(link, look)
            if by and end not in self._all:
                found.setdefault(end, by)

    def _through(self, path: str, look: Callable[[str], str]) -> str:
        """What starts it under a name that links give it, as `look` knows of a name."""
        if look is started_by and path in self._itself:
            return self._itself[path]
        for above, below in _splits(path):
            if above in self._all:
                return self._all[above]
            for link in self._opened.get(above, {}).values() if below else ():
                by = look(f"{link}/{below}")
                if by:
                    return f"{by} through {link}"
        return ""


def _splits(path: str) -> Iterator[tuple[str, str]]:
    """The path, then each folder above it with what is below; the project's own is the last."""
    above, below = path, ""
    while above:
        yield above, below
        above, _, name = above.rpartition("/")
        below = f"{name}/{below}" if below else name
    yield "", below
