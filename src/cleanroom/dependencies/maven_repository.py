"""Maven's local repository: what a resolving Maven left in one, and the one that phases get.

The first comes from inside an environment, so its names are checked, and its files only copied
where their digests are those that the repository itself gives.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from cleanroom.dependencies.model import Artifact, Stored
from cleanroom.dependencies.store import hard_link

FILES_MAX = 50_000
SOURCES = "_remote.repositories"
_WORD = r"[A-Za-z0-9_][A-Za-z0-9_+~.-]{0,199}"
_NAME = re.compile(_WORD)
_METADATA = re.compile(r"maven-metadata-([A-Za-z0-9_][A-Za-z0-9_.-]{0,99})\.xml")
# What Maven notes for itself beside the files of repositories.
_NOTES = (".sha1", ".sha256", ".sha512", ".md5", ".asc", ".lastUpdated", ".lock", ".properties")
_PACKAGES = (".jar", ".war", ".aar", ".zip", ".tar.gz", ".exe", ".so")


class Inside(NamedTuple):
    """A file of the resolving Maven's repository."""

    artifact: Artifact
    path: Path  # where that Maven left it


def files_inside(folder: Path, sources: Mapping[str, str]) -> Iterator[Inside]:
    """The artifacts below a local repository; `sources` are its repositories' addresses by id.

    Files of other names than a repository has are left out, and links are not followed.
    """
    if folder.is_symlink():
        return
    count = 0
    for around, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if _is_name(name))
        origins = _origins(Path(around) / SOURCES)
        for file in sorted(files):
            path = Path(around) / file
            count += 1
            if count > FILES_MAX:
                return
            if not _is_name(file) or file.endswith(_NOTES) or file == SOURCES:
                continue
            if not stat.S_ISREG(path.lstat().st_mode):
                continue
            at = os.path.relpath(around, folder)
            artifact = _artifact(at, file, origins, sources)
            if artifact is not None:
                yield Inside(artifact, path)


def moving(artifact: Artifact) -> bool:
    """Whether a version stands for another file tomorrow."""
    return artifact.version.endswith("-SNAPSHOT")


def path_of(artifact: Artifact) -> str:
    """Where a local repository has an artifact.

    Raises:
        ValueError: its names are none of a repository.
    """
    group, _, name = artifact.name.partition(":")
    folders = group.split(".") if group else []
    parts = [*folders, *filter(None, (name, artifact.version)), artifact.file]
    if not all(map(_is_name, parts)):
        raise ValueError(f"no names of a repository: {artifact.name} {artifact.version}")
    return "/".join(parts)


def conflicts(files: Iterable[Stored]) -> list[str]:
    """Artifacts of which two sets have different files; documents of versions may differ."""
    known: dict[str, str] = {}
    return [
        f"{one.artifact.name} {one.artifact.version}"
        for one in files
        if known.setdefault(path_of(one.artifact), one.sha256) != one.sha256
        and not _METADATA.fullmatch(one.artifact.file)
    ]


def link_all(files: Iterable[tuple[Artifact, Path]], repository: Path) -> None:
    """Lay a local repository out. Without Maven's notes its files count as installed there."""
    for artifact, stored in files:
        path = repository / path_of(artifact)
        hard_link(stored, path)
        if _METADATA.fullmatch(artifact.file):
            # phases do not know the mirror that gave it
            hard_link(stored, path.with_name("maven-metadata-central.xml"))


def _artifact(
    at: str, file: str, origins: Mapping[str, str], sources: Mapping[str, str]
) -> Artifact | None:
    """The artifact of a file in the folder `at`; None where it has none or no known origin."""
    folders = at.split("/")
    metadata = _METADATA.fullmatch(file)
    if metadata:
        base = sources.get(metadata[1])
        if base is None:
            return None
        url = f"{base}/{quote(at)}/maven-metadata.xml"
        # a group's or an artifact's: only the last folder's name may have dots
        name = f"{'.'.join(folders[:-1])}:{folders[-1]}"
        return Artifact(name=name, version="", file=file, url=url)
    base = sources.get(origins.get(file, ""))
    if base is None or len(folders) < 3:
        return None
    group, name, version = ".".join(folders[:-2]), folders[-2], folders[-1]
    if any("." in one for one in folders[:-2]) or not file.startswith(f"{name}-"):
        return None
    return Artifact(
        name=f"{group}:{name}",
        version=version,
        file=file,
        url=f"{base}/{quote(f'{at}/{file}')}",
        purl=_purl(group, name, version, file),
    )


def _purl(group: str, name: str, version: str, file: str) -> str:
    """The package URL of a file that is a package; "" for a description."""
    if not file.endswith(_PACKAGES):
        return ""
    rest = file.removeprefix(f"{name}-{version}").lstrip("-")
    classifier, _, kind = rest.partition(".")
    words = {"classifier": classifier, "type": "" if kind == "jar" else kind}
    qualifiers = "&".join(f"{key}={quote(value)}" for key, value in words.items() if value)
    return f"pkg:maven/{group}/{quote(name)}@{quote(version)}" + (
        f"?{qualifiers}" if qualifiers else ""
    )


def _origins(path: Path) -> dict[str, str]:
    """Which repository gave each file of a folder, by the repository's id."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return {}
    with os.fdopen(descriptor, "rb") as stream:
        text = stream.read(1 << 20).decode(errors="replace")
    lines = (line.partition(">") for line in text.splitlines() if not line.startswith("#"))
    return {
        file: origin.removesuffix("=") for file, mark, origin in lines if mark and origin != "="
    }


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None and ".." not in text
