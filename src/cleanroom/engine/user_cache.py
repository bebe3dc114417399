"""What the user's cache has, and the pruning of its store of packages. All functions block."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from cleanroom.core.locations import cache_folder
from cleanroom.core.private_cache import open_cache
from cleanroom.dependencies.eviction import Limits, evict, usage
from cleanroom.dependencies.store import FOLDER, Store

# Folder -> what lies there, in the order in which they are shown.
_PARTS = {
    FOLDER: "packages that the fetch step got",
    "services": "prepared data of services",
    "home-caches": "what phases keep in their homes' .cache",
    "images": "images for container backends",
}


class CachePart(msgspec.Struct, frozen=True, kw_only=True):
    """One folder of the cache."""

    name: str
    about: str
    bytes: int


class CacheReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the cache has; after pruning: what it has now."""

    folder: str
    parts: tuple[CachePart, ...] = ()
    # of the store of packages: sets of lock files, and files
    sets: int = 0
    files: int = 0
    freed_bytes: int = 0  # by pruning


def show_cache(*, caller: Mapping[str, str] | None = None) -> CacheReport:
    """What the user's cache has. Looks at every file.

    Raises:
        ArtifactError: the folder is not safe to be used.
    """
    return _report(cache_folder(os.environ if caller is None else caller))


def prune_cache(
    *,
    unused_seconds: float | None = None,
    bytes_max: int | None = None,
    caller: Mapping[str, str] | None = None,
) -> CacheReport:
    """Remove packages that no run used for so long, and beyond a size those not used longest.

    Without limits those that runs apply themselves.
    What a run under way uses stays.

    Raises:
        ArtifactError: the folder is not safe to be used.
    """
    cache = cache_folder(os.environ if caller is None else caller)
    if not (cache / FOLDER).is_dir():
        return _report(cache)
    open_cache(cache).close()
    limits = Limits()
    if unused_seconds is not None:
        limits = limits._replace(age_seconds=unused_seconds)
    if bytes_max is not None:
        limits = limits._replace(bytes_max=bytes_max)
    before = usage(Store(cache)).bytes
    evict(Store(cache), limits)
    found = _report(cache)
    return msgspec.structs.replace(found, freed_bytes=max(0, before - found.parts[0].bytes))


def _report(cache: Path) -> CacheReport:
    if not cache.exists():
        return CacheReport(folder=str(cache))
    open_cache(cache).close()
    parts = tuple(
        CachePart(name=name, about=about, bytes=_bytes(cache / name))
        for name, about in _PARTS.items()
    )
    found = usage(Store(cache)) if (cache / FOLDER).is_dir() else None
    sets, files = (found.sets, found.files) if found is not None else (0, 0)
    return CacheReport(folder=str(cache), parts=parts, sets=sets, files=files)


def _bytes(folder: Path) -> int:
    """The bytes of all files below; one with several names counts once."""
    sizes: dict[tuple[int, int], int] = {}
    for around, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                found = os.lstat(os.path.join(around, name))
                sizes[found.st_dev, found.st_ino] = found.st_size
    return sum(sizes.values())
