"""The caller's own configuration of pip: its indexes, and credentials for them."""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from cleanroom.dependencies.settings import Settings, basic, host_of, read_text

PYPI = "https://pypi.org/simple"
PYPI_FILES = "https://files.pythonhosted.org"
_SECTIONS = ("global", "install")  # what stands in the later one wins


class PipConfig:
    """What pip.conf and pip's variables say of indexes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        values = _values(settings)
        named = (values.get("index-url") or PYPI).split()
        self._index = named[0] if named else PYPI
        self._extra = values.get("extra-index-url", "").split()

    @property
    def index(self) -> str:
        """The index, without credentials."""
        return without_login(self._index)

    @property
    def extra_indexes(self) -> list[str]:
        """Further indexes, without credentials."""
        return [without_login(url) for url in self._extra]

    def hosts(self) -> frozenset[str]:
        """HOST:PORT of the indexes that the caller names."""
        return frozenset(
            host_of(url) for url in (self.index, *self.extra_indexes) if not is_pypi(url)
        )

    def authorization(self, url: str) -> Mapping[str, str]:
        """The header that an index of the caller's wants, by its host and port."""
        for own in (self._index, *self._extra):
            parts = urlsplit(own)
            if parts.username is None or host_of(own) != host_of(url):
                continue
            return basic(unquote(parts.username), unquote(parts.password or ""))
        return {}

    def authorizations(self, indexes: list[str]) -> list[str]:
        """The headers that pip sends to these indexes, as `file` names them."""
        found = []
        for url in map(self._with_login, indexes):
            parts = urlsplit(url)
            if parts.username is not None:
                user, password = unquote(parts.username), unquote(parts.password or "")
                found.append(basic(user, password)["Authorization"])
        return found

    def file(self, index: str, extra: list[str]) -> bytes:
        """A pip.conf with these indexes, and the caller's credentials for their own ones."""
        lines = ["[global]", f"index-url = {self._with_login(index)}"]
        if extra:
            lines.append("extra-index-url =")
            lines += [f"    {self._with_login(url)}" for url in extra]
        return ("\n".join(lines) + "\n").encode()

    def _with_login(self, url: str) -> str:
        own = {without_login(one): one for one in (self._index, *self._extra)}.get(url)
        if own is None or urlsplit(own).username is not None:
            return own or url
        parts = urlsplit(url)
        # The caller's own configuration names this index.
        login = self._settings.netrc_login(own, (host_of(own),))
        if login is None:
            return url
        user, password = (quote(part, safe="") for part in login)
        return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.netloc}"))


def without_login(url: str) -> str:
    """The address without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def is_pypi(url: str) -> bool:
    """Whether it is the public index, whose files lie at a host of their own."""
    return urlsplit(url).hostname == urlsplit(PYPI).hostname


def index_hosts(indexes: list[str]) -> list[str]:
    """HOST:PORT of indexes and of the files of the public one."""
    hosts = {host_of(url) for url in indexes}
    if any(is_pypi(url) for url in indexes):
        hosts.add(host_of(PYPI_FILES))
    return sorted(hosts)


def _values(settings: Settings) -> dict[str, str]:
    config = settings.variables.get("XDG_CONFIG_HOME") or settings.home / ".config"
    files = [
        Path("/etc/pip.conf"),
        settings.home / ".pip/pip.conf",
        Path(config) / "pip/pip.conf",
    ]
    if own := settings.variables.get("PIP_CONFIG_FILE"):
        files.append(Path(own))
    found: dict[str, str] = {}
    for file in files:
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read_string(read_text(file))
        except configparser.Error:
            continue
        for section in _SECTIONS:
            if parser.has_section(section):
                found |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    for name in ("index-url", "extra-index-url"):
        if value := settings.variables.get(f"PIP_{name.replace('-', '_').upper()}"):
            found[name] = value
    return found
