"""Every way to use a command wrongly, made from the commands themselves:
exit 2, an error in the form of all errors, and nothing was done.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cleanroom.cli.app import command_names
from cleanroom.cli.options import Duration
from support.fuzzing.claims import call
from support.fuzzing.hostile_text import TEXTS
from support.fuzzing.targets import surroundings

MAKE_TOML = '[lifecycle.test]\ncommand = "true"\n'
NO_NAMES = ("nonsense", "", "\x1b[2J", "\u202e", "\udcff", "a\nb", "x" * 5000)


def every_command() -> Iterator[tuple[list[str], click.Command]]:
    """Each command that does something, with its words."""
    for name, command in command_names().items():
        if isinstance(command, click.Group):
            yield from (([name, inner], found) for inner, found in command.commands.items())
        else:
            yield [name], command


def needed(command: click.Command) -> list[str]:
    """The arguments without which the command is not understood."""
    return [
        _example(parameter)
        for parameter in command.params
        if isinstance(parameter, click.Argument) and parameter.required
    ]


def _example(parameter: click.Parameter) -> str:
    return parameter.type.choices[0] if isinstance(parameter.type, click.Choice) else "test"


def wrong_values(kind: click.ParamType) -> tuple[str, ...]:
    """What a value of this type cannot be."""
    if isinstance(kind, click.Choice):
        return NO_NAMES
    if isinstance(kind, click.IntRange):
        return ("x", "1.5", "1e3", "", "9" * 5000, str(2**63), "0x10", "\x1b[1m1")
    if isinstance(kind, click.FloatRange):
        return ("x", "-1", "nan", "inf", "-inf", "1e308", "9" * 400, "", "1\x1b[2J")
    if isinstance(kind, Duration):
        return (
            "soon",
            "0",
            "-1s",
            "1.5.5s",
            "9" * 400 + "h",
            "inf",
            "nan",
            "20 s",
            "",
            "1s\x1b[2J",
        )
    if isinstance(kind, click.Path) and kind.exists:
        return ("nowhere", "", "nowhere\x1b[2J", "\udcff", "x" * 5000)
    return ()


def misuses() -> Iterator[list[str]]:
    yield from (["nonsense"], ["pipelin", "test"], ["--nonsense"], ["\x1b[2J"], ["\udcff"])
    for words, command in every_command():
        yield [*words, *needed(command), "--no-such-option"]
        yield [*words, *needed(command), "--no-such-option\x1b[2J=\u202e"]
        if needed(command):
            yield words
        if not any(
            isinstance(parameter, click.Argument) and parameter.nargs == -1
            for parameter in command.params
        ):
            yield [*words, *needed(command), *["one-too-many"] * 3]
        for parameter in command.params:
            for value in (
                wrong_values(parameter.type) if not getattr(parameter, "count", False) else ()
            ):
                given = (
                    [parameter.opts[-1], value] if isinstance(parameter, click.Option) else [value]
                )
                yield [
                    *words,
                    *(needed(command) if isinstance(parameter, click.Option) else ()),
                    *given,
                ]
            if (
                isinstance(parameter, click.Option)
                and not parameter.is_flag
                and not parameter.count
                and not parameter._flag_needs_value
            ):
                yield [*words, *needed(command), parameter.opts[-1]]
            if isinstance(parameter, click.Option) and parameter.is_flag:
                yield [*words, *needed(command), f"{parameter.opts[-1]}=x"]
    yield from (
        [group, "nonsense"]
        for group, command in command_names().items()
        if isinstance(command, click.Group)
    )
    yield from (["explain", code] for code in ("CR-NOPE-999", *NO_NAMES))
    yield from (["plan", name] for name in NO_NAMES)
    yield from (["pipeline", "test", name, "--backend", "memory"] for name in NO_NAMES)
    yield from (["run", name, "--backend", "memory"] for name in NO_NAMES)
    yield from (["pipeline", "test", "--allow-degraded", rule] for rule in NO_NAMES)


@pytest.mark.parametrize(
    "arguments", list(misuses()), ids=lambda arguments: ascii(" ".join(arguments))[1:60]
)
def test_what_is_not_understood_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
):
    """Exit 2, `error[CR-...]: what`, a hint and where it is explained, on standard error alone;
    nothing ran and nothing was written.
    """
    (tmp_path / "make.toml").write_text(MAKE_TOML)
    monkeypatch.chdir(tmp_path)
    with surroundings(tmp_path):
        said = call(arguments, statuses=(2,))
    assert said.out == ""
    first, *rest = said.err.splitlines()
    assert len(first) < 2100
    assert rest[-1].startswith("explain: cleanroom-engine explain CR-")


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_free_text_on_the_command_line_is_only_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
):
    """Names of runs, environments and files that may be anything reach no terminal as they are,
    and lead to no file elsewhere.
    """
    (tmp_path / "make.toml").write_text(MAKE_TOML)
    monkeypatch.chdir(tmp_path)
    with surroundings(tmp_path):
        call(["plan", f"--env={text}"], statuses=(0,))
        call(["config", "show", f"--env={text}"], statuses=(0,))
        for reader in (["events", "show"], ["events", "replay"], ["trace"]):
            call([*reader, "--", text], statuses=(2, 4))
        call(["trace", f"--compare={text}"], statuses=(2, 4))
        call(["report", f"--from={text}"], statuses=(2,))
        call(["init", f"--from={text}"], statuses=(2,))
