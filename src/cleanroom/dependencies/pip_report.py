"""Requirements that pip is to resolve, and its report of what it would install. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

import msgspec

from cleanroom.dependencies.addresses import is_web_address
from cleanroom.dependencies.digests import is_digest
from cleanroom.dependencies.model import Artifact
from cleanroom.dependencies.pip_config import without_login
from cleanroom.dependencies.requirements import Entry
from cleanroom.dependencies.simple_index import is_file_name, normalized

# The path of an interpreter is the first argument of a shell's text. Where that is none that the
# fetch step is shown, such as one of the project's own, PATH's runs.
CHOICE = 'chosen=$1; if [ ! -x "$chosen" ]; then chosen=python3; fi\n'
# Asked for its own path, it is no version manager's shim, whose hooks after pip fail here.
# Distributions ship Pythons without pip; an environment of its own has one.
_COMMAND = """
python=$($chosen -c 'import sys; print(sys.executable)')
if ! $python -m pip install --help 2>/dev/null | grep -q -e --report; then
    $chosen -m venv /tmp/pip
    python=/tmp/pip/bin/python
fi
resolve() {
    $python -m pip install --no-input --disable-pip-version-check --progress-bar off \\
        --dry-run --ignore-installed --only-binary :all: --no-cache-dir --report "$@"
}
"""
COMMAND = CHOICE + _COMMAND


class Root(NamedTuple):
    """Requirements that are resolved together."""

    path: str  # of the file that names them
    entries: tuple[Entry, ...]
    constraints: tuple[str, ...] = ()
    prereleases: bool = False
    # what is resolved one by one where all together contradict each other
    apart: tuple[tuple[Entry, ...], ...] = ()


class RootFiles(NamedTuple):
    """How pip is asked for one root."""

    files: dict[str, bytes]
    command: str
    reports: tuple[str, ...]


def root_files(number: int, root: Root) -> RootFiles:
    """The files that pip reads, the words of the shell, and the reports that pip may write."""
    written: dict[str, bytes] = {}
    commands, reports = [], []
    for part, listed in enumerate((root.entries, *root.apart)):
        name = f"{number}-{part}"
        written[f"{name}.in"] = _lines(_text(one) for one in listed)
        words = ["resolve", f"{name}.json", "-r", f"{name}.in"]
        if root.constraints:
            written[f"{number}.constraints"] = _lines(root.constraints)
            words += ["-c", f"{number}.constraints"]
        if root.prereleases:
            words.append("--pre")
        commands.append(shlex.join(words))
        reports.append(f"{name}.json")
    command = commands[0]
    if len(commands) > 1:
        command += " || { " + " && ".join(commands[1:]) + "; }"
    return RootFiles(written, command, tuple(reports))


def read_report(content: bytes) -> list[Artifact]:
    """The files that pip's report names (`pip install --report`).

    A report is pip's, made of an index's answers: what is no file of an index is left out.
    """
    try:
        report = msgspec.json.decode(content, type=_Report)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return []
    made = (_artifact(one) for one in report.install)
    return [one for one in made if one is not None]


class _Metadata(msgspec.Struct):
    name: str
    version: str


class _Archive(msgspec.Struct):
    hashes: dict[str, str] = {}


class _Download(msgspec.Struct):
    url: str
    archive_info: _Archive = msgspec.field(default_factory=_Archive)


class _Installed(msgspec.Struct):
    metadata: _Metadata
    download_info: _Download


class _Report(msgspec.Struct):
    install: list[_Installed] = []


def _artifact(one: _Installed) -> Artifact | None:
    try:
        parts = urlsplit(one.download_info.url)
    except ValueError:
        return None
    file = unquote(parts.path).rpartition("/")[2]
    url = without_login(one.download_info.url)
    if not is_web_address(url) or not is_file_name(file):
        return None
    name, version = one.metadata.name, one.metadata.version
    digest = one.download_info.archive_info.hashes.get("sha256", "")
    if digest and not is_digest(f"sha256:{digest}"):
        return None
    return Artifact(
        name=name,
        version=version,
        file=file,
        url=url,
        digest=f"sha256:{digest}" if digest else "",
        pinned=False,
        purl=f"pkg:pypi/{quote(normalized(name))}@{quote(version)}",
    )


def _text(entry: Entry) -> str:
    return " ".join((entry.text, *(f"--hash={one}" for one in entry.hashes)))


def _lines(texts: Iterable[str]) -> bytes:
    return ("\n".join(texts) + "\n").encode()
