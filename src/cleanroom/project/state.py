"""`.ggen/state.json`: what ran, readable by ggen, and our own authoritative copy beside it.

ggen reads the file after a phase's command has ended, drops keys that it does not know and takes no lock, so whatever must not be lost is in
`.ggen/cleanroom/state.json` first; from there it is merged into ggen's file, every time, until it is seen to be there. ggen reads lists and whole
milliseconds only, and its history holds what succeeded; failures are in our copy alone.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cleanroom import disk
from cleanroom.artifacts import check_own_folders, open_to_read, write_atomic
from cleanroom.errors import ArtifactError, ProjectError

STATE = Path(".ggen/state.json")
OURS = Path(".ggen/cleanroom/state.json")
LOCK = Path(".ggen/cleanroom/state.lock")

_BYTES_MAX = 64 << 20  # years of runs; more is not a state file
_TRIES = 50  # one more for each time that ggen writes between our reading and our writing
_LOCK_SECONDS = 30.0  # a writer holds the lock for milliseconds


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


class _GgenState(msgspec.Struct):
    """What real ggen insists on; the lists may be missing, since we add them."""

    last_phase: str | None = None
    phase_history: list[_GgenRecord] = []
    generated: list[dict[str, Any]] = []
    cache_keys: list[dict[str, str]] = []


class _Ours(msgspec.Struct, kw_only=True):
    schema: str = "cleanroom.state/1"
    records: list[PhaseRecord] = []
    production_score: int | float | None = None
    last_validation: str | None = None


def cache_key(phase: str, commands: Sequence[str], environment: str = "", inputs: Mapping[str, str] | None = None) -> str:
    """ggen's cache key of a phase. `inputs` maps paths to contents; ggen itself has none."""
    text = phase + "".join(f"\n{command}" for command in commands)
    text += f"\nGGEN_ENV={environment}" if environment else ""
    text += "".join(f"\n{path}{content}" for path, content in (inputs or {}).items())
    return hashlib.sha256(text.encode()).hexdigest()


def record(
    root: Path,
    records: Sequence[PhaseRecord],
    *,
    last_validation: str | None = None,
    production_score: int | float | None = None,
) -> None:
    """Add runs of phases, and what is newly known of the project, to both files. None leaves what was known.

    Raises:
        ProjectError: one of the files is broken; it is left as it is.
        ArtifactError: they could not be written.
    """
    from filelock import FileLock, Timeout

    check_own_folders(root)
    try:
        (root / LOCK).parent.mkdir(parents=True, exist_ok=True)
        with FileLock(root / LOCK, timeout=_LOCK_SECONDS):
            ours = _read_ours(root)
            _read_ggen(root / STATE)  # a broken one is found before anything is written
            ours.records.extend(records)
            ours.last_validation = ours.last_validation if last_validation is None else last_validation
            ours.production_score = ours.production_score if production_score is None else production_score
            write_atomic(root / OURS, _pretty(msgspec.to_builtins(ours)))
            _merge_into_ggen(root / STATE, ours, records)
    except Timeout:
        raise ArtifactError("CR-STATE-002", f"{LOCK}: expected the lock within {_LOCK_SECONDS:g} s; another process holds it") from None
    except OSError as error:
        raise ArtifactError("CR-STATE-002", f"{STATE}: cannot be written: {error.strerror}", hint="make .ggen writable") from error


def _merge_into_ggen(path: Path, ours: _Ours, records: Sequence[PhaseRecord]) -> None:
    """Write until what we displaced is what we had read and what is there holds all of ours."""
    extra: list[dict[str, Any]] = []  # states that ggen wrote between our reading and our writing
    for _ in range(_TRIES):
        before, state = _read_ggen(path)
        for displaced in extra:
            _absorb(state, displaced)
        extra = []
        data = _pretty(_merged(state, ours, records))
        if before == data:
            return
        displaced_bytes = _put(path, data, before)
        if displaced_bytes is not None and displaced_bytes != before:
            extra.append(_understood(displaced_bytes))
    raise ArtifactError(
        "CR-STATE-002", f"{STATE}: other processes kept writing it", hint="let the other runs of this project end, then try again"
    )


def _merged(state: dict[str, Any], ours: _Ours, records: Sequence[PhaseRecord]) -> dict[str, Any]:
    """ggen's lists with all our successes, and the seed's keys."""
    merged = {"last_phase": None, "phase_history": [], "generated": [], "cache_keys": [], **state}
    history, keys = list(merged["phase_history"]), list(merged["cache_keys"])
    there = Counter(_identity(entry) for entry in history)
    for entry in (record for record in ours.records if record.success):
        shown = {"phase": entry.phase, "started_ms": entry.started_ms, "duration_ms": entry.duration_ms, "success": True}
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
    seed = {"phases_run": list(ran), "production_score": ours.production_score, "last_validation": ours.last_validation}
    return {**merged, "phase_history": history, "cache_keys": keys, **seed}


def _absorb(state: dict[str, Any], displaced: dict[str, Any]) -> None:
    """Put back what ggen had written: it appends, so the longer of two lists that differ is the newer one, and no entry is dropped."""
    for name in ("phase_history", "generated", "cache_keys"):
        have = list(state.get(name, []))
        missing = Counter(map(_plain, displaced.get(name, []))) - Counter(map(_plain, have))
        state[name] = [*have, *(msgspec.json.decode(text) for text in missing.elements())]
    state["last_phase"] = displaced.get("last_phase") or state.get("last_phase")


def _plain(entry: dict[str, Any]) -> bytes:
    return msgspec.json.encode(entry)


def _identity(entry: Mapping[str, Any]) -> tuple[str, int, int]:
    return entry["phase"], entry["started_ms"], entry["duration_ms"]


def _put(path: Path, data: bytes, before: bytes | None) -> bytes | None:
    """Make `data` the file, and give what it displaced; None where nothing can have been displaced.

    The exchange of two names is atomic, so that a state that ggen writes at this very moment is not lost but seen.
    """
    if path.is_symlink():
        write_atomic(path, data)
        return None
    aside = path.with_name(f".{secrets.token_hex(8)}.tmp")
    write_atomic(aside, data)
    try:
        if before is None:
            return _create(aside, path)
        if not disk.here.exchange(aside, path):
            displaced = path.read_bytes()
            disk.here.rename(aside, path)
            return displaced
        return aside.read_bytes()
    finally:
        disk.here.remove(aside)


def _create(aside: Path, path: Path) -> bytes | None:
    """The first state; where somebody was faster, theirs stays and counts as displaced, so that we merge again."""
    try:
        disk.here.link(aside, path)
    except FileExistsError:
        return path.read_bytes()
    return None


def _read_ours(root: Path) -> _Ours:
    data = _read(root / OURS)
    if data is None:
        return _Ours()
    try:
        return msgspec.json.decode(data, type=_Ours)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _broken(OURS, data, str(error)) from None


def _read_ggen(path: Path) -> tuple[bytes | None, dict[str, Any]]:
    """The bytes and the object; nothing where there is no file."""
    data = _read(path)
    return data, {} if data is None else _understood(data)


def _understood(data: bytes) -> dict[str, Any]:
    try:
        state = msgspec.json.decode(data, type=dict[str, Any])
        msgspec.convert(state, type=_GgenState)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _broken(STATE, data, str(error)) from None
    return state


def _read(path: Path) -> bytes | None:
    try:
        with open_to_read(path) as stream:
            return stream.read(_BYTES_MAX)
    except FileNotFoundError:
        return None


def _broken(name: Path, data: bytes, why: str) -> ProjectError:
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
