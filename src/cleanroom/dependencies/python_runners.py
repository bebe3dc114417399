"""What tox and nox install into the environments that they make. Pure; nothing of it runs.

Both hand pip the lines of a requirements file, so that an environment here is such a text.
"""

from __future__ import annotations

import ast
import configparser
import itertools
import os
import re
import shlex
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from cleanroom.dependencies import requirements
from cleanroom.dependencies.discovery import ProjectFolder
from cleanroom.dependencies.model import Problem

TOX_INI, TOX_TOML, NOXFILE = "tox.ini", "tox.toml", "noxfile.py"
FILES = (TOX_INI, TOX_TOML, NOXFILE)
PROJECT = "pyproject.toml"
_MAX = 1 << 20  # characters of a file
_ENVIRONMENTS_MAX = 256
_DEPTH = 8  # references in references
_PLAIN = "py"  # the environment of the interpreter at hand
_BASE = "testenv"
_CONDITION = re.compile(r"([!\w.{},-]+)\s*:\s+(\S.*)")
_REFERENCE = re.compile(r"\{\[([^\]{}]+)\](\w+)\}")
_FOLDER = re.compile(r"\{(?:toxinidir|tox_root)\}(?:/|\{/\})?")
_PYTHON = re.compile(r"(?:py|python)?([23])\.?([0-9]{1,2})")
_SUBSTITUTED = re.compile(r"\{[^{}]*\}")


class Environment(NamedTuple):
    """What one environment gets."""

    requirements: str  # as in a requirements file
    python: str = ""  # the only version that it is made for, as markers have it
    problems: tuple[Problem, ...] = ()


def environments(name: str, content: bytes) -> tuple[Environment, ...]:
    """The environments that a file describes, each text once."""
    text = content.decode(errors="replace")
    if len(text) > _MAX:
        return ()
    readers = {TOX_INI: _tox_ini, TOX_TOML: _tox_toml, PROJECT: _pyproject, NOXFILE: _noxfile}
    found = itertools.islice(readers[name](text), _ENVIRONMENTS_MAX)
    return tuple(dict.fromkeys(one for one in found if one.requirements or one.problems))


def nested(folder: ProjectFolder, found: Mapping[str, bytes]) -> dict[str, bytes]:
    """Requirements files that environments name, by paths relative to the root."""
    named: dict[str, bytes] = {}
    for path, one in _described(folder.path, found):

        def read(name: str, path: str = path, text: str = one.requirements) -> bytes | None:
            if name == path:
                return text.encode(errors="replace")
            return folder.read(os.path.relpath(name, folder.path or "."))

        named |= requirements.nested(path, read)
    return {name: content for name, content in named.items() if name not in found}


def needs(
    folder: str, found: Mapping[str, bytes]
) -> Iterator[tuple[str, tuple[Problem, ...], requirements.Requirements]]:
    """The path of each environment's file, what only code computes, and its requirements."""
    for path, one in _described(folder, found):
        text = one.requirements.encode(errors="replace")
        read = requirements.parse(path, {**found, path: text})
        marker = f"python_version == '{one.python}'" if one.python else ""
        entries = tuple(each.where(marker) for each in read.entries)
        yield path, one.problems, read._replace(entries=entries)


def _described(folder: str, found: Mapping[str, bytes]) -> Iterator[tuple[str, Environment]]:
    for name in (PROJECT, *FILES):
        path = os.path.normpath(os.path.join(folder, name))
        for one in environments(name, found[path]) if path in found else ():
            yield path, one


# --- tox


def _pyproject(text: str) -> Iterator[Environment]:
    tox = _table(_table(_toml(text), "tool"), "tox")
    legacy = tox.get("legacy_tox_ini")
    yield from _tox_ini(legacy) if isinstance(legacy, str) else _tox_tables(tox)


def _tox_toml(text: str) -> Iterator[Environment]:
    yield from _tox_tables(_toml(text))


def _tox_ini(text: str) -> Iterator[Environment]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return
    sections = {name: dict(parser.items(name)) for name in parser.sections()}
    core = sections.get("tox", {})
    yield _own(core.get("requires", "").splitlines())
    listed = core.get("envlist", core.get("env_list", ""))
    own = [name.partition(":")[2] for name in sections if name.startswith(f"{_BASE}:")]
    named = [_PLAIN, *_expanded(listed), *(one for name in own for one in _expanded(name))]
    for name in dict.fromkeys(named):
        lines = _ini_value(sections, _section_of(sections, name), "deps", _DEPTH)
        yield _environment(name, lines.splitlines())


def _section_of(sections: Mapping[str, Mapping[str, str]], name: str) -> str:
    """The section that gives an environment's `deps`."""
    for section, keys in sections.items():
        own = section.partition(":")[2] if section.startswith(f"{_BASE}:") else ""
        if own and name in _expanded(own):
            if "deps" in keys:
                return section
            base = keys.get("base", _BASE).split(",")[0].strip()
            return base if base in sections else _BASE
    return _BASE


def _ini_value(
    sections: Mapping[str, Mapping[str, str]], section: str, key: str, depth: int
) -> str:
    value = sections.get(section, {}).get(key, "")
    if not depth or len(value) > _MAX:
        return ""

    def referred(found: re.Match[str]) -> str:
        return _ini_value(sections, found[1], found[2], depth - 1)

    return _REFERENCE.sub(referred, value) if _REFERENCE.search(value) else value


def _tox_tables(tox: Mapping[str, Any]) -> Iterator[Environment]:
    yield _own(_strings(tox.get("requires")))
    base = _table(tox, "env_run_base")
    tables = _table(tox, "env")
    for name in dict.fromkeys((_PLAIN, *_strings(tox.get("env_list")), *tables)):
        own = _table(tables, name)
        yield _environment(name, _toml_lines(tox, own.get("deps", base.get("deps")), _DEPTH))


def _toml_lines(tox: Mapping[str, Any], value: object, depth: int) -> list[str]:
    if isinstance(value, str):
        return value.splitlines()
    found: list[str] = []
    for one in value if isinstance(value, list) and depth else ():
        if isinstance(one, str):
            found.append(one)
        elif isinstance(one, dict) and one.get("replace") == "ref":
            at: object = tox
            for key in _strings(one.get("of")):
                at = at.get(key) if isinstance(at, dict) else None
            found += _toml_lines(tox, at, depth - 1)
        else:
            found.append("{computed}")
    return found


def _own(lines: list[str]) -> Environment:
    """What tox wants beside itself: it makes an environment where the one at hand lacks it."""
    kept = [line.strip() for line in lines if line.strip()]
    return Environment("\n".join([*kept, "tox"]) + "\n") if kept else Environment("")


def _environment(name: str, lines: list[str]) -> Environment:
    factors = frozenset(name.split("-"))
    kept: list[str] = []
    problems: list[Problem] = []
    for line in lines:
        conditional = _CONDITION.fullmatch(line.strip())
        text = conditional[2] if conditional else line.strip()
        if conditional and not _applies(conditional[1], factors):
            continue
        text = _FOLDER.sub("", text).replace("{/}", "/")
        if _SUBSTITUTED.search(text):
            problems.append(_computed(text, "tox"))
        elif text:
            kept.append(text)
    versions = [found for one in sorted(factors) if (found := _PYTHON.fullmatch(one))]
    python = f"{versions[0][1]}.{versions[0][2]}" if versions else ""
    text = "".join(f"{line}\n" for line in kept)
    return Environment(text, python if text else "", tuple(problems))


def _applies(condition: str, factors: frozenset[str]) -> bool:
    """Whether `a-b,!c` holds: one of its alternatives with all of its factors."""
    return any(
        all(
            (part.removeprefix("!") in factors) != part.startswith("!")
            for part in alternative.split("-")
        )
        for alternative in _expanded(condition)
    )


def _expanded(listed: str) -> list[str]:
    """Names of a list whose braces stand for alternatives: `py{310,311}-{a,b}`."""
    plain = "\n".join(line.partition("#")[0] for line in listed.splitlines())
    names = re.findall(r"(?:\{[^{}]*\}|[^\s,{}])+", plain)
    found: list[str] = []
    for name in names[:_ENVIRONMENTS_MAX]:
        parts = re.findall(r"\{([^{}]*)\}|([^{}]+)", name)
        choices = [
            [_range(one.strip()) for one in inner.split(",")] if inner else [[text]]
            for inner, text in parts
        ]
        flat = [[each for one in choice for each in one] for choice in choices]
        made = itertools.product(*flat)
        found += ["".join(one) for one in itertools.islice(made, _ENVIRONMENTS_MAX)]
    return found


def _range(text: str) -> list[str]:
    """The numbers of `310-312`, as newer ones of tox read it."""
    ends = re.fullmatch(r"([0-9]{1,4})-([0-9]{1,4})", text)
    if ends is None or not 0 <= int(ends[2]) - int(ends[1]) < 100:
        return [text]
    return [str(number) for number in range(int(ends[1]), int(ends[2]) + 1)]


# --- nox


def _noxfile(text: str) -> Iterator[Environment]:
    try:
        # about escapes in its strings
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    constants = {
        target.id: statement.value
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    for function in tree.body:
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            yield _session(function, constants)


def _session(function: ast.stmt, constants: Mapping[str, ast.expr]) -> Environment:
    """What a session installs."""
    lines: list[str] = []
    problems: list[Problem] = []
    for call in ast.walk(function):
        called = getattr(call, "func", None)
        if not isinstance(call, ast.Call) or not isinstance(called, ast.Attribute):
            continue
        if called.attr != "install" or getattr(called.value, "id", "") != "session":
            continue
        words: list[str] = []
        for argument in call.args:
            known = _words(argument, constants)
            if known is None:
                problems.append(_computed(_source(argument), "nox"))
            words += known or ()
        lines += _lines(words)
    return Environment("".join(f"{line}\n" for line in lines), "", tuple(problems))


def _words(argument: ast.expr, constants: Mapping[str, ast.expr]) -> list[str] | None:
    """The texts of one argument; None where code computes them."""
    value = argument.value if isinstance(argument, ast.Starred) else argument
    if isinstance(value, ast.Name) and value.id in constants:
        value = constants[value.id]
    # pyproject.toml has them, and all of its groups are read.
    if isinstance(value, ast.Call) and getattr(value.func, "attr", "") == "dependency_groups":
        return []
    try:
        found = ast.literal_eval(value)
    except (ValueError, TypeError, RecursionError, MemoryError):
        return None
    if isinstance(found, str):
        return [found]
    is_texts = isinstance(found, list | tuple) and all(isinstance(one, str) for one in found)
    return list(found) if is_texts else None


def _lines(words: list[str]) -> Iterator[str]:
    """Words of pip's command line as lines of a requirements file."""
    rest = iter(words)
    for word in rest:
        if word in ("-r", "--requirement", "-c", "--constraint"):
            yield f"{word} {shlex.quote(next(rest, ''))}"
        elif word in ("-e", "--editable"):
            # the project itself, or a folder of it
            next(rest, "")
        elif word == "--pre" or not word.startswith("-"):
            yield word.replace("\n", " ")


def _source(node: ast.expr) -> str:
    try:
        return ast.unparse(node)
    except (ValueError, RecursionError, MemoryError):
        return "an argument of session.install"


def _computed(text: str, program: str) -> Problem:
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)[:100]
    return Problem(
        entry=shown,
        why=f"only {program} itself computes it, and its code does not run here",
        hint="write it out, or name the packages in pyproject.toml or a requirements file",
    )


# --- tables


def _toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return {}


def _table(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def _strings(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
