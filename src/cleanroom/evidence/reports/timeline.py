"""Pictures of a run, as SVG without scripts or external parts:
services and phases as bars on one time axis, and an environment's use of the host.

Colours are told apart by people who see few of them (Okabe and Ito's,
darkened until white text on them is legible), and nothing is said by colour alone.
Text takes the reader's light or dark scheme.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil, floor, log10
from typing import NamedTuple

from cleanroom.core.text import format_size
from cleanroom.evidence.reports.markup import Markup, element, join
from cleanroom.evidence.reports.result import PhaseResult, ResourceResult, RunResult, ServiceResult
from cleanroom.evidence.reports.text import phase_name, plural, seconds

WIDTH = 960.0
ROWS_MAX = 100  # a picture of more is no picture; the tables have all
_LEFT, _RIGHT, _TOP, _ROW, _BAR = 170.0, 24.0, 44.0, 28.0, 16.0
_CHARACTER = 7.8  # width of one at 13 px in the widest of usual fonts (DejaVu Sans)
_LABEL_CHARACTERS = 20

_COLOURS = {
    "passed": "#0072b2",
    "failed": "#b84f00",
    "timeout": "#9c4a7a",
    "error": "#9c4a7a",
    "service": "#007a59",
}
_OTHER = "#6b6b6b"
_MARKS = {
    "passed": "✓",
    "cached": "↺",
    "failed": "✗",
    "error": "✗",
    "timeout": "✗",
    "cancelled": "■",
    "skipped": "·",
    "unverified": "?",
}

_STYLE = (
    ".cr{font:13px system-ui,-apple-system,'Segoe UI',sans-serif}.cr text{fill:#1b1f24}.cr "
    ".dim{fill:#57606a}.cr .grid{stroke:#8c959f;stroke-opacity:.3}"
    ".cr .slo{stroke:#d55e00;stroke-width:1.5;stroke-dasharray:5 4}.cr .back{fill:#fff}"
    "@media(prefers-color-scheme:dark){.cr text{fill:#e6edf3}.cr .dim{fill:#9da7b3}.cr "
    ".back{fill:#14181d}}"
)


class _Row(NamedTuple):
    label: str
    begins: float
    ends: float
    colour: str
    note: str
    ready: float | None = None  # where a service became ready
    bar: bool = True


def timeline(result: RunResult) -> Markup:
    """The run as one picture."""
    rows = [*map(_service_row, result.services), *map(_phase_row, result.phases)]
    shown = rows[:ROWS_MAX]
    end = _axis_end(result, shown)

    def x(at: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * min(max(at, 0.0), end) / end

    bottom = _TOP + _ROW * len(shown)
    height = bottom + 58
    title = f"{result.project or 'run'}: {result.outcome} in {seconds(result.duration_seconds)}"
    return element(
        "svg",
        element("title", title),
        element("desc", _description(result, rows)),
        element("style", Markup(_STYLE)),
        element("rect", class_="back", width=WIDTH, height=height, rx=8),
        element("text", f"{title} (exit {result.exit_code})", x=12, y=24, font_weight="600"),
        join(_axis(x, end, _TOP - 6, bottom)),
        join(_bar(row, _TOP + _ROW * index, x) for index, row in enumerate(shown)),
        join(_slo(result, x, end, bottom)),
        _share(result, len(rows) - len(shown), bottom + 44),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH:.0f} {height:.0f}",
        class_="cr",
        role="img",
    )


def narrow_timeline(result: RunResult) -> Markup:
    """The same for a telephone: what a bar means stands above it,
    and the bars have the whole width.
    """
    width, row_height, bar_height, top = 320.0, 40.0, 8.0, 8.0
    rows = [*map(_service_row, result.services), *map(_phase_row, result.phases)]
    shown = rows[:ROWS_MAX]
    end = _axis_end(result, shown)
    bottom = top + row_height * len(shown)

    def x(at: float) -> float:
        return 12 + (width - 32) * min(max(at, 0.0), end) / end

    def row_element(row: _Row, at: float) -> Markup:
        room = max(4, int((width - 12) / _CHARACTER) - len(row.note))
        label = row.label if len(row.label) <= room else row.label[: room - 1] + "…"
        bar = element(
            "rect",
            x=x(row.begins),
            y=at + 18,
            width=max(x(row.ends) - x(row.begins), 2.0),
            height=bar_height,
            rx=2,
            fill=row.colour,
        )
        words = (
            element("text", label, x=4, y=at + 12),
            element("text", row.note, class_="dim", x=width - 4, y=at + 12, text_anchor="end"),
        )
        return element("g", *words, bar if row.bar else None)

    return element(
        "svg",
        element(
            "title",
            f"{result.project or 'run'}: {result.outcome} in {seconds(result.duration_seconds)}",
        ),
        element("desc", _description(result, rows)),
        element("style", Markup(_STYLE)),
        join(_axis(x, end, top, bottom, 4)),
        join(row_element(row, top + row_height * index) for index, row in enumerate(shown)),
        viewBox=f"0 0 {width:.0f} {bottom + 22:.0f}",
        class_="cr",
        role="img",
    )


def _service_row(service: ServiceResult) -> _Row:
    restarts = f", {plural(service.restarts, 'restart')}" if service.restarts else ""
    note = (
        f"ready in {seconds(service.ready_seconds)}{restarts}"
        if service.ready_seconds is not None
        else "✗ never ready"
    )
    return _Row(
        service.name,
        service.started_seconds,
        service.ended_seconds,
        _COLOURS["service"],
        note,
        service.ready_at_seconds,
    )


def _phase_row(phase: PhaseResult) -> _Row:
    ran = phase.result not in ("cached", "skipped", "unverified") or phase.duration_seconds > 0
    words = [] if phase.result == "passed" else [phase.result]
    budget = (
        f" of {seconds(phase.budget_seconds)}" if phase.budget_seconds is not None and ran else ""
    )
    host = "" if phase.hermetic or not ran else ", on the host or with egress"
    words += [f"{seconds(phase.duration_seconds)}{budget}"] if ran else []
    note = f"{_MARKS.get(phase.result, '?')} {', '.join(words)}{host}"
    ends = phase.started_seconds + phase.duration_seconds
    return _Row(
        phase_name(phase),
        phase.started_seconds,
        ends,
        _COLOURS.get(phase.result, _OTHER),
        note,
        bar=ran,
    )


def _axis_end(result: RunResult, rows: list[_Row]) -> float:
    """A little beyond the last bar; as far as the SLO where that is near enough to leave the bars
    readable.
    """
    end = max([result.duration_seconds, *(row.ends for row in rows), 0.01])
    return (max(end, result.slo_seconds) if result.slo_seconds <= end * 1.6 else end) * 1.03


def _axis(
    x: Callable[[float], float], end: float, top: float, bottom: float, ticks: int = 8
) -> Iterator[Markup]:
    step = _step(end, ticks)
    for number in range(floor(end / step) + 1):
        at = x(number * step)
        yield element("line", class_="grid", x1=at, x2=at, y1=top, y2=bottom)
        yield element(
            "text",
            _tick(number * step, step),
            class_="dim",
            x=at,
            y=bottom + 16,
            text_anchor="middle" if at > 24 else "start",
        )


def _step(end: float, ticks: int) -> float:
    """1, 2 or 5 times a power of ten, so that there are at most so many of them."""
    power: float = 10.0 ** floor(log10(end / ticks))
    return next(power * factor for factor in (1, 2, 5, 10) if end / (power * factor) <= ticks)


def _tick(at: float, step: float) -> str:
    digits = max(0, -floor(log10(step)))
    return f"{at:.{digits}f} s"


def _bar(row: _Row, top: float, x: Callable[[float], float]) -> Markup:
    left, right = x(row.begins), x(row.ends)
    width = max(right - left, 2.0) if row.bar else 0.0
    middle = top + _BAR - 3
    label = (
        row.label
        if len(row.label) <= _LABEL_CHARACTERS
        else row.label[: _LABEL_CHARACTERS - 1] + "…"
    )
    return element(
        "g",
        element("title", f"{row.label}: {row.note}"),
        element("text", label, x=_LEFT - 12, y=middle, text_anchor="end"),
        element("rect", x=left, y=top, width=width, height=_BAR, rx=3, fill=row.colour)
        if row.bar
        else None,
        _starting(left, min(x(row.ready), right), top) if row.ready is not None else None,
        _note(row.note, left, left + width, middle),
    )


def _starting(left: float, right: float, top: float) -> Markup:
    """The part of a service's bar before it was ready: paler, under a mark where it was."""
    pale = element(
        "rect",
        x=left,
        y=top,
        width=max(right - left, 1.0),
        height=_BAR,
        rx=3,
        fill="#ffffff",
        fill_opacity="0.55",
    )
    return join(
        (
            pale,
            element("rect", x=right, y=top - 2, width=2, height=_BAR + 4, fill=_COLOURS["service"]),
        )
    )


def _note(note: str, left: float, right: float, baseline: float) -> Markup:
    """Beside the bar where there is room: after it, before it, else in it."""
    length = len(note) * _CHARACTER
    if right + 6 + length <= WIDTH:
        return element("text", note, x=right + 6, y=baseline)
    if left - 6 - length >= _LEFT:
        return element("text", note, x=left - 6, y=baseline, text_anchor="end")
    return element(
        "text",
        note,
        x=right - 8,
        y=baseline,
        text_anchor="end",
        style="fill:#ffffff;font-weight:600",
    )


def _slo(
    result: RunResult, x: Callable[[float], float], end: float, bottom: float
) -> Iterator[Markup]:
    words = f"SLO {seconds(result.slo_seconds)}"
    if result.slo_seconds > end:
        yield element(
            "text",
            f"{words}, beyond this scale →",
            class_="dim",
            x=WIDTH - _RIGHT,
            y=_TOP - 12,
            text_anchor="end",
        )
        return
    at = x(result.slo_seconds)
    yield element("line", class_="slo", x1=at, x2=at, y1=_TOP - 8, y2=bottom)
    yield element(
        "text",
        words,
        class_="dim",
        x=at,
        y=_TOP - 12,
        text_anchor="middle" if at < WIDTH - 60 else "end",
    )


def _share(result: RunResult, hidden: int, baseline: float) -> Markup:
    """How much of the wall time was the engine's own."""
    total = max(result.duration_seconds, 1e-9)
    share = min(1.0, result.engine_seconds / total)
    rest = f" · {plural(hidden, 'row')} more in the tables" if hidden else ""
    words = (
        f"engine {seconds(result.engine_seconds)} of {seconds(result.duration_seconds)} "
        f"({ceil(share * 100)} %){rest}"
    )
    return element(
        "g",
        element("title", "wall time in which no phase's command ran, as a share of the whole"),
        element(
            "rect",
            x=_LEFT,
            y=baseline - 10,
            width=160,
            height=8,
            rx=4,
            fill=_OTHER,
            fill_opacity="0.3",
        ),
        element(
            "rect",
            x=_LEFT,
            y=baseline - 10,
            width=max(160 * share, 1.0),
            height=8,
            rx=4,
            fill="#e69f00",
        ),
        element("text", words, class_="dim", x=_LEFT + 172, y=baseline - 2),
    )


def _description(result: RunResult, rows: list[_Row]) -> str:
    """The picture in words, for those who do not see it."""
    bars = "; ".join(
        f"{row.label} {row.note}, begins at {seconds(row.begins)}" for row in rows[:ROWS_MAX]
    )
    return (
        f"{bars or 'nothing ran'}. SLO {seconds(result.slo_seconds)}, "
        f"{'met' if result.slo_met else 'missed'}."
    )


def sparkline(resource: ResourceResult, end: float) -> Markup:
    """Memory (area) and CPU (line) of one environment over the run, each to its own peak."""
    width, height = 240.0, 40.0
    cores = max([used for _, used, _ in resource.samples], default=0.0)
    words = f"memory up to {format_size(resource.peak_memory_bytes)}, CPU up to {cores:.1f} cores"

    def points(values: list[tuple[float, float]], peak: float) -> str:
        def point(at: float, value: float) -> str:
            across = width * at / max(end, 1e-9)
            down = height - 2 - (height - 6) * value / max(peak, 1e-9)
            return f"{across:.1f},{down:.1f}"

        return " ".join(point(at, value) for at, value in values)

    memory = points([(at, used) for at, _, used in resource.samples], resource.peak_memory_bytes)
    first, last = (
        (memory.split(",")[0], memory.rsplit(" ", 1)[-1].split(",")[0]) if memory else ("0", "0")
    )
    return element(
        "svg",
        element("title", words),
        element(
            "polyline",
            points=f"{first},{height:.0f} {memory} {last},{height:.0f}",
            fill="#56b4e9",
            fill_opacity="0.5",
        ),
        element(
            "polyline",
            points=points([(at, used) for at, used, _ in resource.samples], cores),
            fill="none",
            stroke="#e69f00",
            stroke_width="1.5",
        ),
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        width=width,
        height=height,
        class_="cr",
        role="img",
    )
