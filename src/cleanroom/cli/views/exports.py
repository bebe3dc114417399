"""Variables as a shell, or a program that reads `.env` files, takes them. Pure.

They are a project's, and `eval` makes them the caller's: a name that is none would be a command,
and some names decide which code the caller's own programs run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What a shell, the loader and interpreters take code or programs from.
_DECIDING = re.compile(
    r"(?:LD_|DYLD_|BASH|ZDOTDIR|GIT_|PYTHON|PERL|RUBY|NODE_|NPM_|CARGO_|RUSTC|GO|JAVA_|JDK_|_JAVA|"
    r"MAVEN_|GRADLE_|CLEANROOM_(?:CACHE|RUN_ID|\w+_BIN)$).*"
    r"|PATH|HOME|SHELL|ENV|IFS|CDPATH|FPATH|PS[0-4]|PROMPT_COMMAND|EDITOR|VISUAL|PAGER|BROWSER"
    r"|TMPDIR|XDG_\w+|SSH_\w+|DOCKER_\w+|CONTAINER_HOST|LESSOPEN|LESSCLOSE|MANPAGER|SUDO_ASKPASS"
    r"|TERM|TERMINFO|USER|LOGNAME"
)
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./?&~^*!-]*")


def is_offered(name: str) -> bool:
    """Whether a caller may be given the variable."""
    return bool(_NAME.fullmatch(name)) and not _DECIDING.fullmatch(name)


def shell_lines(variables: Mapping[str, str]) -> list[str]:
    """Lines for `eval` in any POSIX shell."""
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]


def dotenv_lines(variables: Mapping[str, str]) -> list[str]:
    """Lines of an `.env` file, quoted where its readers would take a character for something."""
    return [f"{name}={_dotenv(value)}" for name, value in variables.items()]


def _dotenv(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    if value.isprintable() and "'" not in value and "\\" not in value:
        return f"'{value}'"
    escaped = re.sub(r'([\\"$`])', r"\\\1", value)
    escaped = escaped.replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'
