"""What a benchmark found: every measurement, its median and spread,
and the target it stands beside.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import msgspec


class BenchmarkFailed(Exception):
    """There is no number: what was to be measured did not do its work."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One number with all its measurements; without any where what was to be measured is not here,
    which `note` says.
    """

    benchmark: str
    name: str
    unit: str
    values: tuple[float, ...]
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """None where there is no target, or no number."""
        if not self.values:
            return None
        if self.at_most is not None:
            return self.median <= self.at_most
        return None if self.at_least is None else self.median >= self.at_least

    @property
    def target(self) -> str:
        if self.at_most is not None:
            return f"<= {number(self.at_most)} {self.unit}"
        return "" if self.at_least is None else f">= {number(self.at_least)} {self.unit}"

    @property
    def verdict(self) -> str:
        if not self.values:
            return "not measured" if self.target else ""
        return {None: "", True: "met", False: "MISSED"}[self.met]

    @property
    def found(self) -> str:
        """The number with its unit, as a table shows it."""
        return f"{number(self.median)} {self.unit}" if self.values else "not here"

    @property
    def spread(self) -> str:
        return (
            "" if not self.values else f"{number(min(self.values))} to {number(max(self.values))}"
        )

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> Figure:
        """The inverse of `as_json`."""
        kept = {
            name: said[name]
            for name in ("benchmark", "name", "unit", "at_most", "at_least", "note")
        }
        return cls(values=tuple(said["values"]), **kept)

    def as_json(self) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark,
            "name": self.name,
            "unit": self.unit,
            "median": self.median if self.values else None,
            "lowest": min(self.values, default=None),
            "highest": max(self.values, default=None),
            "n": len(self.values),
            "at_most": self.at_most,
            "at_least": self.at_least,
            "met": self.met,
            "note": self.note,
            "values": list(self.values),
        }


def compared(
    benchmark: str,
    name: str,
    bare_name: str,
    pairs: Sequence[tuple[float, float]],
    *,
    difference_at_most: float | None = None,
    ratio_at_most: float | None = None,
    beside: str = "bare",
) -> list[Figure]:
    """Figures of (bare, measured) seconds that were taken in turn:
    both, and per pair their difference and ratio.

    `beside` is what bare is called.
    """
    bare, measured = [[1000 * seconds for seconds in column] for column in zip(*pairs, strict=True)]
    ratios = tuple(there / here for here, there in zip(bare, measured, strict=True))
    differences = tuple(there - here for here, there in zip(bare, measured, strict=True))
    return [
        Figure(benchmark=benchmark, name=bare_name, unit="ms", values=tuple(bare)),
        Figure(benchmark=benchmark, name=name, unit="ms", values=tuple(measured)),
        Figure(
            benchmark=benchmark,
            name=f"{name}: more than {beside}",
            unit="ms",
            values=differences,
            at_most=difference_at_most,
        ),
        Figure(
            benchmark=benchmark,
            name=f"{name}: times {beside}",
            unit="x",
            values=ratios,
            at_most=ratio_at_most,
        ),
    ]


def number(value: float) -> str:
    """Three significant figures, thousands set apart, never an exponent."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return (
        f"{value:.0f}"
        if abs(value) >= 100
        else f"{value:.1f}"
        if abs(value) >= 10
        else f"{value:.2f}"
    )


def as_text(figures: Sequence[Figure]) -> str:
    """One line each, for a person at a terminal."""
    names = max(len(figure.name) for figure in figures)
    lines = []
    for figure in figures:
        found = (
            f"{number(figure.median):>9} {figure.unit:<8} ({figure.spread}; n {len(figure.values)})"
            if figure.values
            else f"{figure.found:>18}"
        )
        beside = f"{found:<52} target {figure.target}: {figure.verdict}" if figure.target else found
        lines.append(
            f"  {figure.name:<{names}} {beside}{f'  [{figure.note}]' if figure.note else ''}"
        )
    return "\n".join(lines)


def as_markdown(figures: Sequence[Figure]) -> str:
    """A table for docs/benchmarks.md."""
    rows = ["| | median | spread | n | target | |", "| --- | --- | --- | --- | --- | --- |"]
    for figure in figures:
        name = f"{figure.name} ({figure.note})" if figure.note else figure.name
        cells = [
            name,
            figure.found,
            figure.spread,
            str(len(figure.values)),
            figure.target,
            figure.verdict,
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)
