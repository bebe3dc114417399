"""Which changes of a phase come back: a look at what the host has there, then a pure selection."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cleanroom.backends.base import Change
from cleanroom.core.beneath import Folder
from cleanroom.engine.phases.autorun import is_packaged, opened_by, started_by
from cleanroom.engine.phases.project_links import ALL_STEPS_MAX, Linked, followed, pieces_below

NEVER = (
    ".git",
    ".ggen",
)  # unless declared: a phase that could write them would write its own history
LOOKED_AT_MAX = 500_000  # of what lies in a folder that goes; as many as of changes

# What git looks for in a folder that it takes for a repository, and what it then obeys.
_LAYOUT = """head objects refs commondir gitdir config config.worktree hooks index info packed-refs
logs modules worktrees branches description shallow reftable"""
_REPOSITORY = frozenset(_LAYOUT.split())
# What of a repository stays as it is while tools only look at it, unlike `index`.
_HISTORY = frozenset(("HEAD", "config", "hooks", "objects", "packed-refs", "refs", "reftable"))
# Code points that some file systems leave out when they compare names, as git knows them.
_UNSEEN = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
_SHORT = re.compile(r"(git|ggen)~\d+")
_GLOB = re.compile(r"[*?\[]")

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_LISTED = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Parts = tuple[str, ...]
Pairs = Iterator[tuple[str, str]]


class Host(NamedTuple):
    """What the host has where the changes would be written. Paths are relative to the project."""

    ignored: frozenset[str] = frozenset()  # by the host's own ignore files
    # Changes by which the host would lose more than a file that is replaced by another, each with
    # a path that would go with it and never goes, if there is one.
    lost: Mapping[str, str] = {}
    folders: frozenset[str] = frozenset()  # of those that are changed, the ones that it has
    files: frozenset[str] = frozenset()  # make.toml of the project and its workspaces
    named: Mapping[str, bool] = {}  # what these name to be run -> is it there
    repositories: frozenset[str] = frozenset()  # folders that git would then take for one
    linked: Linked = Linked()  # its links, and those that are changed
    opened: frozenset[str] = frozenset()  # changes by which others may write what they could not


class Withheld(NamedTuple):
    """A change that would come back, were it not for what it is."""

    path: str
    reason: str
    spelled: str = ""  # the output that brings it back, where one is worth a proposal


class Selection(NamedTuple):
    """What comes back, in the order of the changes, and what is to be said of it."""

    paths: tuple[str, ...] = ()
    withheld: tuple[Withheld, ...] = ()
    # Of `paths`: what the host's tools start by themselves, and which tools do.
    autorun: tuple[tuple[str, str], ...] = ()
    opened: tuple[str, ...] = ()  # of `paths`, as in `Host`


class Outputs:
    """Declared outputs: paths, or patterns, relative to the workspace."""

    def __init__(self, declared: Sequence[str] | None) -> None:
        self.declared = declared is not None
        texts = [str(PurePosixPath(output)) for output in declared or ()]
        self._all = "." in texts
        self._literal = {tuple(text.split("/")) for text in texts if text != "."}
        self._patterns = [text for text in texts if _GLOB.search(text)]

    def cover(self, parts: Parts) -> bool:
        """Is the path one of the outputs, or below one? An output covers what it spells, too."""
        if self._all or self.name(parts, 1):
            return True
        if not self._patterns:
            return False
        above = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        return any(fnmatchcase(path, pattern) for pattern in self._patterns for path in above)

    def name(self, parts: Parts, depth: int) -> bool:
        """Does one spell the path's first `depth` components, or more of them?"""
        return any(parts[:length] in self._literal for length in range(depth, len(parts) + 1))


def selected(
    changes: Sequence[Change],
    *,
    passed: bool,
    outputs: Sequence[str] | None,
    host: Host = Host(),  # noqa: B008 (frozen)
) -> Selection:
    """What to bring back.

    Of a phase that passed: its outputs where declared, else everything. Of one that did not: its
    outputs, and additions and changes that `host.ignored` covers, never a deletion. New folders
    above a chosen path are chosen with it. Some things come back only where an output spells them:
    see `_withheld`.
    """
    declared = Outputs(outputs)
    everything = passed and outputs is None
    chosen: set[str] = set()
    withheld: list[Withheld] = []
    histories: dict[str, set[str]] = {}
    for change in changes:
        parts = tuple(change.path.split("/"))
        # Without a path it says something about all changes, such as that they are too many.
        asked_for = everything or not change.path or declared.cover(parts)
        if not asked_for and (passed or not _is_spared(change, host)):
            continue
        never = _never(parts, declared)
        if never in NEVER:
            if history := _history(change, parts):
                histories.setdefault(history.repository, set()).add(history.part)
        elif never:
            reason = f"another spelling of {' or '.join(NEVER)}"
            withheld.append(Withheld(change.path, reason))
        elif found := _withheld(change, parts, declared, host):
            withheld.append(found)
        else:
            chosen.add(change.path)
    blocked = {change.path for change in withheld}
    # One word for a folder is one for what lies in it.
    withheld = [change for change in withheld if _above(change.path) not in blocked]
    chosen = _with_folders(changes, chosen, blocked, host, passed=passed)
    return Selection(
        tuple(change.path for change in changes if change.path in chosen),
        (*withheld, *_stays(histories)),
        tuple(_autorun(changes, chosen, host)),
        tuple(c.path for c in changes if c.path in chosen and c.path in host.opened),
    )


def stayed_away(changes: Sequence[Change], selection: Selection) -> tuple[str, ...]:
    """Changes that nothing was said of and that were not selected: files, links, removals.

    A repository whose history changed counts as one.
    """
    chosen = set(selection.paths)
    said = {change.path for change in selection.withheld}
    stayed: dict[str, None] = {}
    for change in changes:
        if not change.path or change.path in chosen or change.kind == "directory":
            continue
        path = _worth_a_word(change)
        if path and path not in said and said.isdisjoint(_all_above([path])):
            stayed[path] = None
    return tuple(stayed)


def _worth_a_word(change: Change) -> str:
    """Its path, or that of the repository whose history it changed; empty for what never is."""
    parts = tuple(change.path.split("/"))
    if not any(part in NEVER for part in parts):
        return change.path
    history = _history(change, parts)
    return history.repository if history else ""


def _is_spared(change: Change, host: Host) -> bool:
    """Does a change come back from a phase that did not pass, though nobody declared it?"""
    return (
        change.path in host.ignored
        and change.kind != "deleted"
        and change.path not in host.lost
        and not _started_by(change, host)
        and change.path not in host.named
    )


def _never(parts: Parts, outputs: Outputs) -> str:
    """The part that never comes back, as it is spelled; empty where none is or an output spells it.

    What is in one of `NEVER` itself is said once for a repository, or not at all: tools that look
    at one write into it every time.
    """
    never = next((index for index, part in enumerate(parts) if _is_never(part)), None)
    return "" if never is None or outputs.name(parts, never + 1) else parts[never]


def _withheld(change: Change, parts: Parts, outputs: Outputs, host: Host) -> Withheld | None:
    """Why a change does not come back although it was asked for; None where it does."""
    path = change.path
    if path in host.files and not outputs.name(parts, len(parts)):
        return Withheld(path, "it decides what runs", path)
    if host.named.get(path) and not outputs.name(parts, 1):
        return Withheld(path, "make.toml names it to be run", path)
    place = _in_repository(parts, host.repositories)
    if place is not None and not outputs.name(parts, max(place, 1)):
        spelled = "/".join(parts[: max(place, 1)])
        return Withheld(path, "git would take its folder for a repository", spelled)
    holds = host.lost.get(path, "")
    if holds and not outputs.name(tuple(holds.split("/")), holds.count("/") + 1):
        return Withheld(path, f"{holds} would go with it", holds)
    return None


class _Changed(NamedTuple):
    """What a change below `.git` is about."""

    repository: str  # the path of the `.git`
    part: str  # of `_HISTORY`; empty where all of it was removed or replaced


def _history(change: Change, parts: Parts) -> _Changed | None:
    """What a change means for a repository's history; None where it means nothing."""
    at = next(index for index, part in enumerate(parts) if part in NEVER)
    if parts[at] != ".git":
        return None
    inside = parts[at + 1 :]
    named = () if inside[:1] == ("logs",) else inside
    part = next((part for part in named if part in _HISTORY), "")
    if not part and (inside or change.kind == "directory"):
        return None
    return _Changed("/".join(parts[: at + 1]), part)


def _stays(histories: Mapping[str, Collection[str]]) -> Iterator[Withheld]:
    """One word for each repository."""
    for repository, changed in histories.items():
        named = ", ".join(sorted(filter(None, changed))) or "it"
        yield Withheld(repository, f"{named} changed", repository)


def _with_folders(
    changes: Sequence[Change],
    chosen: Collection[str],
    blocked: set[str],
    host: Host,
    *,
    passed: bool,
) -> set[str]:
    """The chosen with new folders above them, and nothing that lies in a `blocked` one."""
    above = _all_above(chosen)
    kept = set(chosen)
    for change in changes:
        needed = change.kind == "directory" and change.path in above
        if _above(change.path) in blocked:
            kept.discard(change.path)
            blocked.add(change.path)
        elif needed and change.path not in kept and change.path not in host.folders:
            # It would take the place of something that is no folder.
            if change.path in host.lost and not passed:
                blocked.add(change.path)
            elif change.path not in blocked:
                kept.add(change.path)
    return kept


def _autorun(changes: Sequence[Change], chosen: Collection[str], host: Host) -> Pairs:
    for change in changes:
        if change.path in chosen and change.kind in ("file", "symlink"):
            by = "make.toml" if change.path in host.named else _started_by(change, host)
            if by:
                yield change.path, by


def _started_by(change: Change, host: Host) -> str:
    is_folder, is_link = change.kind == "directory", change.kind == "symlink"
    return host.linked.started_by(change.path, is_folder=is_folder, is_link=is_link)


def _above(path: str) -> str:
    return path.rpartition("/")[0]


def _all_above(paths: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for path in paths:
        folder = _above(path)
        while folder and folder not in found:
            found.add(folder)
            folder = _above(folder)
    return found


@lru_cache(1 << 16)
def _is_never(name: str) -> bool:
    """Is it one of `NEVER`, as any file system may spell it?"""
    if name in NEVER:
        return True
    plain = _UNSEEN.sub("", name).casefold().partition(":")[0].rstrip(". ")
    return plain in NEVER or _SHORT.fullmatch(plain) is not None


def _in_repository(parts: Parts, repositories: Collection[str]) -> int | None:
    """How deep the repository lies that the path is a part of; None where it is of none."""
    if not repositories:
        return None
    at = (depth for depth, part in enumerate(parts) if part.casefold() in _REPOSITORY)
    return next((depth for depth in at if "/".join(parts[:depth]) in repositories), None)


# --- the host


def look(
    root: str,
    changes: Sequence[Change],
    *,
    files: Iterable[str] = (),
    named: Iterable[str] = (),
) -> Host:
    """What the host has where these changes would be written. Blocks; follows no link below `root`.

    `files` and `named` are absolute paths, as in `plan.Plan`.

    Raises:
        OSError: the project is not there.
    """
    with Folder.at(Path(root)) as project:
        kinds = _Kinds(project.descriptor)
        decides = frozenset(_within(root, files))
        run = {path: _is_file_or_link(kinds.of(path)) for path in _within(root, named)}
        kept = decides | {path for path, there in run.items() if there}
        lost: dict[str, str] = {}
        folders: set[str] = set()
        opened: set[str] = set()
        for change in changes:
            mode = kinds.of(change.path) if change.path else 0
            if opens_to_others(mode, change):
                opened.add(change.path)
            if stat.S_ISDIR(mode) and change.kind == "directory":
                folders.add(change.path)
            elif stat.S_ISDIR(mode) and change.kind != "refused":
                lost[change.path] = _held_in(project.descriptor, change.path, kept)
            elif mode and change.kind in ("deleted", "directory"):
                lost[change.path] = ""
        repositories = _repositories(changes, lambda path: bool(kinds.of(path)))
        return Host(
            lost=lost,
            folders=frozenset(folders),
            files=decides,
            named=run,
            repositories=repositories,
            linked=Linked(_ends(root, changes, project.descriptor, kinds)),
            opened=frozenset(opened),
        )


def opens_to_others(before: int, change: Change) -> bool:
    """May its group or others write it by this change, who could not before?

    `before` is the mode of what the host has there. What is new is no news where its group may
    write: that is many people's umask.
    """
    now = change.mode & _OTHERS_WRITE
    if not now or change.kind not in ("file", "directory"):
        return False
    was_there = stat.S_ISDIR if change.kind == "directory" else stat.S_ISREG
    had = before if was_there(before) else stat.S_IWGRP
    return bool(now & ~had)


def with_links(root: str, paths: Iterable[str]) -> tuple[str, ...]:
    """These absolute paths, the links on the way to each below `root`, and what each really is.

    Only what lies below `root`, and named from there. Blocks.
    """
    tops = (os.path.normpath(root), os.path.realpath(root))
    found = dict.fromkeys(paths)
    for path in tuple(found):
        below = pieces_below(tops, path)
        way = followed("/".join(below or ()), tops, lambda at: _target(os.path.join(tops[1], at)))
        led = [*way.links, *([way.end] if way.end else [])]
        found.update(dict.fromkeys(os.path.join(tops[0], at) for at in led))
    return tuple(found)


def _ends(root: str, changes: Sequence[Change], project: int, kinds: _Kinds) -> dict[str, str]:
    """Where links lead: the changed ones, and the host's in the folders above what is changed.

    Those that tools know by name come first: a phase, or one of an earlier run, could hide them
    behind others.
    """
    tops = (os.path.normpath(root), os.path.realpath(root))
    planned = {change.path: change for change in changes}
    links: list[str] = []
    for folder in ("", *_all_above(planned)):
        is_there = not folder or stat.S_ISDIR(kinds.of(folder))
        if is_there and not is_packaged(f"{folder}/"):
            links += [path for path in _links_in(project, folder) if path not in planned]
    links += [change.path for change in changes if change.kind == "symlink"]
    links.sort(key=lambda path: not _is_known(path))
    known: dict[str, str | None] = {}

    def link_at(path: str) -> str | None:
        if path in planned:
            return planned[path].target or None
        if path not in known:
            known[path] = _target(path, project)
        return known[path]

    ends: dict[str, str] = {}
    steps = 0
    for link in links:
        if steps > ALL_STEPS_MAX:
            break
        # Package managers link thousands of packages to one another.
        if is_packaged(link) and not _is_known(link):
            continue
        way = followed(link, tops, link_at)
        steps += way.steps
        if way.end is not None:
            ends[link] = way.end
    return ends


def _is_known(link: str) -> bool:
    """Do the host's tools look at a link of this name, or into the folder behind it?"""
    return bool(started_by(link) or opened_by(link))


def _links_in(project: int, folder: str) -> list[str]:
    try:
        descriptor = os.open(folder or ".", _LISTED, dir_fd=project)
    except OSError:
        return []
    try:
        with os.scandir(descriptor) as items:
            return [f"{folder}/{item.name}".lstrip("/") for item in items if item.is_symlink()]
    finally:
        os.close(descriptor)


def _target(path: str, folder: int | None = None) -> str | None:
    """Of a link; nothing where none is."""
    try:
        return os.readlink(path, dir_fd=folder)
    except (OSError, ValueError):
        return None


def _is_file_or_link(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def untouched(paths: Iterable[str], stayed: Collection[str]) -> set[str]:
    """Those of the paths of which nothing stayed away: not itself, nothing above it or in it."""
    around = _all_above(stayed) | set(stayed)
    return {path for path in paths if path not in around and not _all_above([path]) & set(stayed)}


class _Kinds:
    """Modes of paths below a folder; what lies in something that is no folder is not there."""

    def __init__(self, folder: int) -> None:
        self._folder = folder
        self._is_folder: dict[str, bool] = {"": True}

    def of(self, path: str) -> int:
        """The mode; 0 where nothing is."""
        above = _above(path)
        if above not in self._is_folder:
            self._look_above(above)
        return self._mode(path) if self._is_folder[above] else 0

    def _look_above(self, folder: str) -> None:
        """From the outermost on, so that none is reached through a link."""
        parts = folder.split("/")
        there = True
        for depth in range(1, len(parts) + 1):
            outer = "/".join(parts[:depth])
            if outer not in self._is_folder:
                self._is_folder[outer] = there and stat.S_ISDIR(self._mode(outer))
            there = self._is_folder[outer]

    def _mode(self, path: str) -> int:
        try:
            return os.stat(path, dir_fd=self._folder, follow_symlinks=False).st_mode
        except (OSError, ValueError):
            return 0


def _held_in(project: int, path: str, kept: Collection[str]) -> str:
    """A path in a folder of the host that may not go with it; empty where there is none."""
    looked_at = 0
    pending = [path]
    while pending and looked_at < LOOKED_AT_MAX:
        folder = pending.pop()
        for name, is_folder in _entries(project, folder):
            inner = f"{folder}/{name}"
            if _is_never(name) or inner in kept:
                return inner
            if is_folder:
                pending.append(inner)
            looked_at += 1
    return ""


def _entries(project: int, folder: str) -> list[tuple[str, bool]]:
    try:
        descriptor = os.open(folder, _LISTED, dir_fd=project)
    except OSError:
        return []
    try:
        with os.scandir(descriptor) as items:
            return [(item.name, item.is_dir(follow_symlinks=False)) for item in items]
    finally:
        os.close(descriptor)


def _repositories(changes: Sequence[Change], is_there: Callable[[str], bool]) -> frozenset[str]:
    """The changed folders that git would afterwards take for a repository."""
    made: dict[str, set[str]] = {}
    gone: set[str] = set()
    for change in changes:
        parts = change.path.split("/")
        for depth, part in enumerate(parts):
            if part.casefold() in _REPOSITORY:
                of = made.setdefault("/".join(parts[:depth]), set())
                if change.kind == "deleted" and depth == len(parts) - 1:
                    gone.add(change.path)
                else:
                    of.add(part.casefold())

    def has(folder: str, name: str) -> bool:
        path = f"{folder}/{name}".lstrip("/")
        return name.casefold() in made[folder] or (path not in gone and is_there(path))

    def is_one(folder: str) -> bool:
        inside = has(folder, "objects") and has(folder, "refs")
        return has(folder, "HEAD") and (inside or has(folder, "commondir"))

    return frozenset(folder for folder in made if is_one(folder))


def _within(root: str, paths: Iterable[str]) -> Iterator[str]:
    prefix = root.rstrip("/") + "/"
    return (path.removeprefix(prefix) for path in paths if path.startswith(prefix))
