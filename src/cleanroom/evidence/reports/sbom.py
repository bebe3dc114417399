"""The bill of materials of a run: what the fetch step got, as CycloneDX 1.6 in JSON.

Made of the run's record of its dependencies and its result. Pure: the same two give the same bytes.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec

from cleanroom.core.text import json_written_out
from cleanroom.dependencies.model import Fetched, Problem, Stored
from cleanroom.evidence.reports.result import PhaseResult, RunResult

# Results of phases of which no command ran.
_NOT_RUN = frozenset(("skipped", "cached", "unverified"))
_ALGORITHMS = {
    "md5": "MD5",
    "sha1": "SHA-1",
    "sha256": "SHA-256",
    "sha384": "SHA-384",
    "sha512": "SHA-512",
}
_HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?")
_PATH_SAFE = "!$%&'()*+,/:;=@~"
_NO_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")


class _Hash(msgspec.Struct, frozen=True):
    alg: str
    content: str


class _Property(msgspec.Struct, frozen=True):
    name: str
    value: str


class _Reference(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    type: str
    url: str
    hashes: tuple[_Hash, ...] = ()


class _Component(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    type: str
    bom_ref: str = msgspec.field(name="bom-ref", default="")
    name: str
    version: str = ""
    hashes: tuple[_Hash, ...] = ()
    purl: str = ""
    external_references: tuple[_Reference, ...] = ()
    components: tuple[_Component, ...] = ()
    properties: tuple[_Property, ...] = ()


class _Tools(msgspec.Struct, frozen=True):
    components: tuple[_Component, ...]


class _Metadata(msgspec.Struct, frozen=True, kw_only=True):
    timestamp: str
    tools: _Tools
    component: _Component
    properties: tuple[_Property, ...]


class _Bom(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    bom_format: str
    spec_version: str
    serial_number: str = ""
    version: int
    metadata: _Metadata
    components: tuple[_Component, ...]


class _Use(NamedTuple):
    """A file of the store, and the set that names it."""

    fetched: Fetched
    stored: Stored


def read_record(data: bytes, sha256: str) -> tuple[Fetched, ...] | None:
    """The sets of a run's record; None where it is not the one with this digest."""
    if hashlib.sha256(data).hexdigest() != sha256:
        return None
    try:
        return msgspec.json.decode(data, type=tuple[Fetched, ...])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def sbom(result: RunResult, sets: Sequence[Fetched]) -> bytes:
    """The bill of materials of a run with these sets."""
    phases = ",".join(dict.fromkeys(_phase(one) for one in result.phases if _could_use(one)))
    bom = _Bom(
        bom_format="CycloneDX",
        spec_version="1.6",
        version=1,
        metadata=_metadata(result),
        components=(*_packages(sets, phases), *_not_fetched(sets)),
    )
    content = hashlib.sha256(msgspec.json.encode(bom)).digest()
    serial = f"urn:uuid:{uuid.UUID(bytes=content[:16], version=5)}"
    whole = msgspec.structs.replace(bom, serial_number=serial)
    return json_written_out(msgspec.json.format(msgspec.json.encode(whole), indent=2)) + b"\n"


def _metadata(result: RunResult) -> _Metadata:
    began = datetime.fromtimestamp(result.started_unix_ns // 10**9, UTC)
    tool = _Component(
        type="application",
        bom_ref="cleanroom-engine",
        name="cleanroom-engine",
        version=result.version,
    )
    project = _Component(type="application", bom_ref="project", name=result.project or "project")
    return _Metadata(
        timestamp=began.strftime("%Y-%m-%dT%H:%M:%SZ"),
        tools=_Tools((tool,)),
        component=project,
        properties=_properties({"run-id": result.run_id, "backend": result.backend}),
    )


def _could_use(phase: PhaseResult) -> bool:
    """Whether it ran without a network: such a phase is shown what was fetched."""
    return phase.hermetic and phase.result not in _NOT_RUN


def _phase(phase: PhaseResult) -> str:
    return f"{phase.workspace}:{phase.name}" if phase.workspace else phase.name


# --- packages


def _packages(sets: Sequence[Fetched], phases: str) -> list[_Component]:
    """One component for each package, whichever sets name it and however many files it has."""
    uses = [_Use(fetched, stored) for fetched in sets for stored in fetched.files]
    # Beside an archive a package may have files that only its manager reads, such as Go's go.mod.
    named = sorted((one.stored.artifact.purl, _identity(one)) for one in uses)
    purls = {identity: purl for purl, identity in reversed(named) if purl}
    by_name: dict[str, list[_Use]] = {}
    for one in uses:
        identity = _identity(one)
        purl = one.stored.artifact.purl or purls.get(identity)
        by_name.setdefault(purl or " ".join(identity), []).append(one)
    return [_package(name, by_name[name], phases) for name in sorted(by_name)]


def _identity(use: _Use) -> tuple[str, str, str]:
    artifact = use.stored.artifact
    return use.fetched.manager, artifact.name, artifact.version


def _package(name: str, uses: Sequence[_Use], phases: str) -> _Component:
    first = uses[0].stored.artifact
    files = {one.stored.sha256: one.stored for one in uses}
    stored = sorted(files.values(), key=lambda one: (one.artifact.url, one.sha256))
    purl = next((one.stored.artifact.purl for one in uses if one.stored.artifact.purl), "")
    properties = [
        *_all("manager", (one.fetched.manager for one in uses)),
        *_all("lock-file", (one.fetched.name for one in uses)),
        *_all("host", (one.host for one in stored)),
        *_all("lock-digest", (_other_digest(one) for one in stored)),
        *_all("phases", (phases,)),
    ]
    if not all(_is_pinned(one.stored) for one in uses):
        properties += _properties({"unpinned": "true"})
    return _Component(
        type="library" if purl else "file",
        bom_ref=name,
        name=first.name,
        version=first.version,
        hashes=_hashes(stored[0]) if len(stored) == 1 else (),
        purl=purl,
        external_references=tuple(_references(stored)),
        components=tuple(map(_file, stored)) if len(stored) > 1 else (),
        properties=tuple(properties),
    )


def _file(stored: Stored) -> _Component:
    """One of several files of a package."""
    return _Component(type="file", name=stored.artifact.file or "file", hashes=_hashes(stored))


def _is_pinned(stored: Stored) -> bool:
    """Whether a lock gives the digest of the file."""
    return stored.artifact.pinned and bool(stored.artifact.digest)


def _hashes(stored: Stored) -> tuple[_Hash, ...]:
    """By SHA-256, and by the lock's own algorithm."""
    name, _, value = stored.artifact.digest.partition(":")
    own = {_ALGORITHMS[name]: value} if name in _ALGORITHMS else {}
    digests = {**own, "SHA-256": stored.sha256}
    return tuple(_Hash(name, digests[name]) for name in sorted(digests))


def _other_digest(stored: Stored) -> str:
    """The lock's digest by an algorithm that CycloneDX does not have, such as Go's h1."""
    digest = stored.artifact.digest
    return "" if digest.partition(":")[0] in _ALGORITHMS else digest


def _references(stored: Iterable[Stored]) -> Iterator[_Reference]:
    for one in stored:
        if address := _address(one.artifact.url):
            yield _Reference(type="distribution", url=address, hashes=_hashes(one))


def _address(url: str) -> str:
    """The address without a login, with what is no part of one escaped; "" where it is none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    host = parts.netloc.rpartition("@")[2]
    if parts.scheme not in ("https", "http") or not _HOST.fullmatch(host):
        return ""
    path = _NO_ESCAPE.sub("%25", quote(parts.path, safe=_PATH_SAFE))
    query = _NO_ESCAPE.sub("%25", quote(parts.query, safe=f"{_PATH_SAFE}?"))
    return urlunsplit((parts.scheme, host, path, query, ""))


# --- what there is no file of


def _not_fetched(sets: Sequence[Fetched]) -> list[_Component]:
    problems = dict.fromkeys((one, problem) for one in sets for problem in one.problems)
    named = sorted(problems, key=lambda pair: (pair[0].name, pair[1].entry, pair[1].why))
    return [_missing(number, *pair) for number, pair in enumerate(named, 1)]


def _missing(number: int, fetched: Fetched, problem: Problem) -> _Component:
    values = {"manager": fetched.manager, "lock-file": fetched.name, "not-fetched": problem.why}
    return _Component(
        type="library",
        bom_ref=f"not-fetched {number}",
        name=problem.entry or fetched.name,
        properties=_properties(values),
    )


def _all(name: str, values: Iterable[str]) -> list[_Property]:
    return [_Property(f"cleanroom:{name}", value) for value in sorted(set(values)) if value]


def _properties(values: Mapping[str, str]) -> tuple[_Property, ...]:
    return tuple(_Property(f"cleanroom:{name}", value) for name, value in values.items() if value)
