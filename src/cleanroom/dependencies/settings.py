"""The caller's own configuration of package managers: mirrors, credentials, proxy, certificates.

The project's files have no say here but where a module names them: they come from a repository.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from cleanroom.core.files import open_to_read

_READ_MAX = 4 << 20
_NO_PASSWORDS = ("", "x-oauth-basic")
# Variables that name a file of certificates; the first that is set counts.
CERTIFICATE_VARIABLES = (
    "SSL_CERT_FILE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "CARGO_HTTP_CAINFO",
    "GIT_SSL_CAINFO",
)


class Settings(NamedTuple):
    """The caller's environment, and the files in their home folder that managers read."""

    variables: Mapping[str, str]
    home: Path

    @classmethod
    def of(cls, caller: Mapping[str, str]) -> Settings:
        """The settings of a caller with these variables."""
        return cls(caller, Path(caller.get("HOME") or "/nonexistent"))

    def text(self, path: str) -> str:
        """The text of a file below the home folder; "" where it is not there or cannot be read."""
        return read_text(self.home / path)

    @property
    def certificates(self) -> str:
        """The file of certificates that the caller's tools trust; "" for the system's."""
        named = (self.variables.get(name, "") for name in CERTIFICATE_VARIABLES)
        return next((path for path in named if path and os.path.isfile(path)), "")  # noqa: PTH113

    def credentials(self, url: str, named: Collection[str] = ()) -> Mapping[str, str]:
        """The header that this host's registry wants of the caller; empty for none.

        From `~/.netrc`, for places that it names; `named` are those that other files of the
        caller's name, as HOST:PORT. Managers that have files of their own for logins add to it.
        """
        login = self.netrc_login(url, named)
        return {} if login is None else basic(*login)

    def netrc_login(self, url: str, named: Collection[str] = ()) -> tuple[str, str] | None:
        """User and password that `~/.netrc` has for an address; None where it has none."""
        return netrc_login(Path(self.variables.get("NETRC") or self.home / ".netrc"), url, named)

    def proxy_for(self, url: str) -> str:
        """The proxy by which an address is reached; "" for none."""
        host = urlsplit(url).hostname or ""
        for entry in self.no_proxy.split(","):
            name = entry.strip().lstrip("*.").partition(":")[0]
            if name and (host == name or host.endswith(f".{name}")):
                return ""
        return "" if "*" in self.no_proxy.split(",") else self.proxy

    @property
    def proxy(self) -> str:
        """The proxy for https addresses; "" for none."""
        for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            if self.variables.get(name):
                return self.variables[name]
        return ""

    @property
    def no_proxy(self) -> str:
        """Hosts that are reached without the proxy, as the variable lists them."""
        return self.variables.get("no_proxy") or self.variables.get("NO_PROXY") or ""


def basic(user: str, password: str) -> dict[str, str]:
    """The header of a login."""
    encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {encoded}"}


def secrets_of(authorization: str) -> list[str]:
    """What must not be shown of the value of an Authorization header: token, or login."""
    scheme, _, rest = authorization.rpartition(" ")
    found = [authorization, rest]
    if scheme.lower() == "basic":
        with suppress(ValueError):
            login = base64.b64decode(rest, validate=True).decode()
            user, _, password = login.partition(":")
            # Some registries take a token as the name, with a word in the password's place.
            found += [login, password, *([user] if password in _NO_PASSWORDS else [])]
    return [value for value in found if value not in _NO_PASSWORDS]


def login_of(url: str) -> list[str]:
    """The Authorization header of the login in an address, such as a proxy's; none without one."""
    try:
        login = urlsplit(url).netloc.rpartition("@")[0]
    except ValueError:
        return []
    user, _, password = login.partition(":")
    written = ((user, password), (unquote(user), unquote(password)))
    return [basic(*one)["Authorization"] for one in dict.fromkeys(written) if login]


def read_text(path: Path) -> str:
    """The text of a file; "" where it is not there or cannot be read."""
    try:
        with open_to_read(path) as stream:
            return stream.read(_READ_MAX).decode(errors="replace")
    except OSError:
        return ""


def host_of(url: str) -> str:
    """HOST:PORT of an address."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or _port_of(parts.scheme)}"


def netrc_login(path: Path, url: str, named: Collection[str] = ()) -> tuple[str, str] | None:
    """User and password for an address in a netrc file; None where it has none.

    `machine HOST` is for the scheme's own port and for places in `named`, `machine HOST:PORT` for
    that one: a lock file comes with a project, and may name any port of the host. `default` is for
    no host that anybody named, and sent to none.
    """
    import netrc

    try:
        hosts = netrc.netrc(str(path)).hosts
    except (netrc.NetrcParseError, OSError, ValueError):
        return None
    parts, place = urlsplit(url), host_of(url)
    found = hosts.get(place)
    if found is None and (parts.port in (None, _port_of(parts.scheme)) or place in named):
        host = parts.hostname or ""
        found = hosts.get(host) if host != "default" else None
    return (found[0], found[2] or "") if found else None


def _port_of(scheme: str) -> int:
    return 443 if scheme == "https" else 80
