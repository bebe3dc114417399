"""What managers may ask of the fetch step, and what every manager is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from cleanroom.core.beneath import Folder
from cleanroom.dependencies.discovery import ProjectFolder
from cleanroom.dependencies.model import Access, Artifact, Complete, Found, Lock, Problem, Stored
from cleanroom.dependencies.settings import Settings

# The folder that a tool starts in, as it sees it.
WORK = "/var/lib/cleanroom-fetch"
# Stands for the address of the server on the loopback, in a tool's words, variables and files.
SERVED = "{served}"
# The folder of phases that stays between runs: their home's .cache.
HOME_CACHE = "/home/cleanroom/.cache"


class Page(NamedTuple):
    """A small document of a registry to be read, such as the index of one package."""

    url: str
    accept: str = ""
    optional: bool = False  # its document is empty where the registry has none


class ToolRun(NamedTuple):
    """A program of the caller's to be run in an environment of the fetch step.

    It starts in an empty folder of its own that holds `files`, and what it writes there can be
    read afterwards.
    """

    argv: Sequence[str]
    files: Mapping[str, bytes] = {}
    variables: Mapping[str, str] = {}
    # "HOST:PORT" of registries that it may reach; none: it has no network but the loopback
    egress: Sequence[str] = ()
    # path -> file of the store, answered over HTTP on the loopback.
    # "{served}" in `argv`, `files` and `variables` stands for "http://127.0.0.1:PORT".
    served: Mapping[str, Path] = {}
    # values of Authorization headers that it may send: shown nowhere
    authorizations: Sequence[str] = ()
    # its output holds for the whole run: it is not run again for the same words and files
    lasting: bool = False
    # what it is to find out or to fetch, for a message; else its words
    wanted: str = ""


class ToolResult(NamedTuple):
    """How it ended. Its output is in the log of the fetch step too."""

    exit_code: int
    output: bytes  # the last 64 KiB of both streams
    folder: Path  # the folder that it started in; goes with the session

    def read(self, name: str, limit: int) -> bytes:
        """The beginning of a file that it left; empty where there is none, or something else."""
        try:
            with Folder.at(self.folder) as folder, folder.reading(name) as stream:
                return stream.read(limit)
        except OSError:
            return b""


class Session(Protocol):
    """The fetch step at work for one set of dependencies."""

    async def read(self, pages: Sequence[Page]) -> list[bytes]:
        """The documents, in order.

        Raises:
            DependencyError: one is not there, or a host may not be reached.
        """

    async def download(self, artifacts: Sequence[Artifact]) -> tuple[Stored, ...]:
        """See that the store has these files, each with its digest.

        Files that the store or the machine's own caches have are not fetched.

        Raises:
            DependencyError: one is not there, or is another file than the lock names.
        """

    async def run(self, tool: ToolRun) -> ToolResult:
        """Run a program in an environment of its own.

        Raises:
            DependencyError: the program is not there.
        """

    def note(self, problem: Problem) -> None:
        """Name an entry that turned out to be none that can be fetched, beside those of `read`."""

    def file(self, stored: Stored) -> Path:
        """The store's file, which nothing may change."""


class Manager(ABC):
    """One package manager. Its methods block and are pure but for what their names say."""

    name: str  # "npm"; the first part of its views' keys
    # counts changes of `read`, `resolve` and `lay_out`: older entries of the store are not used
    layout: int = 1

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abstractmethod
    def find(self, folder: ProjectFolder) -> Found | None:
        """The manager's files in this folder of the project; None where it has none to fetch.

        None too where the project has the packages itself (vendored).
        """

    @abstractmethod
    def read(self, found: Found) -> Lock:
        """What the files say.

        Raises:
            ProjectError: a lock file cannot be read; the message names line or entry.
        """

    def context(self) -> str:
        """What an entry of the store depends on beside the files: platform, version of a tool."""
        return ""

    def view_context(self) -> str:
        """What a view depends on beside its sets: the version of a tool that lays it out."""
        return ""

    async def resolve(self, session: Session, found: Found, lock: Lock) -> tuple[Artifact, ...]:
        """All files to fetch, with their addresses. Asks a registry where the lock has none."""
        return lock.artifacts

    def credentials(self, url: str) -> Mapping[str, str]:
        """The headers by which the caller's own configuration has this address opened."""
        return self.settings.credentials(url, self.named_hosts())

    def named_hosts(self) -> frozenset[str]:
        """HOST:PORT of registries that the caller's own configuration names.

        These may have private addresses, others not.
        """
        return frozenset()

    def local_copies(self, artifact: Artifact) -> Sequence[Path]:
        """Where the machine's own caches may have the file already; its digest decides."""
        return ()

    def downloaded(self, artifact: Artifact) -> Path | None:
        """Where a tool that `resolve` ran left the file already; its digest decides.

        It is moved into the store: the folder goes with the session.
        """
        return None

    @abstractmethod
    async def lay_out(
        self, session: Session, sets: Sequence[Complete], view: Path, place: str
    ) -> None:
        """Make in the empty folder `view` what the tool reads offline, for all sets of a project.

        It is renamed to `place` when it is complete, the path that phases see: texts in it name
        paths below that one. Files of the store are linked (`store.hard_link`) and not copied.
        """

    @abstractmethod
    def access(self, view: str) -> Access:
        """How phases reach a view."""
