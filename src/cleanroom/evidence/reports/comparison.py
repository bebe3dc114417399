"""Two runs side by side: what differs between them, and how long each part took.

Each run becomes facts, one text under one name; what has another text, or is in one run only, is a
difference.
Times never are: two runs of the same thing do not take equally long.
How much was written is shown and does not count either: the second run finds what the first wrote.
Of variables only the names are shown, since values may be secrets.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from cleanroom.dependencies.model import Fetched
from cleanroom.evidence.reports.result import RunResult, ViolationResult
from cleanroom.evidence.reports.text import phase_name, place_of, with_code

SCHEMA = "cleanroom.diff/1"
# Parts of a comparison, in the order in which they are shown.
PARTS = (
    "run",
    "phase",
    "violation",
    "canary",
    "service",
    "held",
    "plan",
    "variable",
    "dependency",
    "written",
    "left",
)
# Two runs of one project on one machine differ by so much without a cause.
NOISE_RATIO, NOISE_SECONDS = 1.3, 0.1
_DEPTH_MAX = 16  # of a plan: the deepest real one has eight levels
# Of a plan, what says where it was made and not what it asks for.
_PLACES = frozenset(("root", "file", "files", "origin", "path", "named", "requested", "notes"))
# What an entry of such a list is called.
_ENTRIES = {"workspaces": "workspace", "phases": "phase", "services": "service"}
# Maps whose values a project may keep to itself.
_VARIABLES = frozenset(("variables", "env", "tool_variables", "passed"))


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two runs."""

    run_id: str
    outcome: str
    exit_code: int
    started_unix_ns: int
    duration_seconds: float


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """What is not the same in both runs. None where a run does not have it."""

    # one of PARTS
    part: str
    name: str
    before: str | None
    after: str | None


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """How long a part took that both runs have."""

    name: str
    before_seconds: float
    after_seconds: float
    # of the later one to the earlier one; None where that took no time
    ratio: float | None
    # so near each other that the same run could have taken either
    noise: bool


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two runs side by side."""

    schema: str = SCHEMA
    before: Side
    after: Side
    same: bool
    differences: tuple[Difference, ...]
    times: tuple[Times, ...]
    # what could not be compared, one sentence each
    notes: tuple[str, ...] = ()


class Recorded(NamedTuple):
    """What one run left."""

    result: RunResult
    # its plan.json as read; None where there is none
    plan: Any = None
    # its dependencies; None where it fetched none
    sets: Sequence[Fetched] | None = None


class _Fact(NamedTuple):
    """What is shown, and what is compared where that is not shown."""

    shown: str
    hidden: str = ""


_Facts = dict[tuple[str, str], _Fact]


def compare(before: Recorded, after: Recorded) -> Comparison:
    """The later run against the earlier one."""
    earlier, later = _facts(before), _facts(after)
    notes = _notes(before, after)
    if before.plan is None or after.plan is None:
        for facts in (earlier, later):
            for key in [key for key in facts if key[0] in ("plan", "variable")]:
                del facts[key]
    found = tuple(_differences(earlier, later))
    return Comparison(
        before=_side(before.result),
        after=_side(after.result),
        same=all(one.part == "written" for one in found),
        differences=found,
        times=tuple(_times(before.result, after.result)),
        notes=notes,
    )


def _side(result: RunResult) -> Side:
    return Side(
        run_id=result.run_id,
        outcome=result.outcome,
        exit_code=result.exit_code,
        started_unix_ns=result.started_unix_ns,
        duration_seconds=result.duration_seconds,
    )


def _notes(before: Recorded, after: Recorded) -> tuple[str, ...]:
    lacking = [each.result.run_id for each in (before, after) if each.plan is None]
    return tuple(
        f"run {name} has no plan that can be read: plans are not compared" for name in lacking
    )


def _differences(earlier: _Facts, later: _Facts) -> Iterator[Difference]:
    for part in PARTS:
        names = dict.fromkeys(name for of, name in (*earlier, *later) if of == part)
        whole = ""
        for name in names:
            old, new = earlier.get((part, name)), later.get((part, name))
            if old == new or (whole and name.startswith(f"{whole}: ")):
                continue
            # an entry that only one run has is one difference, whatever it consists of
            whole = name if part == "plan" and not (old and new) else ""
            after = new.shown if new else None
            if old and new and old.shown == new.shown:
                after = f"{new.shown}, another one"
            yield Difference(part=part, name=name, before=old.shown if old else None, after=after)


def _facts(recorded: Recorded) -> _Facts:
    facts: _Facts = {}
    # The last number of each: looked for from the first, the time is the square of a hostile plan.
    numbers: dict[tuple[str, str], int] = {}
    for part, name, fact in (
        *_run_facts(recorded.result),
        *_phase_facts(recorded.result),
        *_proof_facts(recorded.result),
        *_dependency_facts(recorded.sets or ()),
        *_plan_facts(recorded.plan),
    ):
        key = (part, name)
        while key in facts:  # a hook runs more than once
            numbers[part, name] = numbers.get((part, name), 1) + 1
            key = (part, f"{name} #{numbers[part, name]}")
        facts[key] = fact
    return facts


_Named = Iterator[tuple[str, str, _Fact]]


def _run_facts(result: RunResult) -> _Named:
    texts = {
        "outcome": f"{result.outcome} (exit {result.exit_code})",
        "backend": f"{result.backend} {result.tier}".strip(),
        "policy": result.policy,
        "environment": result.environment,
        "phases asked for": " ".join(result.requested),
        "not held": ", ".join(result.degraded),
        "seed": str(result.seed),
        "engine": result.version,
        "dry run": "yes" if result.dry_run else "",
    }
    yield from (("run", name, _Fact(text)) for name, text in texts.items() if text)
    yield from (("left", line, _Fact("left behind")) for line in result.ledger.left)
    yield from (
        ("written", name, _Fact(str(number))) for name, number in result.brought_back.items()
    )


def _phase_facts(result: RunResult) -> _Named:
    for phase in result.phases:
        # one that need not run again passed earlier
        verdict = "passed" if phase.result == "cached" else phase.result
        status = f", exit status {phase.exit_code}" if phase.exit_code else ""
        hermetic = "" if phase.hermetic else ", not hermetic"
        fact = _Fact(with_code(f"{verdict}{status}{hermetic}", phase.code))
        yield "phase", phase_name(phase), fact
    for service in result.services:
        state = "ready" if service.ready_seconds is not None else "never ready"
        wrong = f": {service.reason}" if service.reason else ""
        yield "service", service.name, _Fact(f"{service.version} {state}{wrong}".strip())


def _proof_facts(result: RunResult) -> _Named:
    seen: dict[str, ViolationResult] = {}
    for row in result.violations:
        program = row.process.exe or row.process.comm if row.process else "a process"
        seen.setdefault(f"{place_of(row)}: {program} tried {row.target} [{row.rule}]", row)
    for name, row in seen.items():
        yield "violation", name, _Fact(with_code(f"{row.action}, {row.severity}", row.code))
    canaries: dict[str, list[str]] = {}
    for canary in result.canaries:
        canaries.setdefault(canary.name, []).append(canary.result)
    for name, results in canaries.items():
        failed = any(each != "passed" for each in results)
        yield "canary", name, _Fact("failed" if failed else "as expected")
    for dimension in result.capabilities:
        extents = (dimension.enforced, dimension.detected, dimension.attributed)
        words = ("enforced", "detected", "attributed")
        shown = ", ".join(f"{word} {extent}" for word, extent in zip(words, extents, strict=True))
        yield "held", dimension.dimension, _Fact(shown)


def _dependency_facts(sets: Sequence[Fetched]) -> _Named:
    for one in sets:
        for stored in one.files:
            artifact = stored.artifact
            place = f"{one.folder}/" if one.folder not in ("", ".") else ""
            name = f"{place}{one.manager}: {artifact.name or artifact.file}"
            yield "dependency", name, _Fact(f"{artifact.version} sha256:{stored.sha256}".strip())


def _plan_facts(plan: Any) -> _Named:
    """A plan's settings by their names; a file of the project's folder, so of any shape."""
    for names, value in _leaves(plan, ()):
        hidden = next((at for at, name in enumerate(names) if name in _VARIABLES), None)
        if hidden is None:
            yield "plan", ": ".join(names), _Fact(_text(value))
        else:
            shown = names[: hidden + 1] if names[hidden] == "passed" else names
            name = ": ".join(shown)
            if names[hidden] == "passed":
                yield "variable", f"{name}: {_text(value)}", _Fact("handed over")
            else:
                yield "variable", name, _Fact("set", _text(value))


def _leaves(value: Any, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Values with the names that lead to them; an entry of a list goes by its own name."""
    if len(names) > _DEPTH_MAX:
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if str(key) not in _PLACES:
                yield from _leaves(inner, (*names, str(key)))
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        for number, inner in enumerate(value, 1):
            yield from _entry(inner, number, names)
    elif isinstance(value, list) and names[-1:] == ("passed",):
        yield from (((*names, str(number)), each) for number, each in enumerate(value))
    elif value not in (None, "", [], {}, False):
        yield names, value


def _entry(
    value: Any, number: int, names: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """An entry of a list: that it is there, by what it does, and what it consists of."""
    kind = _ENTRIES.get(names[-1], "") if names else ""
    if not kind or not isinstance(value, Mapping):
        yield from _leaves(value, (*names, str(number)))
        return
    name = str(value.get("name", number))
    # the project itself is the workspace without a name
    within = names[:-1] if kind == "workspace" and not name else (*names[:-1], f"{kind} {name}")
    does = value.get("commands") or value.get("command") or value.get("kind") or "declared"
    if within != names[:-1]:
        yield within, does
    rest = {key: inner for key, inner in value.items() if key not in ("name", "commands")}
    yield from _leaves(rest, within)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "yes" if value is True else str(value)


def _times(before: RunResult, after: RunResult) -> Iterator[Times]:
    yield _pair("run", before.duration_seconds, after.duration_seconds)
    ran = ("passed", "failed", "error", "timeout")
    earlier = {phase_name(p): p.duration_seconds for p in before.phases if p.result in ran}
    later = {phase_name(p): p.duration_seconds for p in after.phases if p.result in ran}
    for name, took in later.items():
        if name in earlier:
            yield _pair(f"phase {name}", earlier[name], took)
    ready = {service.name: service.ready_seconds for service in before.services}
    for service in after.services:
        was = ready.get(service.name)
        if was is not None and service.ready_seconds is not None:
            yield _pair(f"service {service.name} ready", was, service.ready_seconds)


def _pair(name: str, before: float, after: float) -> Times:
    ratio = round(after / before, 3) if before > 0 else None
    near = ratio is not None and 1 / NOISE_RATIO <= ratio <= NOISE_RATIO
    return Times(
        name=name,
        before_seconds=before,
        after_seconds=after,
        ratio=ratio,
        noise=near or abs(after - before) < NOISE_SECONDS,
    )
