"""The files of a project that decide what runs: each make.toml, and what it names to be run.

Every phase and service of the files counts, not only what was asked for: another command runs them
another time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cleanroom.project.raw_project import RawProject
from cleanroom.project.recursion import program_onwards, simple_commands
from cleanroom.project.settings import Layer

# Programs whose first argument that is no option is what they run.
_SHELLS = ("sh", "bash", "dash", "zsh", "ksh")
_SCRIPTED = """fish source . python python2 python3 pypy3 node deno bun tsx ts-node ruby perl php
lua Rscript julia tclsh pwsh groovy"""
_INTERPRETERS = frozenset((*_SHELLS, *_SCRIPTED.split()))
# Programs whose own first argument is such a program.
_RUNNERS = ("uv", "poetry", "pdm", "hatch", "rye", "pipx", "run")


def make_tomls(root: Path, project: RawProject, name: str) -> tuple[str, ...]:
    """The project's file and that of each workspace, absolute, whether there is one or not.

    Where the project's is another one, a make.toml beside it would go before it.
    """
    folders = ("", *(workspace.path for workspace in project.workspaces))
    found = [os.path.normpath(root / folder / name) for folder in folders]
    return tuple(dict.fromkeys((*found, str(root / project.source.name))))


def named(root: Path, path: Path, project: RawProject, layers: Iterable[Layer]) -> Iterator[str]:
    """What one file names to be run, absolute: programs of commands, and init files of services.

    `path` is the workspace that the commands run in, `root` the project; `layers` are the settings
    of all phases.
    """
    for phase in project.phases.values():
        place = path / phase.working_directory
        for command in phase.commands:
            yield from _inside(root, place, programs(command))
    for layer in layers:
        for command in layer.settings.command or ():
            yield from _inside(root, path, programs(command))
        for commands in (layer.settings.commands or {}).values():
            for command in commands:
                yield from _inside(root, path, programs(command))
        for service in (layer.settings.services or {}).values():
            yield from _inside(root, root, (*(service.init or ()), *_run(service.command or ())))


def programs(command: str) -> Iterator[str]:
    """The files that a shell command runs: programs given by a path, and interpreters' scripts."""
    place = ""
    for words in simple_commands(command):
        rest = program_onwards(words)
        while rest and _name(rest[0]) in _RUNNERS:
            rest = rest[1:]
        if rest[:1] == ["cd"]:
            place = os.path.join(place, *rest[1:2])
        yield from (os.path.join(place, file) for file in _run(rest))


def _run(words: Sequence[str]) -> Iterator[str]:
    """The same of one simple command."""
    if not words:
        return
    program, *arguments = words
    if "/" in program:
        yield program
    name = _name(program)
    if name in _SHELLS and "-c" in arguments[:-1]:
        yield from programs(arguments[arguments.index("-c") + 1])
    elif name in _INTERPRETERS:
        yield from [word for word in arguments if not word.startswith("-")][:1]


def _inside(root: Path, place: Path, words: Iterable[str]) -> Iterator[str]:
    """Those words as paths, where they are some inside the project."""
    for word in words:
        found = os.path.normpath(place / word)
        if found.startswith(f"{root}{os.sep}"):
            yield found


def _name(program: str) -> str:
    return program.rpartition("/")[2]
