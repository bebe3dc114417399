"""How a part of the engine that is not installed gets into the Python that it runs in.

The lines name the place that the engine was installed from.
A name alone would be looked for on a package index, where it may be somebody else's.
"""

from __future__ import annotations

import importlib.util
import shlex
import sys
import sysconfig
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

NAME = "cleanroom-engine"


class Interpreter(msgspec.Struct, frozen=True, kw_only=True):
    """The Python that this command runs in, and how a library gets into it."""

    program: str
    closed: bool = False  # the distribution's own, which pip refuses to change
    pip: bool = True
    venv: bool = True  # it can make virtual environments


class _Origin(msgspec.Struct):
    """`direct_url.json` of an installed distribution (PEP 610), as far as it is needed."""

    url: str
    vcs_info: dict[str, str] = {}


def this_interpreter() -> Interpreter:
    """The one that runs."""
    marked = Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists()
    return Interpreter(
        program=sys.executable,
        closed=marked and sys.prefix == sys.base_prefix,
        pip=importlib.util.find_spec("pip") is not None,
        venv=importlib.util.find_spec("ensurepip") is not None,
    )


def origin() -> str:
    """The record of where the engine was installed from; empty where there is none."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        return distribution(NAME).read_text("direct_url.json") or ""
    except PackageNotFoundError:
        return ""


def requirement(extra: str, record: str) -> str:
    """The engine with this extra, as pip reads it, quoted for a shell."""
    try:
        found = msgspec.json.decode(record, type=_Origin)
    except msgspec.DecodeError:
        return shlex.quote(f".[{extra}]")
    parts = urlsplit(found.url)
    if parts.scheme == "file":
        return shlex.quote(f"{unquote(parts.path)}[{extra}]")
    vcs = found.vcs_info.get("vcs", "")
    address = f"{vcs}+{found.url}" if vcs else found.url
    return shlex.quote(f"{NAME}[{extra}] @ {address}")


def install_line(extra: str) -> str:
    """The line of a shell that installs the engine with this extra where it runs."""
    record = origin()
    line = line_for(requirement(extra, record), this_interpreter())
    return line if record else f"{line}  # in the engine's repository"


def line_for(what: str, interpreter: Interpreter) -> str:
    """The line that installs `what`, which is quoted, into this Python; into a new virtual
    environment where nothing may be installed into it.
    """
    program = shlex.quote(interpreter.program)
    if interpreter.closed:
        return f"{program} -m venv ~/cleanroom && ~/cleanroom/bin/pip install {what}"
    if interpreter.pip:
        return f"{program} -m pip install {what}"
    return f"uv pip install --python {program} {what}"
