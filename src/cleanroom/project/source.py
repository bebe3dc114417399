"""One file of a project: its text, its table, and errors with a position in it.

A `Node` is a value with the path of its key.
Its readers return a value of the requested type, or raise a `ProjectError` that names file, line,
column, key, and what was expected and found there.
"""

from __future__ import annotations

import codecs
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol

from cleanroom.core.files import open_to_read
from cleanroom.model.errors import CleanroomError, ProjectError
from cleanroom.model.plan import Origin
from cleanroom.project import units
from cleanroom.project.positions import (
    DEPTH_MAX,
    KeyPath,
    Positions,
    TooDeep,
    deep_key,
    deep_value,
)
from cleanroom.project.repeated_keys import repeated_key

# The largest real file has 12 KB. Twenty times that is no project any more, and is still read well
# within a second.
BYTES_MAX = 256 * 1024

_BARE = re.compile(r"[A-Za-z0-9_-]+")
# How tomllib's messages begin where a key or a table stands twice.
_REPEATED = ("Cannot declare", "Cannot overwrite", "Cannot redefine", "Cannot mutate", "Duplicate")
_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


class KeyPositions(Protocol):
    """Line and column, from 1, of each key of a file and of its value."""

    def key(self, path: KeyPath) -> tuple[int, int]: ...
    def value(self, path: KeyPath) -> tuple[int, int]: ...


class Source:
    """A file that was read. `name` is its name in messages."""

    def __init__(
        self, name: str, text: str, table: dict[str, Any], positions: KeyPositions
    ) -> None:
        self.name = name
        self.text = text
        self.table = table
        self.positions = positions

    @property
    def node(self) -> Node:
        """The whole table."""
        return Node(self, (), self.table)


def read_source(file: Path, name: str) -> Source:
    """Read a TOML file of at most BYTES_MAX.

    Raises:
        ProjectError: the file is missing, irregular, too large, not UTF-8, not TOML or nested too
            deeply.
    """
    return parse_source(read_bytes(file, name), name)


def parse_source(data: bytes, name: str) -> Source:
    """Parse the bytes of a TOML file.

    Raises:
        ProjectError: they are not UTF-8, not TOML or nested too deeply.
    """
    text = decoded(data, name)
    if (offset := deep_key(text)) is not None:
        raise _too_deep(text, offset, name)
    try:
        table = tomllib.loads(text)
        return Source(name, text, table, Positions(text))
    except ValueError as error:  # TOMLDecodeError, and an integer of more digits than Python takes
        raise _twice(text, str(error), name) or _not_toml(text, str(error), name) from None
    except RecursionError:
        raise _too_deep(text, deep_value(text) or 0, name) from None
    except TooDeep as deep:
        raise _too_deep(text, deep.offset, name) from None


def read_bytes(file: Path, name: str) -> bytes:
    """The bytes of a file of at most BYTES_MAX.

    Raises:
        ProjectError: the file is missing, irregular or too large.
    """
    try:
        with open_to_read(file) as stream:
            data = stream.read(BYTES_MAX + 1)
    except FileNotFoundError:
        raise ProjectError(
            "CR-PROJECT-001",
            f"expected a file, found none in {file.parent}",
            hint="`cleanroom-engine init` writes one, or [tool.cleanroom] in pyproject.toml is one",
            where=name,
        ) from None
    except OSError as error:
        raise _unreadable(name, error.strerror or str(error)) from None
    if len(data) > BYTES_MAX:
        raise _unreadable(name, f"expected at most {BYTES_MAX // 1024} KiB, found more")
    return data


def _unreadable(name: str, why: str) -> ProjectError:
    return ProjectError(
        "CR-PROJECT-002",
        f"cannot be read: {why}",
        hint="make it a readable text file",
        where=f"{name}:1:1",
    )


def decoded(data: bytes, name: str) -> str:
    """The text of these bytes, with line ends of Unix and without a byte order mark.

    Raises:
        ProjectError: they are not UTF-8.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ProjectError(
            "CR-PROJECT-002",
            "expected UTF-8, found UTF-16",
            hint="save the file as UTF-8; TOML has no other encoding",
            where=f"{name}:1:1",
        )
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        found = f"byte 0x{data[error.start]:02x}"
        raise ProjectError(
            "CR-PROJECT-002",
            f"expected UTF-8 text, found {found}",
            hint="save the file as UTF-8",
            where=f"{name}:{line}:{column}",
        ) from None


def _not_toml(text: str, message: str, name: str) -> ProjectError:
    found = _POSITION.search(message)
    if found and found.group(1):
        line, column = int(found.group(1)), int(found.group(2))
    elif found:
        line, column = text.count("\n", 0, len(text.rstrip())) + 1, 1
    else:
        line, column = 1, 1
    what = _POSITION.sub("", message)
    hint = "correct the line, or the string or bracket that was opened before it and not closed"
    return ProjectError(
        "CR-PROJECT-003",
        f"expected TOML, found: {what}",
        hint=hint,
        where=f"{name}:{line}:{column}",
    )


def _twice(text: str, message: str, name: str) -> ProjectError | None:
    """The error of a key that stands twice, with both places; None where it is another error."""
    found = repeated_key(text) if message.startswith(_REPEATED) else None
    if found is None:
        return None
    first, second = (f"{name}:{line}:{column}" for line, column in found[1:])
    return ProjectError(
        "CR-PROJECT-003",
        f"{dotted(found.path)}: expected this key once, found it twice, first at {first}",
        hint="keep one of them; a table's keys stand in one place",
        where=second,
    )


def _too_deep(text: str, offset: int, name: str) -> ProjectError:
    line = text.count("\n", 0, offset) + 1
    column = offset - (text.rfind("\n", 0, offset) + 1) + 1
    return ProjectError(
        "CR-PROJECT-004",
        f"expected at most {DEPTH_MAX} levels of keys, lists and tables, found more",
        hint="no key that means anything is nested so deeply: remove it",
        where=f"{name}:{line}:{column}",
    )


def dotted(path: KeyPath) -> str:
    """A path as TOML writes it: lifecycle."check:security".commands[1]."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            word = (
                part
                if _BARE.fullmatch(part)
                else '"' + part.encode("unicode_escape").decode().replace('"', '\\"') + '"'
            )
            shown += f".{word}" if shown else word
    return shown


def describe_value(value: object) -> str:
    """A value for a message: short, on one line, and never deep."""
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    shown = repr(value) if isinstance(value, str | int | float) else str(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def nearest(word: str, known: Iterable[str], *, likeness: float = 0.6) -> str:
    """The known word that is most like `word`; "" where none is like it.

    `likeness` is from 0 to 1, which is the same word.
    """
    from difflib import get_close_matches

    by_lower = {name.lower(): name for name in known}
    close = get_close_matches(word[:64].lower(), by_lower, n=1, cutoff=likeness)
    return by_lower[close[0]] if close else ""


class Node(NamedTuple):
    """A value of a file, and the path of its key.

    `text`, `flag`, `integer` and the other readers raise ProjectError where the value is none.
    """

    source: Source
    path: KeyPath
    value: Any

    @property
    def origin(self) -> Origin:
        return Origin(self.source.name, *self.source.positions.key(self.path))

    @property
    def key(self) -> str:
        return dotted(self.path)

    def child(self, key: str | int) -> Node:
        return Node(self.source, (*self.path, key), self.value[key])

    def get(self, key: str) -> Node | None:
        """The child, where there is one."""
        return self.child(key) if isinstance(self.value, dict) and key in self.value else None

    def error(
        self,
        code: str,
        message: str,
        *,
        hint: str = "",
        kind: type[CleanroomError] = ProjectError,
        at_key: bool = False,
    ) -> CleanroomError:
        """An error that begins with the dotted key, at the position of the value or of the key."""
        place = self.source.positions.key if at_key else self.source.positions.value
        line, column = place(self.path)
        return kind(
            code,
            f"{self.key}: {message}" if self.path else message,
            hint=hint,
            where=f"{self.source.name}:{line}:{column}",
        )

    def fail(self, expected: str, *, code: str = "CR-PROJECT-005", hint: str = "") -> NoReturn:
        """
        Raises:
            ProjectError: always; it says what was expected, and the value that was found.
        """
        raise self.error(
            code, f"expected {expected}, found {describe_value(self.value)}", hint=hint
        )

    def text(self, expected: str = "a string") -> str:
        if not isinstance(self.value, str):
            self.fail(expected)
        if "\0" in self.value:
            self.fail(f"{expected} without NUL characters")
        return self.value

    def flag(self) -> bool:
        if not isinstance(self.value, bool):
            self.fail("true or false")
        return self.value

    def integer(self, low: int, high: int) -> int:
        if (
            isinstance(self.value, bool)
            or not isinstance(self.value, int)
            or not low <= self.value <= high
        ):
            self.fail(f"a whole number from {low} to {high}")
        return self.value

    def positive(self, high: float) -> float:
        good = (
            isinstance(self.value, int | float)
            and not isinstance(self.value, bool)
            and math.isfinite(self.value)
            and 0 < self.value <= high
        )
        if not good:
            self.fail(f"a number above 0 and up to {high:g}")
        return float(self.value)

    def duration(self) -> float:
        seconds = units.duration(self.value)
        if seconds is None:
            self.fail(
                'a duration above 0 such as "20s", "1m30s", "500ms" or a number of seconds',
                code="CR-PROJECT-009",
            )
        return seconds

    def size(self) -> int:
        size = units.size(self.value)
        if size is None:
            self.fail(
                'a size above 0 such as "512MiB", "1GB" or a number of bytes', code="CR-PROJECT-009"
            )
        return size

    def choice(self, known: Iterable[str]) -> str:
        """One of `known`, in its own case whatever the case in the file."""
        words = [str(word) for word in known]  # members of enumerations are shown by their values
        text = self.text(f"{', '.join(words[:-1])} or {words[-1]}")
        same = [word for word in words if word.lower() == text.lower()]
        if same:
            return same[0]
        close = nearest(text, words)
        return self.fail(
            f"{', '.join(words[:-1])} or {words[-1]}",
            code="CR-PROJECT-007",
            hint=f"did you mean {close!r}?" if close else "",
        )

    def items(self, expected: str = "a list") -> list[Node]:
        if not isinstance(self.value, list):
            self.fail(expected)
        return [self.child(index) for index in range(len(self.value))]

    def texts(self, expected: str = "a list of strings") -> tuple[str, ...]:
        return tuple(item.text() for item in self.items(expected))

    def children(self, expected: str = "a table") -> dict[str, Node]:
        if not isinstance(self.value, dict):
            self.fail(expected)
        return {key: self.child(key) for key in self.value}
