"""Requirements files as pip reads them, and the options in them that matter here. Pure."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from cleanroom.dependencies.wheel_addresses import WheelAddress, wheel_address

NESTED_MAX = 64  # files that one requirements file leads to
_COMMENT = re.compile(r"(^|\s)#.*$")
_HASH = re.compile(r"--hash[=\s]+([a-z0-9]+:[0-9A-Fa-f]+)")
_PINNED = re.compile(
    r"([A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)(?:\s*\[[^\]]*\])?\s*===?\s*([\w.!+-]+)\s*(?:;(.*))?"
)
_NAMED = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?(?:\s*\[[^\]]*\])?\s*(?:[<>=!~;(].*)?")
_OPTION = re.compile(r"(--?[a-z-]+)(?:\s*=\s*|\s+|(?<=^-[rce]))(.*)")
_NAMES = {
    "-r": "--requirement",
    "-c": "--constraint",
    "-e": "--editable",
    "-i": "--index-url",
}
ReadFile = Callable[[str], bytes | None]


class Entry(NamedTuple):
    """One requirement of a registry's package."""

    text: str  # without hashes
    hashes: tuple[str, ...] = ()  # "sha256:..."

    @property
    def pinned(self) -> Pinned | None:
        """Name and version where it names exactly one version and has a digest of it."""
        found = _PINNED.fullmatch(self.text)
        if found is None or not self.hashes or "*" in found[2]:
            return None
        return Pinned(found[1], found[2], (found[3] or "").strip(), self.hashes)

    @property
    def address(self) -> WheelAddress | None:
        """The wheel that it names by its address."""
        return wheel_address(self.text)

    def where(self, marker: str) -> Entry:
        """The entry for the environments of a marker only."""
        if not marker:
            return self
        text, _, own = self.text.partition(";")
        both = f"({own.strip()}) and {marker}" if own.strip() else marker
        return Entry(f"{text.strip()} ; {both}", self.hashes)


class Pinned(NamedTuple):
    """One version of a package, and the digests that its files may have."""

    name: str
    version: str
    marker: str = ""
    hashes: tuple[str, ...] = ()


class Requirements(NamedTuple):
    """A requirements file with those that it names."""

    entries: tuple[Entry, ...] = ()
    constraints: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()  # of --index-url; the last one counts
    extra_indexes: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()  # addresses and repositories, which are not fetched
    expanded: tuple[str, ...] = ()  # those with a variable, which pip would fill in
    files: tuple[str, ...] = ()  # all that were read, by path
    missing: tuple[str, ...] = ()  # named, but not there
    prereleases: bool = False

    @property
    def locked(self) -> bool:
        """Whether every entry is pinned to digests, but for those of addresses."""
        return all(one.pinned or one.address for one in self.entries)


def nested(path: str, read: ReadFile) -> dict[str, bytes]:
    """The file, and those that it names with -r and -c, by path; only those that are there."""
    found: dict[str, bytes] = {}
    pending = [path]
    while pending and len(found) < NESTED_MAX:
        name = pending.pop(0)
        content = None if name in found else read(name)
        if content is None:
            continue
        found[name] = content
        for option, value in _options(content):
            if option in ("--requirement", "--constraint"):
                pending.append(_beside(name, value))
    return found


def parse(path: str, files: Mapping[str, bytes]) -> Requirements:
    """What a file says, with those that it names."""
    reader = _Reader(files)
    reader.read(path, constraints=False)
    return Requirements(
        tuple(dict.fromkeys(reader.entries)),
        tuple(dict.fromkeys(reader.constraints)),
        tuple(reader.indexes),
        tuple(dict.fromkeys(reader.extra_indexes)),
        tuple(dict.fromkeys(reader.elsewhere)),
        tuple(dict.fromkeys(reader.expanded)),
        tuple(reader.files),
        tuple(dict.fromkeys(reader.missing)),
        reader.prereleases,
    )


class _Reader:
    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self._contents = contents
        self.entries: list[Entry] = []
        self.constraints: list[str] = []
        self.indexes: list[str] = []
        self.extra_indexes: list[str] = []
        self.elsewhere: list[str] = []
        self.expanded: list[str] = []
        self.files: list[str] = []
        self.missing: list[str] = []
        self.prereleases = False
        self._seen: set[tuple[str, bool]] = set()

    def read(self, path: str, *, constraints: bool) -> None:
        """Read one file; a file that names itself is read once."""
        pending = [(path, constraints)]
        while pending:
            name, constrains = pending.pop(0)
            if (name, constrains) in self._seen:
                continue
            self._seen.add((name, constrains))
            content = self._contents.get(name)
            if content is None:
                self.missing.append(name)
                continue
            self.files.append(name)
            for line in lines(content):
                if not line.startswith("-"):
                    self._requirement(line, constrains=constrains)
                    continue
                option, value = _option(line)
                if option in ("--requirement", "--constraint"):
                    constraint = constrains or option == "--constraint"
                    pending.append((_beside(name, value), constraint))
                else:
                    self._option(option, value)

    def _option(self, option: str, value: str) -> None:
        if option in ("--index-url", "--pypi-url"):
            self.indexes.append(value)
        elif option == "--extra-index-url":
            self.extra_indexes.append(value)
        elif option == "--pre":
            self.prereleases = True
        elif option == "--editable" and _is_address(value):
            self.elsewhere.append(value)

    def _requirement(self, line: str, *, constrains: bool) -> None:
        hashes = tuple(found.lower() for found in _HASH.findall(line))
        text = re.split(r"\s--", line, maxsplit=1)[0].strip()
        if names_variable(text):
            self.expanded.append(text)
        elif not constrains and wheel_address(text) is not None:
            self.entries.append(Entry(text, hashes))
        elif _is_address(text):
            self.elsewhere.append(text)
        elif _NAMED.fullmatch(text) and not text.endswith((".whl", ".tar.gz", ".zip")):
            if constrains:
                self.constraints.append(text)
            else:
                self.entries.append(Entry(text, hashes))
        # What is left is a path of the project, which phases see.


def names_variable(text: str) -> bool:
    """Whether pip would put a variable's value into it.

    Variables of the fetch step have logins, and a project's files have no say where these go.
    """
    return "${" in text


def lines(content: bytes) -> Iterator[str]:
    """The lines without comments, each with those that continue it."""
    text = content.decode("utf-8-sig", errors="replace").replace("\\\r\n", "").replace("\\\n", " ")
    for line in text.splitlines():
        plain = _COMMENT.sub("", line).strip()
        if plain:
            yield plain


def _options(content: bytes) -> Iterator[tuple[str, str]]:
    for line in lines(content):
        if line.startswith("-"):
            yield _option(line)


def _option(line: str) -> tuple[str, str]:
    """Name in its long form, and value."""
    if line[:2] in _NAMES and not line.startswith("--"):
        name, value = line[:2], line[2:].lstrip(" =")
    else:
        found = _OPTION.fullmatch(line)
        name, value = (found[1], found[2]) if found else (line, "")
    try:
        words = shlex.split(value)
    except ValueError:
        words = value.split()
    return _NAMES.get(name, name), words[0] if words else ""


def _beside(path: str, named: str) -> str:
    """The path of a file that another one names, relative to the project's root."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), named))


def _is_address(text: str) -> bool:
    return "://" in text.partition(";")[0]
