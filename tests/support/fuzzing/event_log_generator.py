"""Events whose every text is hostile, and what no display or report may let through."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any, get_args, get_origin, get_type_hints
from xml.etree import ElementTree

import msgspec

from cleanroom.cli.output import Output
from cleanroom.cli.views.github import GithubView
from cleanroom.cli.views.live import LiveView
from cleanroom.cli.views.view import JsonlView, JsonView, PlainView, View
from cleanroom.evidence.reports.fold import fold
from cleanroom.evidence.reports.markdown import markdown_report
from cleanroom.evidence.reports.render import FILES, render
from cleanroom.model.errors import ProjectError
from cleanroom.model.events import AnyEvent, Envelope, decode, encode
from support.event_log_builder import shop
from support.fuzzing.claims import RAW, CommandResult, bounded, check, redirected
from support.fuzzing.hostile_text import TEXTS, one, sometimes

_WORDS = (
    "test",
    "postgres",
    "app",
    "test-1",
    "test#1",
    "phase",
    "network.egress",
    "warning",
    "20s",
    "build",
)
_INTEGERS = (0, 1, 7, 143, 4711, 2**31, 2**53, 2**63 - 1, -1)
_FLOATS = (0.0, 0.25, 12.5, 1e9, 1e300, -1.0, 5e-324)


def told() -> list[list[Envelope]]:
    return [shop(), shop(failing=False)]


def as_lines(random: Random) -> bytes:
    """A log as an engine writes it, with some events of random fields among those of an ordinary
    run.
    """
    story = list(told()[random.randrange(2)])
    for _ in range(random.randrange(1, 12)):
        at = random.randrange(len(story))
        changed = msgspec.structs.replace(
            story[at],
            event=_random(random, get_args(AnyEvent)[random.randrange(len(get_args(AnyEvent)))]),
        )
        story[at] = changed
    if sometimes(random, 3):
        story = [_hostile(random, envelope) for envelope in story]
    return b"".join(encode(envelope) + b"\n" for envelope in story)


def _hostile(random: Random, envelope: Envelope) -> Envelope:
    """The same event with its name, and what else is free text, replaced."""
    event = envelope.event
    texts = {
        name: one(random, TEXTS)
        for name in ("text", "reason", "cause", "path", "note")
        if isinstance(getattr(event, name, None), str)
    }
    subject = (
        msgspec.structs.replace(event.subject, name=one(random, TEXTS))
        if sometimes(random, 2)
        else event.subject
    )
    return msgspec.structs.replace(
        envelope, event=msgspec.structs.replace(event, subject=subject, **texts)
    )


def _random(random: Random, kind: Any) -> Any:
    """A value of a type of the events."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = get_type_hints(kind)
        return kind(
            **{
                field.name: _random(random, hints[field.name])
                for field in msgspec.structs.fields(kind)
            }
        )
    arguments = get_args(kind)
    origin = get_origin(kind)
    if origin is tuple:
        return tuple(_random(random, arguments[0]) for _ in range(random.randrange(3)))
    if origin is dict:
        names = (
            "hermetic",
            "budget_seconds",
            "slo_seconds",
            "seed",
            "role",
            "of",
            "degraded",
            "requested",
            "version",
            one(random, TEXTS),
        )
        return {
            one(random, names): _random(random, arguments[1]) for _ in range(random.randrange(4))
        }
    if kind in _SIMPLE:
        return _SIMPLE[kind](random)
    if (
        arguments
        and not isinstance(arguments[0], type)
        and origin is not None
        and get_origin(arguments[0]) is None
        and isinstance(arguments[0], str)
    ):
        return one(random, arguments)
    assert arguments, kind
    return _random(random, arguments[random.randrange(len(arguments))])


_SIMPLE: dict[Any, Callable[[Random], Any]] = {
    str: lambda random: one(random, TEXTS if sometimes(random, 3) else _WORDS),
    int: lambda random: _INTEGERS[random.randrange(len(_INTEGERS))],
    float: lambda random: _FLOATS[random.randrange(len(_FLOATS))],
    bool: lambda random: bool(random.randrange(2)),
    type(None): lambda random: None,
    Any: lambda random: one(random, TEXTS),
}


def claims(folder: Path, data: bytes) -> None:
    """Every display and report of these events."""
    envelopes = []
    for line in data.splitlines():
        try:
            envelopes.append(decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
    with bounded():
        result = fold(envelopes)
        folder.mkdir(exist_ok=True)
        for name, content in render(result).items():
            (folder / name).write_bytes(content)
        check_reports(folder)
        page = markdown_report(result, bytes_max=1 << 20)
        check(
            RAW.search(page) is None,
            "Markdown holds what is not plain",
            CommandResult(0, repr(RAW.search(page)), ""),
        )
        for view in (_plain, _json, _jsonl, _github, _live):
            _shown(view, envelopes, str(folder / "summary.md"))


def _plain(summary: str) -> View:
    return PlainView(Output("never"), verbose=2)


def _json(summary: str) -> View:
    return JsonView(Output("never"))


def _jsonl(summary: str) -> View:
    return JsonlView(Output("never"))


def _github(summary: str) -> View:
    return GithubView(Output("never"), verbose=2, summary_file=summary)


def _live(summary: str) -> View:
    from rich.console import Console

    console = Console(
        file=sys.stderr, highlight=False, color_system=None, force_terminal=True, width=100
    )
    return LiveView(Output("never"), verbose=2, console=console)


_OF_LIVE = re.compile(
    r"\x1b\[(?:1A|2K|\?25[lh])|\r"
)  # how the live tree itself moves: one line up, clear the line, hide and show the cursor


def _shown(view: Callable[[str], View], envelopes: list[Envelope], summary: str) -> None:
    """What reaches the streams of one display."""
    out, err = io.BytesIO(), io.BytesIO()
    with redirected(out, err):
        display = view(summary)
        for number, envelope in enumerate(envelopes):
            if view is not _live or number % 16 == 0:  # its redrawing is most of the time
                display.tick(envelope.monotonic_ns)
            display.show(envelope)
        display.tick(0)
        display.finish(fold(envelopes), "")
        display.close()
        display = view(summary)
        display.refuse(
            ProjectError(
                "CR-PROJECT-005",
                "a\x1b[2J: ##[error]x\n::error::forged\u202e",
                where="make.toml:1:1",
            )
        )
        display.close()
    said = CommandResult(0, out.getvalue().decode(), err.getvalue().decode())
    found = RAW.search(
        _OF_LIVE.sub("", said.out + said.err) if view is _live else said.out + said.err
    )
    check(found is None, f"{view.__name__} showed what is not plain: {found}", said)
    if view is _github:
        check_commands(said)


def check_commands(said: CommandResult) -> None:
    """Nothing but our own annotations is a command to the runner while it listens."""
    token = ""
    for line in said.out.split("\n"):
        if token:
            token = "" if line == f"::{token}::" else token
        elif line.startswith("::stop-commands::"):
            token = line.removeprefix("::stop-commands::")
        else:
            own = line.startswith(("::error ", "::warning ", "::notice ")) or not line
            check(own, f"a line outside of the fence: {line[:100]!r}", said)
    check(said.err == "", "the other stream was used", said)


class _Page(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in (
            "script",
            "iframe",
            "object",
            "embed",
            "link",
            "img",
            "a",
            "base",
            "form",
            "input",
        ):
            self.found.append(tag)
        self.found += [
            f"{tag} {name}"
            for name, value in attributes
            if name.startswith("on") or name in ("href", "src", "xlink:href")
        ]


def check_reports(folder: Path) -> None:
    """The page runs and loads nothing, the XML is XML and attaches nothing that a process printed,
    and all of them are clean text.
    """
    for name in FILES.values():
        text = (folder / name).read_bytes().decode()
        found = RAW.search(text)
        check(found is None, f"{name} holds what is not plain", CommandResult(0, repr(found), ""))
    page = _Page()
    page.feed((folder / FILES["html"]).read_text())
    check(page.found == [], f"the page would act on {page.found}")
    for case in ElementTree.fromstring((folder / FILES["junit"]).read_bytes()).iter("system-out"):
        attached = [line for line in (case.text or "").splitlines() if "[[ATTACHMENT" in line]
        check(len(attached) <= 1, f"attached: {attached}")
