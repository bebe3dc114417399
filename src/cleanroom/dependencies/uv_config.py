"""The caller's own configuration of uv: its indexes, and logins for them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from cleanroom.dependencies.settings import Settings, basic, host_of, read_text

_ONE = ("UV_DEFAULT_INDEX", "UV_INDEX_URL")
_SEVERAL = ("UV_INDEX", "UV_EXTRA_INDEX_URL")


class Index(NamedTuple):
    """An index that the caller names."""

    url: str
    login: tuple[str, str] | None = None

    @property
    def host(self) -> str:
        """HOST:PORT."""
        return host_of(self.url)


def indexes(settings: Settings) -> tuple[Index, ...]:
    """The indexes of the caller's variables and uv.toml.

    A lock has the addresses of files, so no order matters here.
    """
    variables = settings.variables
    named = [variables.get(name, "") for name in _ONE]
    named += [word for name in _SEVERAL for word in variables.get(name, "").split()]
    pairs = [*map(_split, named), *_of_files(settings)]
    return tuple(_index(name, url, variables) for name, url in pairs if _is_address(url))


def authorization(known: Iterable[Index], url: str) -> Mapping[str, str]:
    """The header by which an index of the caller's has this address opened; empty for none."""
    host = host_of(url)
    logins = (one.login for one in known if one.host == host and one.login)
    login = next(logins, None)
    return basic(*login) if login else {}


def _split(text: str) -> tuple[str, str]:
    """Name and address: "NAME=https://..." or the address alone."""
    name, sign, url = text.partition("=")
    return (name, url) if sign and "://" not in name else ("", text)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        # reading a port that is none raises
        return parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _index(name: str, url: str, variables: Mapping[str, str]) -> Index:
    parts = urlsplit(url)
    if parts.username is not None:
        return Index(url, (unquote(parts.username), unquote(parts.password or "")))
    # As uv spells a name in its variables: capitals, and "_" for anything else.
    spelled = "".join(one if one.isalnum() else "_" for one in name).upper()
    user, password = (
        variables.get(f"UV_INDEX_{spelled}_{what}", "") for what in ("USERNAME", "PASSWORD")
    )
    return Index(url, (user, password) if name and (user or password) else None)


def _of_files(settings: Settings) -> Iterator[tuple[str, str]]:
    variables = settings.variables
    config = variables.get("XDG_CONFIG_HOME") or settings.home / ".config"
    own = variables.get("UV_CONFIG_FILE") or Path(config) / "uv/uv.toml"
    for path in (Path("/etc/uv/uv.toml"), Path(own)):
        document = _document(read_text(path))
        pip = document.get("pip")
        for table in (document, pip if isinstance(pip, dict) else {}):
            yield from _of_table(table)


def _of_table(table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The addresses of a table: those with a name, and the older keys."""
    listed = table.get("index")
    for one in listed if isinstance(listed, list) else ():
        if isinstance(one, dict):
            yield _text(one.get("name")), _text(one.get("url"))
    extra = table.get("extra-index-url")
    for url in (table.get("index-url"), *(extra if isinstance(extra, list) else ())):
        yield "", _text(url)


def _document(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        return {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
