"""What `yarn.lock` of yarn 2 to 4 names, and a lock of ours that has yarn verify it."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from cleanroom.dependencies.model import Found, Problem
from cleanroom.dependencies.node_packages import cpu_name, fits, is_package, libc, tarball_name
from cleanroom.dependencies.yaml_reader import read_yaml
from cleanroom.model.errors import ProjectError

LOCK = "yarn.lock"
METADATA = "__metadata"
# Of "name@npm:1.2.3"; further parameters, such as another address, follow after "::".
_RESOLUTION = re.compile(r"((?:@[^@/]+/)?[^@/]+)@([a-z+]+):(.*)", re.DOTALL)
_LOCAL = ("workspace", "link", "portal", "file", "patch", "virtual")
# Patches that yarn brings, and those that `yarn patch-commit` writes: data, no code.
_PATCHED = re.compile(
    r"patch:[^#]*#(?:optional!|~)?(?:builtin<[\w/]+>|~/(\.yarn/patches/[\w.@+-]+))"
)
_CHECKSUM = re.compile(r"(?:\w+/)?[0-9a-f]{128}", re.ASCII)


class Package(NamedTuple):
    """A package of the lock that a registry has."""

    name: str
    version: str
    checksum: str  # of yarn's archive; "" where the lock has none
    # how the lock refers to it where it is another package with a patch, which no registry has
    patched: str = ""

    @property
    def file(self) -> str:
        """Its name in the registry."""
        return tarball_name(self.name, self.version)


def offered(found: Found) -> tuple[bytes, bytes]:
    """A lock and a package.json that name the packages, with the checksums of the lock."""
    lock: dict[str, Any] = {METADATA: read_document(found)[METADATA]}
    named = {}
    packages = [one for one in packages_of(found) if isinstance(one, Package)]
    patched = iter(_patched(found, packages))
    for number, one in enumerate(one for one in packages if not one.patched):
        named[f"p{number}"] = wanted = f"npm:{one.name}@{one.version}"
        lock[f"p{number}@{wanted}"] = entry = _entry(one, f"npm:{one.version}")
        # yarn takes the names of packages with patches from who needs them: one each.
        for further in itertools.islice(patched, 1):
            reference = further.patched.partition("::")[0]
            entry["dependencies"] = {further.name: reference}
            lock[f"{further.name}@{reference}"] = _entry(further, further.patched)
    lock["fetched@workspace:."] = {
        "version": "0.0.0-use.local",
        "resolution": "fetched@workspace:.",
        "dependencies": named,
        "languageName": "unknown",
        "linkType": "soft",
    }
    manifest = {"name": "fetched", "dependencies": named}
    # JSON is YAML.
    return msgspec.json.encode(lock), msgspec.json.encode(manifest)


def _entry(one: Package, reference: str) -> dict[str, Any]:
    return {
        "version": one.version,
        "resolution": f"{one.name}@{reference}",
        **({"checksum": one.checksum} if one.checksum else {}),
        "languageName": "node",
        "linkType": "hard",
    }


def _patched(found: Found, packages: Sequence[Package]) -> Iterator[Package]:
    """The packages with patches that yarn can make: of its own, or with the file that is there."""
    there = patch_files(found)
    for one in packages:
        matched = _PATCHED.match(one.patched)
        if matched is not None and (matched[1] is None or matched[1] in there):
            yield one


def read_document(found: Found) -> dict[str, Any]:
    path = found.name
    try:
        documents = read_yaml(found.files[path])
    except ValueError as error:
        raise _unreadable(path, str(error)) from error
    document = documents[0] if len(documents) == 1 else None
    if not isinstance(document, dict) or not isinstance(document.get(METADATA), dict):
        raise _unreadable(path, f"it has no {METADATA}")
    return document


def packages_of(found: Found) -> Iterator[Package | Problem]:
    for key, entry in read_document(found).items():
        if key == METADATA:
            continue
        one = _package(key, entry if isinstance(entry, dict) else {})
        if one is not None:
            yield one


def _package(key: str, entry: Mapping[str, Any]) -> Package | Problem | None:
    """What is to be fetched for an entry; None for nothing."""
    matched = _RESOLUTION.fullmatch(str(entry.get("resolution", "")))
    if matched is None:
        return Problem(entry=key, why="it has no resolution")
    name, protocol, rest = matched.groups()
    checksum = str(entry.get("checksum", ""))
    if protocol == "patch" and _CHECKSUM.fullmatch(checksum):
        return Package(name, str(entry.get("version", "")), checksum, f"patch:{rest}")
    if protocol in _LOCAL:
        return None
    if not checksum and not _is_for_this_platform(str(entry.get("conditions", ""))):
        return None
    version, _, further = rest.partition("::")
    if protocol != "npm":
        return Problem(entry=key, why=f"{protocol} dependencies are not fetched yet")
    if further:
        return Problem(entry=key, why="it has an address of its own, which is not fetched yet")
    if not is_package(name, version):
        return Problem(entry=key, why="its name or version is none that npm has")
    if checksum and not _CHECKSUM.fullmatch(checksum):
        return Problem(entry=key, why="its checksum is none that yarn writes")
    return Package(name, version, checksum)


def patches(lock: bytes) -> set[str]:
    """The patches that a lock names, relative to its folder."""
    found = _PATCHED.finditer(lock.decode(errors="replace"))
    return {one[1] for one in found if one[1]}


def patch_files(found: Found) -> dict[str, bytes]:
    """Them with their contents."""
    named = {os.path.join(found.folder, name): name for name in patches(found.files[found.name])}
    return {named[path]: text for path, text in found.files.items() if path in named}


def _is_for_this_platform(conditions: str) -> bool:
    """Whether "os=linux & cpu=x64 & libc=glibc" holds here; lists are "(os=linux | os=darwin)"."""
    have = {"os": "linux", "cpu": cpu_name(), "libc": libc()}
    for part in filter(None, conditions.split("&")):
        wanted: dict[str, list[str]] = {}
        for one in part.strip(" ()").split("|"):
            what, _, value = one.strip().partition("=")
            wanted.setdefault(what, []).append(value)
        if not all(fits(values, have.get(what, "")) for what, values in wanted.items()):
            return False
    return True


def _unreadable(path: str, why: str) -> ProjectError:
    return ProjectError(
        "CR-FETCH-006",
        f"expected a lock of yarn 2 or later: {why}",
        hint="`yarn install` writes one",
        where=f"{path}:1:1",
    )
