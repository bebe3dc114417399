"""Python packages that a requirement or a lock has from a Git repository. Pure."""

from __future__ import annotations

import posixpath
import re
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from cleanroom.dependencies.git_sources import checked_url, is_commit, is_reference

_REQUIREMENT = re.compile(
    r"(?:([A-Za-z0-9][\w.-]*)\s*(?:\[([^\]]*)\])?\s*@\s*)?git\+(https://[^\s;]+)\s*(?:;.*)?",
    re.ASCII,
)


class GitRequest(NamedTuple):
    """A package in a repository, as a project asks for it."""

    name: str
    url: str  # https, without credentials
    commit: str  # "" where only a reference is named
    reference: str = "HEAD"
    subdirectory: str = ""
    extras: tuple[str, ...] = ()
    # a lock names what it needs to run; else its own files have to
    locked: bool = False

    @property
    def text(self) -> str:
        """As messages have it."""
        return f"{self.name} @ {self.url}@{self.commit or self.reference}"


def requested(text: str) -> GitRequest | None:
    """`name @ git+https://host/path@reference#subdirectory=...`; None for another address."""
    found = _REQUIREMENT.fullmatch(text.strip())
    if found is None:
        return None
    try:
        parts = urlsplit(found[3])
        fragment = parse_qs(parts.fragment)
    except ValueError:
        return None
    path, _, reference = parts.path.rpartition("@") if "@" in parts.path else (parts.path, "", "")
    name = found[1] or fragment.get("egg", [""])[0].partition("[")[0]
    if not name:
        name = posixpath.basename(path).removesuffix(".git")
    address = f"https://{parts.netloc}{path}"
    subdirectory = fragment.get("subdirectory", [""])[0]
    extras = tuple(one.strip() for one in (found[2] or "").split(",") if one.strip())
    return _request(name, address, "", unquote(reference), subdirectory, extras)


def of_lock(name: str, url: str, commit: object, subdirectory: object) -> GitRequest | None:
    """The entry of a lock; None where it has no whole commit, or no https address."""
    if not isinstance(commit, str) or not is_commit(commit):
        return None
    inside = subdirectory if isinstance(subdirectory, str) else ""
    found = _request(name, url.removeprefix("git+"), commit, "", inside, ())
    return found._replace(locked=True) if found is not None else None


def of_uv(name: str, source: object) -> GitRequest | None:
    """The entry of a uv.lock: `https://host/path?rev=main#COMMIT`."""
    if not isinstance(source, str):
        return None
    address, _, commit = source.partition("#")
    plain, _, query = address.partition("?")
    subdirectory = parse_qs(query).get("subdirectory", [""])[0]
    return of_lock(name, plain, commit, subdirectory)


def _request(
    name: str,
    address: str,
    commit: str,
    reference: str,
    subdirectory: str,
    extras: tuple[str, ...],
) -> GitRequest | None:
    url = checked_url(address)
    if is_commit(reference):
        commit, reference = reference, ""
    if not url or not re.fullmatch(r"[\w.-]{1,200}", name, re.ASCII):
        return None
    if reference and not is_reference(reference):
        return None
    return GitRequest(name, url, commit, reference or "HEAD", subdirectory, extras)
