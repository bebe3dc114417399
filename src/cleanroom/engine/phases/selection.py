"""Selection: which changes of a phase are written back to the project. Values only."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from cleanroom.backends.base import Change
from cleanroom.core.paths import parent, parents
from cleanroom.engine.phases.host_facts import HostFacts
from cleanroom.engine.phases.outputs import Outputs, Parts
from cleanroom.engine.phases.repositories import (
    HISTORY_FOLDERS,
    history_change,
    history_part,
    repository_depth,
)


class Withheld(NamedTuple):
    """A change that was asked for and is not written back because of what it is."""

    path: str
    reason: str
    # the output that brings it back; empty if none is worth a proposal
    spelled: str = ""


class Selection(NamedTuple):
    """Changes that are written back, in their order, and those to report."""

    paths: tuple[str, ...] = ()
    withheld: tuple[Withheld, ...] = ()
    # of `paths`: what the host's tools start by themselves, each with the tools
    autorun: tuple[tuple[str, str], ...] = ()
    # of `paths`, as in `HostFacts`
    opened_to_others: tuple[str, ...] = ()
    # ignored folders of which a phase that did not pass brings nothing back undeclared
    incomplete: frozenset[str] = frozenset()


def select(
    changes: Sequence[Change],
    *,
    passed: bool,
    outputs: Sequence[str] | None,
    host: HostFacts = HostFacts(),  # noqa: B008 (frozen)
) -> Selection:
    """Choose the changes that are written back.

    Of a phase that passed: its outputs if declared, else everything.
    Of one that did not: its outputs, and additions and changes that `host.ignored` covers,
    never a deletion.
    An ignored folder comes back whole or not at all: see `_incomplete_folders`.
    New folders above a chosen path are chosen with it.
    Some changes are written back only if an output spells them: see `_why_withheld`.
    """
    declared = Outputs(outputs)
    incomplete = frozenset() if passed else _incomplete_folders(changes, declared, host)
    everything = passed and outputs is None
    chosen: set[str] = set()
    withheld: list[Withheld] = []
    # path of a `.git` -> parts of its history that changed
    histories: dict[str, set[str]] = {}
    for change in changes:
        parts = tuple(change.path.split("/"))
        # Without a path it is about all changes, such as that they are too many.
        asked_for = everything or not change.path or declared.cover(parts)
        if not asked_for and (
            passed or not _is_spared(change, host) or _ignored_folder(change, host) in incomplete
        ):
            continue
        spelled = history_part(parts, declared)
        if spelled in HISTORY_FOLDERS:
            if history := history_change(change, parts):
                histories.setdefault(history.repository, set()).add(history.part)
        elif spelled:
            reason = f"another spelling of {' or '.join(HISTORY_FOLDERS)}"
            withheld.append(Withheld(change.path, reason))
        elif found := _why_withheld(change, parts, declared, host):
            withheld.append(found)
        else:
            chosen.add(change.path)
    blocked = {change.path for change in withheld}
    # A withheld folder stands for everything in it.
    withheld = [change for change in withheld if parent(change.path) not in blocked]
    chosen = _with_folders(changes, chosen, blocked, host, passed=passed)
    return Selection(
        tuple(change.path for change in changes if change.path in chosen),
        (*withheld, *_withheld_histories(histories)),
        tuple(_autorun(changes, chosen, host)),
        tuple(c.path for c in changes if c.path in chosen and c.path in host.opened_to_others),
        incomplete,
    )


def unreported(changes: Sequence[Change], selection: Selection) -> tuple[str, ...]:
    """Files, links and removals that were neither selected nor withheld.

    A repository whose history changed counts as one, and so does an incomplete folder.
    """
    chosen = set(selection.paths)
    withheld = {change.path for change in selection.withheld}
    found: dict[str, None] = {}
    for change in changes:
        if not change.path or change.path in chosen or change.kind == "directory":
            continue
        above = selection.incomplete & parents([change.path])
        path = min(above) if above else _reportable_path(change)
        if path and path not in withheld and withheld.isdisjoint(parents([path])):
            found[path] = None
    return tuple(found)


def fully_written(paths: Iterable[str], missing: Collection[str]) -> set[str]:
    """The `paths` that are neither `missing` nor above or below a missing one."""
    around = parents(missing) | set(missing)
    return {path for path in paths if path not in around and not parents([path]) & set(missing)}


def _reportable_path(change: Change) -> str:
    """The change's path, or that of the repository whose history it changed.

    Empty for what is never reported: tools write to a repository whenever they look at it.
    """
    parts = tuple(change.path.split("/"))
    if not any(part in HISTORY_FOLDERS for part in parts):
        return change.path
    history = history_change(change, parts)
    return history.repository if history else ""


def _is_spared(change: Change, host: HostFacts) -> bool:
    """Whether a phase that did not pass writes a change back that nobody declared."""
    return (
        change.path in host.ignored
        and change.kind != "deleted"
        and change.path not in host.lost
        and not _started_by(change, host)
        and change.path not in host.named
    )


def _incomplete_folders(
    changes: Sequence[Change], declared: Outputs, host: HostFacts
) -> frozenset[str]:
    """Outermost ignored folders with an addition or a change that may not come back.

    A virtual environment without its programs, or a package without its scripts, would count as
    installed in every later run.
    What a phase removes does not count: a build that failed keeps what it has built.
    """
    found: set[str] = set()
    for change in changes:
        folder = _ignored_folder(change, host)
        if not folder or folder in found or change.kind == "deleted":
            continue
        parts = tuple(change.path.split("/"))
        if declared.cover(parts):
            continue
        if history_part(parts, declared):
            partial = history_change(change, parts) is not None
        else:
            spared = _is_spared(change, host)
            partial = not spared or _why_withheld(change, parts, declared, host) is not None
        if partial:
            found.add(folder)
    return frozenset(found)


def _ignored_folder(change: Change, host: HostFacts) -> str:
    """The outermost ignored folder that holds a change or is it; empty if there is none."""
    above = parents([change.path]) & host.ignored_folders
    if above:
        return min(above, key=len)
    is_folder = change.kind == "directory" and change.path in host.ignored
    return change.path if is_folder else ""


def _why_withheld(
    change: Change, parts: Parts, outputs: Outputs, host: HostFacts
) -> Withheld | None:
    """Why a change is withheld although it was asked for; None if it is not."""
    path = change.path
    if path in host.files and not outputs.name(parts, len(parts)):
        return Withheld(path, "it decides what runs", path)
    if host.named.get(path) and not outputs.name(parts, 1):
        return Withheld(path, "make.toml names it to be run", path)
    depth = repository_depth(parts, host.repositories)
    if depth is not None and not outputs.name(parts, max(depth, 1)):
        spelled = "/".join(parts[: max(depth, 1)])
        return Withheld(path, "git would take its folder for a repository", spelled)
    protected = host.lost.get(path, "")
    if protected and not outputs.name(tuple(protected.split("/")), protected.count("/") + 1):
        return Withheld(path, f"{protected} would go with it", protected)
    return None


def _withheld_histories(histories: Mapping[str, Collection[str]]) -> Iterator[Withheld]:
    """One withheld change for each repository."""
    for repository, changed in histories.items():
        named = ", ".join(sorted(filter(None, changed))) or "it"
        yield Withheld(repository, f"{named} changed", repository)


def _with_folders(
    changes: Sequence[Change],
    chosen: Collection[str],
    blocked: set[str],
    host: HostFacts,
    *,
    passed: bool,
) -> set[str]:
    """The chosen paths with new folders above them, without those below a `blocked` one."""
    above = parents(chosen)
    selected = set(chosen)
    for change in changes:
        needed = change.kind == "directory" and change.path in above
        if parent(change.path) in blocked:
            selected.discard(change.path)
            blocked.add(change.path)
        elif needed and change.path not in selected and change.path not in host.folders:
            # It would replace something that is no folder.
            if change.path in host.lost and not passed:
                blocked.add(change.path)
            elif change.path not in blocked:
                selected.add(change.path)
    return selected


def _autorun(
    changes: Sequence[Change], chosen: Collection[str], host: HostFacts
) -> Iterator[tuple[str, str]]:
    """Chosen files and links that something on the host starts by itself, each with what."""
    for change in changes:
        if change.path in chosen and change.kind in ("file", "symlink"):
            by = "make.toml" if change.path in host.named else _started_by(change, host)
            if by:
                yield change.path, by


def _started_by(change: Change, host: HostFacts) -> str:
    is_folder, is_link = change.kind == "directory", change.kind == "symlink"
    return host.links.started_by(change.path, is_folder=is_folder, is_link=is_link)
