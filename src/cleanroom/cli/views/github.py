"""A run in a GitHub Actions step: plain lines, annotations at the end, a step summary.

The runner takes commands out of whatever a step prints,
so its commands are switched off (`::stop-commands::TOKEN`) from the first line to the last:
nothing that a phase prints can annotate, mask or set anything.
Everything goes to standard output, since the runner does not keep two streams in order.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cleanroom.cli.output import Output
from cleanroom.cli.views import words
from cleanroom.cli.views.failure import coded
from cleanroom.cli.views.plain import PlainLines
from cleanroom.cli.views.printing import print_lines
from cleanroom.cli.views.summary import headline, summary
from cleanroom.cli.views.words import Line
from cleanroom.evidence.reports.markdown import markdown_report
from cleanroom.evidence.reports.result import RunResult
from cleanroom.evidence.reports.text import (
    failing,
    phase_name,
    place_of,
    plain,
    seconds,
    summary_line,
)
from cleanroom.model.errors import CleanroomError
from cleanroom.model.events import Envelope

EACH_MAX = 10  # of a kind, shown per step
SUMMARY_BYTES = 1 << 20  # of a step; a larger one is dropped as a whole
_WHERE = re.compile(r"(?P<file>[^:\n]+\.toml):(?P<line>\d+):(?P<col>\d+)")


class Annotation(NamedTuple):
    """One command to the runner."""

    kind: str  # error, warning, notice
    title: str
    message: str
    where: str = ""  # FILE:LINE:COLUMN, the file relative to the project

    def command(self, root: str = ".") -> str:
        """As the runner reads it; files are found relative to the repository,
        so the project's folder goes before them.
        """
        found = _WHERE.fullmatch(self.where)
        place = (
            {**found.groupdict(), "file": os.path.normpath(os.path.join(root, found["file"]))}
            if found
            else {}
        )
        properties = {**place, "title": self.title}
        written = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
        return f"::{self.kind} {written}::{_data(self.message)}"


class GithubView:
    """Shows a run to the runner. Commands are off until `finish`, `refuse` or `close`."""

    interval_seconds = 1.0

    def __init__(
        self,
        output: Output,
        *,
        quiet: int = 0,
        verbose: int = 0,
        root: str = ".",
        summary_file: str = "",
    ) -> None:
        self._output = output
        self._quiet = quiet
        self._verbose = verbose
        self._plain = PlainLines(verbose=verbose, show_output=not quiet)
        self._root = root
        self._summary_file = summary_file
        self._token = os.urandom(16).hex()
        self._print([f"::stop-commands::{self._token}"])

    def show(self, envelope: Envelope) -> None:
        self._print_unless_quiet(self._plain.lines(envelope))

    def tick(self, now_ns: int) -> None:
        self._print_unless_quiet(self._plain.tick(now_ns))

    def finish(self, result: RunResult, rerun: str) -> None:
        self._print_unless_quiet(summary(result, rerun, self._verbose))
        self.close()
        self._print(annotation.command(self._root) for annotation in annotated(result))
        if self._summary_file:
            self._summarise(result)

    def refuse(self, error: CleanroomError) -> None:
        self._print(coded(error.code, str(error), error.hint).splitlines())
        self.close()
        self._print(
            [
                Annotation(
                    "error", error.code, _with_hint(str(error), error.hint), error.where
                ).command(self._root)
            ]
        )

    def close(self) -> None:
        """Switch commands on again, once."""
        if self._token:
            self._print([f"::{self._token}::"])
            self._token = ""

    def _summarise(self, result: RunResult) -> None:
        """Add to the step's summary what has room there.

        A file that cannot be written is said, and changes no verdict.
        """
        try:
            with open(self._summary_file, "ab") as file:
                room = SUMMARY_BYTES - file.tell()
                if room > len(headline(result)):
                    file.write(markdown_report(result, bytes_max=room).encode())
        except OSError as error:
            text = f"{self._summary_file}: {error.strerror or error}"
            self._print([Annotation("warning", "step summary", text).command()])

    def _print_unless_quiet(self, lines: Iterable[Line]) -> None:
        if not self._quiet:
            print_lines(self._output, [line._replace(out=True) for line in lines])

    def _print(self, lines: Iterable[str]) -> None:
        print_lines(self._output, [Line(line, out=True) for line in lines])


def annotated(result: RunResult) -> list[Annotation]:
    """What people should see beside the run, what is worst first.

    Of each kind only as many as are shown, the last of which counts the rest.
    """
    found = [*_errors(result), *_warnings(result)]
    if result.outcome != "passed" and not any(each.kind == "error" for each in found):
        found.append(Annotation("error", headline(result), result.reason or summary_line(result)))
    if result.outcome == "passed":
        found.append(Annotation("notice", headline(result), summary_line(result)))
    return [
        one
        for kind in ("error", "warning", "notice")
        for one in _bounded([each for each in found if each.kind == kind])
    ]


def _errors(result: RunResult) -> Iterator[Annotation]:
    if result.error:
        message = result.error.get("message", "")
        found = _WHERE.match(message)
        yield Annotation(
            "error",
            result.error.get("code", ""),
            _with_hint(message, result.error.get("hint", "")),
            found[0] if found else "",
        )
    for canary in (each for each in result.canaries if each.result != "passed"):
        yield Annotation(
            "error", f"canary {canary.name}", f"expected {canary.expected}, found {canary.found}"
        )
    origins = {(phase.workspace, phase.name): phase.origin for phase in result.phases}
    for violation in (each for each in result.violations if each.severity == "violation"):
        yield Annotation(
            "error",
            f"{violation.rule} in {place_of(violation)}",
            words.violation(violation),
            origins.get((violation.workspace, violation.phase), ""),
        )
    first = failing(result)
    for phase in (each for each in result.phases if each.result in ("failed", "error", "timeout")):
        end = words.end_of_phase(phase)
        yield Annotation(
            "error",
            f"phase {phase_name(phase)}",
            "\n".join([end, *map(plain, phase.excerpt if phase is first else ())]),
            phase.origin,
        )


def _warnings(result: RunResult) -> Iterator[Annotation]:
    for rule in result.degraded:
        yield Annotation("warning", "DEGRADED", f"{rule} is not held")
    for violation in (each for each in result.violations if each.severity != "violation"):
        yield Annotation("warning", f"{violation.rule}, tolerated", words.violation(violation))
    if not result.slo_met:
        yield Annotation(
            "warning",
            "SLO missed",
            f"{seconds(result.duration_seconds)} of {seconds(result.slo_seconds)}",
        )
    for phase in (each for each in result.phases if not each.hermetic and each.result != "skipped"):
        yield Annotation("warning", f"phase {phase_name(phase)}", words.NOT_HERMETIC[phase.host])


def _bounded(found: list[Annotation]) -> list[Annotation]:
    if len(found) <= EACH_MAX:
        return found
    rest = len(found) - EACH_MAX + 1
    return [
        *found[: EACH_MAX - 1],
        Annotation(
            found[0].kind, f"and {rest} more", "the summary and the report have all of them"
        ),
    ]


def _with_hint(message: str, hint: str) -> str:
    return f"{message}\nhint: {hint}" if hint else message


def _data(value: str) -> str:
    return "%0D".join(map(plain, value.replace("%", "%25").split("\r"))).replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")
