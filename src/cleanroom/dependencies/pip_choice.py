"""Which file of a package pip would take, of those that a lock and the indexes name."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from urllib.parse import quote

import anyio.to_thread

from cleanroom.dependencies import requirements
from cleanroom.dependencies.digests import algorithm, is_digest
from cleanroom.dependencies.model import Artifact, Found
from cleanroom.dependencies.python_projects import LockedPackage
from cleanroom.dependencies.python_tags import Interpreter, best_wheel
from cleanroom.dependencies.requirements import Entry, Pinned
from cleanroom.dependencies.session import Page, Session
from cleanroom.dependencies.settings import host_of
from cleanroom.dependencies.simple_index import ACCEPT, IndexFile, files, normalized, page_url
from cleanroom.model.errors import DependencyUnavailable

SDISTS = (".tar.gz", ".zip", ".tar.bz2", ".tgz")


async def read_pages(
    session: Session, indexes: Sequence[str], packages: Iterable[LockedPackage]
) -> dict[str, list[IndexFile]]:
    """What the indexes have of the packages whose lock has no addresses, by normalized name: the
    files with digests of the lock.
    """
    digests: dict[str, set[str]] = {}
    for one in packages:
        if not one.files:
            digests.setdefault(normalized(one.pinned.name), set()).update(one.pinned.hashes)
    found: dict[str, list[IndexFile]] = {name: [] for name in sorted(digests)}
    if len(indexes) == 1:
        wanted = [Page(page_url(indexes[0], name), ACCEPT) for name in found]
        answers = await session.read(wanted)
        for name, page in zip(found, wanted, strict=True):
            # Taken out of the list: all pages as values would be many times as large.
            found[name] = await _read(answers.pop(0), page, digests[name])
        return found
    for name in found:
        failure: DependencyUnavailable | None = None
        for index in indexes:
            page = Page(page_url(index, name), ACCEPT)
            try:
                (answer,) = await session.read([page])
            except DependencyUnavailable as error:
                # Another index may have it.
                failure = error
                continue
            found[name] += await _read(answer, page, digests[name])
        if not found[name] and failure is not None:
            raise failure
    return found


async def _read(answer: bytes, page: Page, digests: set[str]) -> list[IndexFile]:
    # A page of many files takes seconds.
    return await anyio.to_thread.run_sync(files, answer, page.url, digests)


def told_apart(
    read: requirements.Requirements,
) -> tuple[list[LockedPackage], tuple[Entry, ...]]:
    """What digests pin, if they pin all of an index, and what pip is to resolve."""
    if not read.locked:
        return [], read.entries
    locked = [LockedPackage(one.pinned) for one in read.entries if one.pinned]
    further = []
    for entry in read.entries:
        wheel = entry.address
        if wheel is None:
            continue
        digest = wheel.digest or next((one for one in entry.hashes if is_digest(one)), "")
        if algorithm(digest) != "sha256":
            further.append(entry)
            continue
        pinned = Pinned(wheel.name, wheel.version, wheel.marker, (digest,))
        locked.append(LockedPackage(pinned, (IndexFile(wheel.file, wheel.url, digest),), True))
    return locked, tuple(further)


def choose(
    found: Found,
    package: LockedPackage,
    pages: Mapping[str, Sequence[IndexFile]],
    interpreter: Interpreter,
) -> Artifact:
    """The file that pip would take.

    Raises:
        DependencyUnavailable: none of those that the lock names fits, or the index has none.
    """
    pinned = package.pinned
    offered = package.files or tuple(
        one for one in pages[normalized(pinned.name)] if one.digest in pinned.hashes
    )
    by_name = {one.file: one for one in reversed(offered)}
    chosen = best_wheel(by_name, interpreter)
    if chosen is None:
        chosen = next((name for name in by_name if name.endswith(SDISTS)), None)
    if chosen is None:
        raise DependencyUnavailable(
            "CR-FETCH-003",
            f"{found.name}: {pinned.name} {pinned.version}: the index has no file with a digest "
            f"of the lock that fits Python {interpreter.version} on {interpreter.machine}",
            hint="look at the index that pip is configured for, and at the lock",
        )
    file = by_name[chosen]
    return Artifact(
        name=pinned.name,
        version=pinned.version,
        file=chosen,
        url=file.url,
        digest=file.digest,
        size=file.size,
        purl=f"pkg:pypi/{quote(normalized(pinned.name))}@{quote(pinned.version)}",
    )


def cautions(unpinned: Collection[str], indexes: Sequence[str]) -> tuple[str, ...]:
    """pip takes the highest version that any index has, whoever put it there."""
    if not unpinned or len(indexes) < 2:
        return ()
    hosts = ", ".join(dict.fromkeys(map(host_of, indexes)))
    return (
        f"any of {len(indexes)} indexes may give what no digest pins ({hosts}): "
        "pin digests, or name one index",
    )
