"""The user's cache: a folder that nobody else can change, or put something else in the place of.

What lies there is mounted, and services start from it; keepers and wardens are told its paths. So
it is looked at before anything of a run is: every step from `/` on is one that only root and this
user can change, and the cache and our folders in it are real ones that only this user writes to.
After that a path below it leads where it did.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from cleanroom.core.beneath import Folder
from cleanroom.model.errors import ArtifactError

LINKS_MAX = 40  # as in the kernel
OWN = ("", "runs", "services", "services/templates", "services/building", "services/locks")
STORE = ("", "/files", "/names", "/sets", "/views", "/layouts", "/building", "/uses", "/locks")
FURTHER = ("home-caches", "images", "paused", "shim", *(f"dependencies{part}" for part in STORE))
MODE = 0o700
_WHOLE_MAP = ["0", "0", "4294967295"]
_UNMAPPED = 65534  # how the kernel shows an owner who has no number in a user namespace


def open_cache(path: Path) -> Folder:
    """Hold the user's cache, made where it is not there (mode 0700).

    Links on the way are followed where root or this user made them. The folder itself may not be
    one, nor may ours in it.

    Raises:
        ArtifactError: it, or a step on the way, is not safe; or it cannot be made.
    """
    try:
        if path.is_symlink():
            raise _refusal(path, "a link")
        _walk(path)
        for inner in (*OWN, *FURTHER):
            with suppress(FileNotFoundError):
                _check_own(path / inner)
        return Folder.at(path)
    except OSError as error:
        raise ArtifactError(
            "CR-SANDBOX-009",
            f"{error.filename or path}: the cache cannot be used: {error.strerror}",
            hint="make room, or make it yours; CLEANROOM_CACHE names another folder",
        ) from error


def _walk(path: Path) -> None:
    """Look at every step to an absolute path, and make what is missing."""
    at, pending, links = "/", [*reversed(path.parts[1:])], 0
    _check_step(at, os.lstat(at))
    while pending:
        name = pending.pop()
        if name == "..":
            at = os.path.dirname(at)
            continue
        step = os.path.join(at, name)
        with suppress(FileExistsError):
            if not os.path.lexists(step):
                Path(step).mkdir(mode=MODE)
        found = os.lstat(step)
        _check_step(step, found)
        if not stat.S_ISLNK(found.st_mode):
            at = step
            continue
        links += 1
        target = Path(step).readlink()
        if links > LINKS_MAX:
            raise _refusal(step, "a link that leads round")
        if target.is_absolute():
            at = "/"
        pending += reversed(target.parts[1:] if target.is_absolute() else target.parts)


def _check_step(step: str, found: os.stat_result) -> None:
    """Who can rename or replace what lies there? A sticky folder keeps each one's own."""
    if found.st_uid not in _trusted():
        raise _refusal(step, f"{_kind(found)} of user {found.st_uid} on the way to the cache")
    if stat.S_ISLNK(found.st_mode) or found.st_mode & stat.S_ISVTX:
        return
    if not stat.S_ISDIR(found.st_mode):
        raise _refusal(step, _kind(found))
    if _open_to_others(found):
        raise _refusal(step, f"a folder that others can write to{_shown(found)}")


def _check_own(path: Path) -> None:
    """Is it a folder that this user alone writes to?"""
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise _refusal(path, _kind(found))
    if found.st_uid != os.geteuid():
        raise _refusal(path, f"a folder of user {found.st_uid}")
    if _open_to_others(found):
        raise _refusal(path, f"a folder that others can write to{_shown(found)}")


def _refusal(path: Path | str, found: str) -> ArtifactError:
    return ArtifactError(
        "CR-CACHE-001",
        f"{path}: expected a folder that only user {os.geteuid()} can change, found {found}",
        hint=f"chown and `chmod go-w {path}`, or let CLEANROOM_CACHE name a folder of your own",
    )


def _kind(found: os.stat_result) -> str:
    if stat.S_ISLNK(found.st_mode):
        return "a link"
    return "a folder" if stat.S_ISDIR(found.st_mode) else "a file"


def _shown(found: os.stat_result) -> str:
    return f" (mode {stat.S_IMODE(found.st_mode):04o})"


def _open_to_others(found: os.stat_result) -> bool:
    """By its mode; a group of which this user is the only member is nobody else."""
    if found.st_mode & stat.S_IWOTH:
        return True
    return bool(found.st_mode & stat.S_IWGRP) and found.st_gid != 0 and not _alone_in(found.st_gid)


def _alone_in(group: int) -> bool:
    """Is it this user's private group, as distributions make one for each user?"""
    import grp
    import pwd

    try:
        mine, known = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return (
        mine.pw_gid == group
        and known.gr_name == mine.pw_name
        and set(known.gr_mem) <= {mine.pw_name}
    )


def _trusted() -> set[int]:
    """Users who may change anything here anyway: root, this one;
    and the machine's own, where it has no number.
    """
    trusted = {0, os.geteuid()}
    with suppress(OSError):
        if Path("/proc/self/uid_map").read_text().split() != _WHOLE_MAP:
            trusted.add(_UNMAPPED)
    return trusted
