"""Questions to a trace: its tree, the critical path, and the differences to earlier runs.

Pure functions of spans.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

import msgspec

from cleanroom.evidence.tracing.span import SpanData

BASELINE_MIN = 3  # runs before a spread says anything
NOISE_SECONDS = 0.01  # smaller differences are noise
# Spans of these kinds last as long as the run; what the run waits for is in their children.
_BACKGROUND = ("service",)


class Node(msgspec.Struct, kw_only=True):
    """A span with its children, in the order in which they began."""

    span: SpanData
    depth: int
    children: list[Node] = []


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Time of the critical path that belongs to this span itself and to no child of it.

    Seconds; `share` is the part of the run's time.
    """

    path: str
    seconds: float
    share: float


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The duration of one path in this run and in earlier ones.

    Seconds; `verdict` is slower, faster or same, or new, gone, or unknown (too few runs before,
    or unlike ones).
    """

    path: str
    seconds: float | None
    median_seconds: float | None
    lowest_seconds: float | None
    highest_seconds: float | None
    runs: int
    verdict: str


def trees(spans: Sequence[SpanData]) -> list[Node]:
    """The spans as trees: roots are those whose parent is not among them.

    A loop of parents is cut.

    A span of code under test, which names only its phase as parent, is put below the command that
    ran then.
    """
    known = {span.span_id: span for span in spans}
    commands = [span for span in spans if _kind(span) == "command"]
    by_parent: dict[str, list[SpanData]] = defaultdict(list)
    roots: list[SpanData] = []
    for span in sorted(spans, key=lambda span: span.start_ns):
        parent = known.get(span.parent_id)
        if (
            parent is not None
            and "cleanroom.of" in span.attributes
            and not _kind(span)
            and _kind(parent) == "phase"
        ):
            parent = next((command for command in commands if _ran(command, span, parent)), parent)
        (by_parent[parent.span_id] if parent is not None and parent is not span else roots).append(
            span
        )
    return [_tree(root, by_parent) for root in roots]


def _kind(span: SpanData) -> str:
    """The kind of the span's subject; "" for a span of code under test."""
    return str(span.attributes.get("cleanroom.subject.kind", ""))


def _ran(command: SpanData, span: SpanData, phase: SpanData) -> bool:
    """Whether this is the command of that phase during which the span began."""
    of = str(phase.attributes.get("cleanroom.subject.name", ""))
    ours = str(command.attributes.get("cleanroom.subject.name", "")).rpartition("#")[0] == of
    within = phase.start_ns <= command.start_ns <= span.start_ns <= command.end_ns <= phase.end_ns
    return ours and within


def _tree(root: SpanData, by_parent: Mapping[str, list[SpanData]]) -> Node:
    """The tree below a root.

    Without recursion: code under test may nest deeper than the interpreter's stack.
    """
    top = Node(span=root, depth=0)
    waiting = [top]
    while waiting:
        node = waiting.pop()
        node.children = [
            Node(span=span, depth=node.depth + 1) for span in by_parent.get(node.span.span_id, ())
        ]
        waiting += node.children
    return top


def walk(nodes: Sequence[Node]) -> Iterator[Node]:
    """Every node, parents before children, in order."""
    waiting = list(reversed(nodes))
    while waiting:
        node = waiting.pop()
        yield node
        waiting += reversed(node.children)


def paths(nodes: Sequence[Node]) -> dict[str, str]:
    """Span id -> the names from the root to it, with `#2` and so on where siblings share a name:
    the same in every run of the same phases.
    """
    found = {node.span.span_id: node.span.name for node in nodes}
    for node in walk(nodes):
        seen: dict[str, int] = {}
        for child in node.children:
            name = _stable_name(child.span)
            seen[name] = number = seen.get(name, 0) + 1
            found[child.span.span_id] = f"{found[node.span.span_id]} / {name}" + (
                f" #{number}" if number > 1 else ""
            )
    return found


def _stable_name(span: SpanData) -> str:
    """The span's name without the number of an environment, which changes with a phase more."""
    return re.sub(r"-\d+\b", "", span.name) if _kind(span) == "environment" else span.name


def critical_path(root: Node) -> list[Step]:
    """The steps of the critical path, longest first.

    A step that gets faster by its seconds makes the run shorter by at most that.
    The path goes from the end back: at each moment the span waits for the child that ended last
    before it; time that no child covers is the span's own.
    """
    named = paths([root])
    own_ns: dict[str, int] = defaultdict(int)
    waiting = [(root, root.span.start_ns, root.span.end_ns)]
    while waiting:
        node, begin, end = waiting.pop()
        for child in sorted(_awaited(node), key=lambda child: -child.span.end_ns):
            child_end, child_begin = min(child.span.end_ns, end), max(child.span.start_ns, begin)
            if child_end <= child_begin:
                continue
            own_ns[node.span.span_id] += end - child_end
            waiting.append((child, child_begin, child_end))
            end = child_begin
        own_ns[node.span.span_id] += end - begin
    total = max(root.span.duration_ns, 1)
    steps = [
        Step(path=named[span_id], seconds=ns / 1e9, share=ns / total)
        for span_id, ns in own_ns.items()
        if ns > 0
    ]
    return sorted(steps, key=lambda step: -step.seconds)


def _awaited(node: Node) -> list[Node]:
    """Children that the span waits for: a background child is replaced by its own children."""
    found: list[Node] = []
    for child in node.children:
        background = (
            child.span.name.split(" ", 1)[0] in _BACKGROUND
            or child.span.attributes.get("cleanroom.role") == "service"
        )
        found += _awaited(child) if background else [child]
    return found


# Attribute of a run's span -> its name for people.
# Runs that differ in one of these are not compared.
_CIRCUMSTANCES = {
    "cleanroom.backend": "backend",
    "cleanroom.tier": "tier",
    "cleanroom.policy": "policy",
    "cleanroom.environment": "environment",
    "cleanroom.requested": "phases",
}


def circumstance_differences(now: Sequence[SpanData], other: Sequence[SpanData]) -> list[str]:
    """Circumstances in which the other run differs, each as a phrase; empty where the two can be
    compared.
    """
    here, there = _circumstances(now), _circumstances(other)
    return [
        f"{name} {there[name] or 'none'}, here {here[name] or 'none'}"
        for name in here
        if here[name] != there[name]
    ]


def _circumstances(spans: Sequence[SpanData]) -> dict[str, str]:
    run = next(
        (
            span.attributes
            for span in spans
            if span.attributes.get("cleanroom.subject.kind") == "run"
        ),
        {},
    )
    return {name: str(run.get(attribute, "")) for attribute, name in _CIRCUMSTANCES.items()}


def compare(now: Sequence[SpanData], before: Sequence[Sequence[SpanData]]) -> list[Difference]:
    """Every span of one run against those at the same path in earlier runs;
    the largest change first.

    A duration is slower or faster where it lies outside of all earlier ones by more than noise.
    That needs at least three earlier runs, and none that differs in its circumstances.
    A path is gone where all earlier runs had it.
    """
    alike = not any(circumstance_differences(now, spans) for spans in before)
    current, earlier = _seconds(now), [_seconds(spans) for spans in before]
    always = [
        path for path in (earlier[0] if earlier else ()) if all(path in run for run in earlier)
    ]
    known = dict.fromkeys([*current, *always])
    found = [
        _difference(path, current.get(path), [run[path] for run in earlier if path in run], alike)
        for path in known
    ]
    return sorted(found, key=lambda row: -abs((row.seconds or 0) - (row.median_seconds or 0)))


def _seconds(spans: Sequence[SpanData]) -> dict[str, float]:
    named = paths(trees(spans))
    return {named[span.span_id]: span.duration_ns / 1e9 for span in spans if span.span_id in named}


def _difference(path: str, seconds: float | None, before: list[float], alike: bool) -> Difference:
    lowest, highest, middle = (
        (min(before), max(before), median(before)) if before else (None, None, None)
    )
    if seconds is None:
        verdict = "gone"
    elif lowest is None or highest is None:
        verdict = "new"
    elif len(before) < BASELINE_MIN or not alike:
        verdict = "unknown"
    elif seconds > highest + NOISE_SECONDS:
        verdict = "slower"
    elif seconds < lowest - NOISE_SECONDS:
        verdict = "faster"
    else:
        verdict = "same"
    return Difference(
        path=path,
        seconds=seconds,
        median_seconds=middle,
        lowest_seconds=lowest,
        highest_seconds=highest,
        runs=len(before),
        verdict=verdict,
    )
