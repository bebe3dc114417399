"""`.yarnrc.yml`: registries, and credentials for them. Pure.

Plugins, `yarnPath` and whatever else would run is read by yarn in phases, and by nobody here.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from cleanroom.dependencies.yaml_reader import read_yaml

_VARIABLE = re.compile(r"\$\{(\w+)(?::?-([^}]*))?\}")
_RELEASE = re.compile(r"yarn-(\d+\.\d+\.\d+[\w.-]*?)\.c?js", re.ASCII)


class Yarnrc:
    """The settings of one file; of none where it cannot be read, as yarn would say itself."""

    def __init__(self, content: bytes, variables: Mapping[str, str] | None = None) -> None:
        """`variables` stand for `${NAME}` in values; those of nobody without them."""
        self._variables = variables or {}
        try:
            documents = read_yaml(content)
        except ValueError:
            documents = []
        self._values = _mapping(documents[0] if documents else None)

    def registry(self, name: str = "") -> str:
        """The registry of a package without a slash at its end; "" where the file names none."""
        scopes = _mapping(self._values.get("npmScopes"))
        scope = name.partition("/")[0].removeprefix("@") if name.startswith("@") else ""
        scoped = self._text(_mapping(scopes.get(scope)).get("npmRegistryServer"))
        return (scoped or self._text(self._values.get("npmRegistryServer"))).rstrip("/")

    def registries(self) -> set[str]:
        """All addresses of registries that are named."""
        named = {server for server, _ in self._servers() if server}
        return {f"https:{server}" if server.startswith("//") else server for server in named}

    def authorization(self, url: str) -> str:
        """The value of the header for an address: by the longest registry that it is of."""
        parts = urlsplit(url)
        best = ("", "")
        for server, values in self._servers():
            prefix = server.partition(":")[2] if "://" in server else server
            inside = f"//{parts.netloc}{parts.path}/".startswith(f"{prefix.rstrip('/')}/")
            if prefix and inside and len(prefix) > len(best[0]):
                found = self._credentials(values)
                best = (prefix, found) if found else best
        return best[1]

    def release(self) -> str:
        """The version in the name of the file that `yarnPath` names; "" for none."""
        found = _RELEASE.fullmatch(self._text(self._values.get("yarnPath")).rpartition("/")[2])
        return found[1] if found else ""

    def _servers(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Addresses with what is said of them. The file's own values are of its own registry."""
        yield self._text(self._values.get("npmRegistryServer")), self._values
        for values in map(_mapping, _mapping(self._values.get("npmScopes")).values()):
            yield self._text(values.get("npmRegistryServer")), values
        for server, values in _mapping(self._values.get("npmRegistries")).items():
            yield self._text(server), _mapping(values)

    def _credentials(self, values: Mapping[str, Any]) -> str:
        if token := self._text(values.get("npmAuthToken")):
            return f"Bearer {token}"
        if login := self._text(values.get("npmAuthIdent")):
            # NAME:PASSWORD, or that in base64 already
            encoded = base64.b64encode(login.encode()).decode() if ":" in login else login
            return f"Basic {encoded}"
        return ""

    def _text(self, value: object) -> str:
        """A value with its variables."""
        if not isinstance(value, str):
            return ""
        return _VARIABLE.sub(lambda one: self._variables.get(one[1]) or one[2] or "", value)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
