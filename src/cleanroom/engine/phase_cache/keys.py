"""When a phase need not run again: what its result depends on,
and which phases stand or fall together.

Pure functions over values.

A phase's result depends on parts: name -> digest, such as `input src/a.py` or `commands`.
Its key is the digest of all of them, so that a key is the claim "with exactly these parts".
Reading files is `fingerprints.py`'s, entries and evidence are `store.py`'s.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence

import msgspec

from cleanroom.core.patterns import readings
from cleanroom.engine.phases.skipping import Parts
from cleanroom.model.plan import PhaseRun, Plan

# Rewritten by every run of the tools that they belong to, and made anew where they are missing:
# neither inputs nor outputs.
CACHES = ("__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache")
NEVER = (".git", ".ggen")
NAMED = 3  # of many differences a sentence names so many


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a phase that passed.

    An index only: the run that it names has to confirm it.
    """

    schema: str = "cleanroom.cache/1"
    phase: str
    workspace: str
    run_id: str
    parts: dict[str, str]
    outputs: dict[str, str]  # path -> digest

    @property
    def key(self) -> str:
        return key_of(self.parts)


def key_of(parts: Parts) -> str:
    """One digest of all parts, whatever their order."""
    return hashlib.sha256(msgspec.json.encode(sorted(parts.items()))).hexdigest()


def digest(value: object) -> str:
    """Of any value that is data."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


def difference(before: Parts, now: Parts) -> str:
    """What changed, for people: names of parts, a few of them."""
    said = [
        f"{name} changed"
        for name in sorted(before.keys() & now.keys())
        if before[name] != now[name]
    ]
    said += [f"{name} is new" for name in sorted(now.keys() - before.keys())]
    said += [f"{name} is gone" for name in sorted(before.keys() - now.keys())]
    more = f" and {len(said) - NAMED} more" if len(said) > NAMED else ""
    return ", ".join(said[:NAMED]) + more


def never(plan: Plan, phase: PhaseRun, *, session: bool = False) -> str:
    """Why this phase is never skipped, whatever is in the cache; empty where it may be.

    `session`: services may outlive the run.
    """
    if not phase.hermetic:
        return "it runs on the host"
    if phase.policy.egress:
        return "it has egress"
    if phase.policy.host_network:
        return f"at {phase.policy.level.value} its network is open"
    if plan.allow_degraded:
        return "the run may be degraded"
    if plan.backend in ("docker", "podman"):
        return "what its image holds is not compared"
    if plan.parallel and len(plan.workspaces) > 1 and phase.services:
        return "workspaces run at once and share its services"
    if session and phase.services:
        return "its services outlive the run, and other runs write into them"
    return ""


def stretches(phases: Sequence[PhaseRun]) -> list[range]:
    """Which phases are skipped together or not at all, in order and without gaps.

    What a phase leaves in a service lives as long as the run.
    So from the first to the last phase that uses a service, none may run without those before it,
    and a phase between them may not change their inputs.
    Phases without services stand alone.
    """
    users: dict[str, list[int]] = {}
    for position, phase in enumerate(phases):
        for service in phase.services:
            users.setdefault(service, []).append(position)
    found: list[range] = []
    end = -1
    for position in range(len(phases)):
        lasts = [positions[-1] for positions in users.values() if positions[0] == position]
        if position > end:
            found.append(range(position, position + 1))
            end = position
        if lasts:
            end = max(end, *lasts)
        found[-1] = range(found[-1].start, end + 1)
    return found


def covering(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Does one of the patterns cover this path, or a folder above it?

    `*` and `?` match `/` too, so that a pattern never covers less than a reader may think;
    `**/` matches no folder as well, and square brackets are also themselves.
    The time it takes is bounded by the lengths of path and pattern, whatever the pattern is.
    """
    meant = [reading for pattern in patterns for reading in readings(pattern)]
    whole = re.compile(
        "|".join(f"(?:{_expression(pattern)})(?:/.*)?" for pattern in meant) or r"(?!)", re.DOTALL
    )
    return lambda path: whole.fullmatch(path) is not None


def literal(pattern: str) -> str:
    """The folder that everything the pattern covers lies in; empty for the root."""
    before = re.split(r"[*?\[]", normal(pattern), maxsplit=1)
    return before[0].rpartition("/")[0] if len(before) > 1 else before[0]


def normal(pattern: str) -> str:
    """Without `./`, doubled and trailing slashes; empty for the project itself."""
    return "/".join(part for part in pattern.split("/") if part not in ("", "."))


def _expression(pattern: str) -> str:
    """What stands between two gaps is found where it comes first, and no later place is tried:
    what follows can begin at any later place too.
    """
    first, *rest = _pieces(normal(pattern) or "*")
    made = first[1]
    for number, (gap, piece) in enumerate(rest, 1):
        made += f"(?>{gap}{piece})" if number < len(rest) else gap + piece
    return made


_ANYTHING, _FOLDERS = ".*?", "(?:.*?/)??"


def _pieces(text: str) -> list[tuple[str, str]]:
    """The pattern as pieces of a fixed length, each with the gap before it."""
    pieces = [("", "")]
    while text:
        if wild := re.match(r"(?:\*\*/|\*)+", text):
            # Folders may be left out only where a folder begins:
            # elsewhere anything may stand, which covers more.
            begins = (pieces[-1][1] or "/").endswith("/")
            folders = begins and not wild[0].replace("**/", "")
            pieces.append((_FOLDERS if folders else _ANYTHING, ""))
            text = text[wild.end() :]
            continue
        gap, piece = pieces.pop()
        single, text = _single(text)
        pieces.append((gap, piece + single))
    return pieces


def _single(text: str) -> tuple[str, str]:
    """The expression of one character of the pattern, and what is left of it."""
    if text[0] == "[" and (found := re.match(r"\[(!?)([^\]]+)\]", text)):
        characters = re.escape(found[2]).replace(r"\-", "-")
        return f"[{'^' if found[1] else ''}{characters}]", text[found.end() :]
    return "." if text[0] == "?" else re.escape(text[0]), text[1:]
