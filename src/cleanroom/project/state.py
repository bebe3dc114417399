"""`.ggen/state.json`: what ran, readable by ggen, and our own authoritative copy beside it.

ggen reads the file after a phase's command has ended, drops keys that it does not know and takes no
lock, so whatever must not be lost is in `.ggen/cleanroom/state.json` first;
from there it is merged into ggen's file, every time, until it is seen to be there. ggen reads lists
and whole milliseconds only, and its history holds what succeeded; failures are in our copy alone.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cleanroom.core import disk
from cleanroom.core.beneath import Folder, is_misplaced
from cleanroom.core.files import misplaced, write_atomic
from cleanroom.core.locks import locked
from cleanroom.model.errors import ArtifactError, ProjectError

FOLDER, NAME, LOCK_NAME = ".ggen", "state.json", "state.lock"
STATE = f"{FOLDER}/{NAME}"
OUR_FOLDER = f"{FOLDER}/cleanroom"
OURS, LOCK = f"{OUR_FOLDER}/{NAME}", f"{OUR_FOLDER}/{LOCK_NAME}"

_BYTES_MAX = 64 << 20  # years of runs; more is not a state file
_TRIES = 50  # one more for each time that ggen writes between our reading and our writing
_LOCK_SECONDS = 30.0  # a writer holds the lock for milliseconds


# ggen's state as its file has it: keys that we do not know are kept.
GgenState = dict[str, Any]


class PhaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one phase that ran commands."""

    phase: str
    started_ms: int  # since 1970
    duration_ms: int
    success: bool
    cache_key: str = ""  # as `cache_key` makes it


class _GgenRecord(msgspec.Struct):
    phase: str
    started_ms: int
    duration_ms: int
    success: bool


class _GgenSchema(msgspec.Struct):
    """What real ggen requires of its file; the lists may be missing, since we add them."""

    last_phase: str | None = None
    phase_history: list[_GgenRecord] = []
    generated: list[dict[str, Any]] = []
    cache_keys: list[dict[str, str]] = []


class _Ours(msgspec.Struct, kw_only=True):
    schema: str = "cleanroom.state/1"
    records: list[PhaseRecord] = []
    production_score: int | float | None = None
    last_validation: str | None = None


def cache_key(
    phase: str,
    commands: Sequence[str],
    environment: str = "",
    inputs: Mapping[str, str] | None = None,
) -> str:
    """ggen's cache key of a phase. `inputs` maps paths to contents; ggen itself has none."""
    text = phase + "".join(f"\n{command}" for command in commands)
    text += f"\nGGEN_ENV={environment}" if environment else ""
    text += "".join(f"\n{path}{content}" for path, content in (inputs or {}).items())
    return hashlib.sha256(text.encode()).hexdigest()


def record(
    root: Folder,
    records: Sequence[PhaseRecord],
    *,
    last_validation: str | None = None,
    production_score: int | float | None = None,
) -> None:
    """Add runs of phases to both files of the project in `root`, and set its other values.

    None leaves a value as it was.

    Raises:
        ProjectError: one of the files is broken, or something else stands in the place of one;
            it is left as it is.
        ArtifactError: they could not be written.
    """
    try:
        with (
            root.folder(FOLDER, make=True) as ggen,
            root.folder(OUR_FOLDER, make=True) as own,
            locked(own, LOCK_NAME, seconds=_LOCK_SECONDS),
        ):
            ours = _read_ours(own)
            _read_ggen(ggen)  # a broken one is found before anything is written
            ours.records.extend(records)
            ours.last_validation = (
                ours.last_validation if last_validation is None else last_validation
            )
            ours.production_score = (
                ours.production_score if production_score is None else production_score
            )
            write_atomic(own, NAME, _pretty(msgspec.to_builtins(ours)))
            _merge_into_ggen(ggen, ours, records)
    except TimeoutError:
        raise ArtifactError(
            "CR-STATE-002",
            f"{LOCK}: expected the lock within {_LOCK_SECONDS:g} s; another process holds it",
        ) from None
    except OSError as error:
        if is_misplaced(error):
            raise misplaced(_shown(error), error.strerror or str(error)) from error
        raise ArtifactError(
            "CR-STATE-002",
            f"{STATE}: cannot be written: {error.strerror}",
            hint="make .ggen writable",
        ) from error


def _shown(error: OSError) -> str:
    """The file that could not be opened, relative to the project."""
    name = str(error.filename or FOLDER)
    return LOCK if name == LOCK_NAME else name


def _merge_into_ggen(ggen: Folder, ours: _Ours, records: Sequence[PhaseRecord]) -> None:
    """Write ggen's file until it holds all of ours, and until the file that we displaced is the one
    that we had read.
    """
    extra: list[GgenState] = []  # states that ggen wrote between our reading and our writing
    for _ in range(_TRIES):
        before, state = _read_ggen(ggen)
        for displaced in extra:
            _absorb(state, displaced)
        extra = []
        data = _pretty(_merged(state, ours, records))
        if before == data:
            return
        displaced_bytes = _put(ggen, data, before)
        if displaced_bytes is not None and displaced_bytes != before:
            extra.append(_decoded(displaced_bytes))
    raise ArtifactError(
        "CR-STATE-002",
        f"{STATE}: other processes kept writing it",
        hint="let the other runs of this project end, then try again",
    )


def _merged(state: GgenState, ours: _Ours, records: Sequence[PhaseRecord]) -> GgenState:
    """ggen's state with all our successful runs and the keys that ggen does not have."""
    merged = {"last_phase": None, "phase_history": [], "generated": [], "cache_keys": [], **state}
    history, keys = list(merged["phase_history"]), list(merged["cache_keys"])
    there = Counter(_identity(entry) for entry in history)
    for entry in (record for record in ours.records if record.success):
        shown = {
            "phase": entry.phase,
            "started_ms": entry.started_ms,
            "duration_ms": entry.duration_ms,
            "success": True,
        }
        identity = _identity(shown)
        if there[identity] > 0:
            there[identity] -= 1
            continue
        history.append(shown)
        if entry.cache_key:
            keys.append({"phase": entry.phase, "key": entry.cache_key})
    succeeded = [entry.phase for entry in records if entry.success]
    if succeeded:
        merged["last_phase"] = succeeded[-1]
    ran = dict.fromkeys([*merged.get("phases_run", ()), *(entry.phase for entry in ours.records)])
    seed = {
        "phases_run": list(ran),
        "production_score": ours.production_score,
        "last_validation": ours.last_validation,
    }
    return {**merged, "phase_history": history, "cache_keys": keys, **seed}


def _absorb(state: GgenState, displaced: GgenState) -> None:
    """Add what `displaced` has and `state` has not: no entry is dropped.

    ggen only appends to its lists, so what is missing in `state` is newer.
    """
    for name in ("phase_history", "generated", "cache_keys"):
        have = list(state.get(name, []))
        missing = Counter(map(_plain, displaced.get(name, []))) - Counter(map(_plain, have))
        state[name] = [*have, *(msgspec.json.decode(text) for text in missing.elements())]
    state["last_phase"] = displaced.get("last_phase") or state.get("last_phase")


def _plain(entry: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(entry)


def _identity(entry: Mapping[str, Any]) -> tuple[str, int, int]:
    return entry["phase"], entry["started_ms"], entry["duration_ms"]


def _put(ggen: Folder, data: bytes, before: bytes | None) -> bytes | None:
    """Make `data` the file, and give what it displaced; None where nothing can have been displaced.

    The exchange of two names is atomic, so that a state that ggen writes at this very moment is not
    lost but seen.
    """
    aside = f".{secrets.token_hex(8)}.tmp"
    write_atomic(ggen, aside, data)
    try:
        if _is_link(ggen):
            disk.here.rename(ggen, aside, NAME)
            return None
        if before is None:
            return _create(ggen, aside)
        if not disk.here.exchange(ggen, aside, NAME):
            displaced = _read(ggen)
            disk.here.rename(ggen, aside, NAME)
            return displaced
        return _read(ggen, aside)
    finally:
        disk.here.remove(ggen, aside)


def _create(ggen: Folder, aside: str) -> bytes | None:
    """The first state; where somebody was faster, theirs stays and counts as displaced,
    so that we merge again.
    """
    try:
        disk.here.link(ggen, aside, NAME)
    except FileExistsError:
        return _read(ggen)
    return None


def _read_ours(own: Folder) -> _Ours:
    data = _read(own)
    if data is None:
        return _Ours()
    try:
        return msgspec.json.decode(data, type=_Ours)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _broken(OURS, data, str(error)) from None


def _read_ggen(ggen: Folder) -> tuple[bytes | None, GgenState]:
    """The bytes and the object; nothing where there is no file."""
    data = _read(ggen)
    return data, {} if data is None else _decoded(data)


def _decoded(data: bytes) -> GgenState:
    try:
        state = msgspec.json.decode(data, type=GgenState)
        msgspec.convert(state, type=_GgenSchema)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _broken(STATE, data, str(error)) from None
    return state


def _is_link(folder: Folder) -> bool:
    try:
        found = os.stat(NAME, dir_fd=folder.descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISLNK(found.st_mode)


def _read(folder: Folder, name: str = NAME) -> bytes | None:
    """None where there is no file; a link is none, and is replaced."""
    try:
        with folder.reading(name) as stream:
            return stream.read(_BYTES_MAX)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise


def _broken(name: str, data: bytes, why: str) -> ProjectError:
    """Where in the file: at the byte that the decoder names, or at the key."""
    found = re.search(r"\(byte (\d+)\)|position (\d+)", why)
    at = int(found.group(1) or found.group(2)) if found else 0
    path = re.search(r"`\$\.?([^`]*)`", why)
    if path and (word := re.match(r"[A-Za-z_]+", path.group(1))):
        at = max(data.find(b'"' + word.group().encode() + b'"'), 0)
    line = data.count(b"\n", 0, at) + 1
    column = at - (data.rfind(b"\n", 0, at) + 1) + 1
    return ProjectError(
        "CR-STATE-001",
        f"{name}: expected a state that ggen can read, found: {why}",
        hint="correct the file, or move it away to begin with a fresh state",
        where=f"{name}:{line}:{column}",
    )


def _pretty(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
