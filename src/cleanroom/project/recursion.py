"""Is a command this engine itself? Then running it inside a run would start runs without end."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import PurePosixPath

_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")
_PYTHON = re.compile(r"python(?:[0-9.]+)?")
# Words before a program that leave it the program. Of those with options, options are skipped too.
_BEFORE = {
    "exec",
    "env",
    "command",
    "nohup",
    "time",
    "nice",
    "setsid",
    "stdbuf",
    "timeout",
    "sudo",
    "then",
    "do",
    "else",
    "if",
    "while",
    "until",
    "!",
    "{",
}
_NUMBER = re.compile(r"\d+(\.\d+)?[smhd]?")
_SEPARATORS = set(";&|()\n")


def runs_the_engine(command: str) -> bool:
    """Is `cleanroom-engine` or `python -m cleanroom` the program of any part of this shell
    command?
    """
    return any(_is_engine(words) for words in simple_commands(command))


def simple_commands(command: str) -> Iterator[list[str]]:
    """The parts between `;`, `&&`, `|`, parentheses and line ends, as words."""
    for text in _lines(command):
        lexer = shlex.shlex(text, posix=True, punctuation_chars=";&|()`")
        lexer.commenters = ""
        lexer.whitespace_split = True
        words: list[str] = []
        try:
            for token in lexer:
                if token and set(token) <= _SEPARATORS | {"`"}:
                    yield words
                    words = []
                else:
                    words.append(token.removeprefix("$"))
        except ValueError:  # an open quote: the shell will judge it, the words so far count
            pass
        yield words


def _lines(command: str) -> list[str]:
    return command.replace("\\\n", " ").split("\n")


def _is_engine(words: list[str]) -> bool:
    rest = program_onwards(words)
    if not rest:
        return False
    program = PurePosixPath(rest[0]).name
    if program in ("sh", "bash", "dash", "zsh") and "-c" in rest[1:-1]:
        return runs_the_engine(rest[rest.index("-c") + 1])
    if program in ("uv", "uvx", "poetry", "pipx", "hatch", "pdm", "rye"):
        return any(
            _is_engine(rest[index:])
            for index in range(1, len(rest))
            if PurePosixPath(rest[index]).name == "cleanroom-engine"
            or _PYTHON.fullmatch(rest[index])
        )
    if _PYTHON.fullmatch(program):
        return "-m" in rest and rest[rest.index("-m") + 1 : rest.index("-m") + 2] == ["cleanroom"]
    return program == "cleanroom-engine"


def program_onwards(words: list[str]) -> list[str]:
    """The words from the program on, without assignments, `exec`, `env` and the like."""
    wrapped = False
    for index, word in enumerate(words):
        if _ASSIGNMENT.match(word):
            continue
        if word in _BEFORE or PurePosixPath(word).name in (
            "env",
            "nohup",
            "nice",
            "timeout",
            "sudo",
        ):
            wrapped = True
            continue
        if wrapped and (word.startswith("-") or _NUMBER.fullmatch(word)):
            continue
        return words[index:]
    return []
