"""Values of the fetch step: what lock files name, what was fetched, how phases reach it.

Sizes are bytes. Digests are written "ALGORITHM:VALUE": `sha256:` and other algorithms of hashlib
with lower-case hex digits, `h1:` with base64 as Go writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

import msgspec

# A run's record of its sets, in its folder: a list of `Fetched`.
RECORD = "dependencies.json"


class Found(NamedTuple):
    """The files of one folder by which a package manager knows a project's dependencies."""

    manager: str
    folder: str  # relative to the project's root; "" is the root itself
    # path relative to the project -> content; the first one is named in messages
    files: Mapping[str, bytes]

    @property
    def name(self) -> str:
        """The file that stands for the set in messages."""
        return next(iter(self.files))


class Artifact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One file of a package, as a lock file names it."""

    name: str
    version: str
    file: str  # its name in a store, without folders
    url: str  # https, without credentials
    digest: str = ""  # that the file must have; "" where nothing says it: pinned on first use
    pinned: bool = True  # False where the digest is an index's, and no lock has it
    size: int = 0  # 0 where it is not known
    purl: str = ""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a lock file that cannot be fetched."""

    entry: str
    why: str
    hint: str = ""


PROBLEMS_MOST = 50
_ENTRY_MOST = 200  # characters


def problem_lines(problems: Sequence[Problem]) -> list[str]:
    """What people are shown of them: a hostile lock can have any number, of any length."""
    lines = []
    for one in problems[:PROBLEMS_MOST]:
        hint = f"; {one.hint}" if one.hint else ""
        lines.append(f"{one.entry[:_ENTRY_MOST]}: {one.why}{hint}")
    if len(problems) > PROBLEMS_MOST:
        lines.append(f"and {len(problems) - PROBLEMS_MOST} more entries that are not fetched")
    return lines


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """What the files of a `Found` say. Pure result of reading them."""

    artifacts: tuple[Artifact, ...] = ()
    # names whose addresses or versions only a registry can tell, or the tool's own resolver:
    # those in `unpinned` too have no version yet, all others are pinned
    unresolved: tuple[str, ...] = ()
    # entries that no digest pins
    unpinned: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    # what is less safe than it may look: one sentence each
    cautions: tuple[str, ...] = ()


class Stored(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file in the store, and where it came from."""

    artifact: Artifact
    # names a file: what else a record may say is none
    sha256: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    size: int
    host: str = ""  # that it was fetched from; "" where this machine had it already
    # of the store's file when it was verified last: another state is verified again
    modified_ns: int = 0


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """One set of dependencies, complete in the store. Kept there under the set's key."""

    manager: str
    folder: str
    name: str
    files: tuple[Stored, ...] = ()
    unpinned: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    fetched_unix: int = 0


class Complete(NamedTuple):
    """A set of the project, and what the store has for it."""

    found: Found
    fetched: Fetched


class Overlay(NamedTuple):
    """A folder that phases see copy-on-write.

    What they write goes to a folder of the run.
    """

    source: str
    target: str


class Access(NamedTuple):
    """How phases reach what was fetched for one manager."""

    variables: Mapping[str, str]
    folders: tuple[str, ...] = ()  # shown read-only, at their own paths
    overlays: tuple[Overlay, ...] = ()


NO_ACCESS = Access({})
