"""`.npmrc`: registries, and credentials for them. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

REGISTRY = "https://registry.npmjs.org"
_VARIABLE = re.compile(r"\$\{([^}]+)\}")


class Npmrc:
    """The settings of one or more files; what stands in a later one wins."""

    def __init__(self, *texts: str, variables: Mapping[str, str] | None = None) -> None:
        """`variables` stand for `${NAME}` in values; those of nobody without them."""
        self._values: dict[str, str] = {}
        for text in texts:
            self._values |= _read(text, variables or {})

    def registry(self, name: str = "") -> str:
        """The registry of a package, without a slash at its end."""
        scope = name.partition("/")[0] if name.startswith("@") else ""
        found = self._values.get(f"{scope}:registry") if scope else None
        return (found or self._values.get("registry") or REGISTRY).rstrip("/")

    def registries(self) -> set[str]:
        """All addresses of registries that are named."""
        return {
            value
            for key, value in self._values.items()
            if key == "registry" or key.endswith(":registry")
        }

    def authorization(self, url: str) -> str:
        """The value of the header for an address: by the longest prefix that has credentials."""
        parts = urlsplit(url)
        path = f"//{parts.netloc}{parts.path}"
        while path.startswith("//") and len(path) > 2:
            for prefix in (path, f"{path}/") if not path.endswith("/") else (path,):
                if found := self._credentials(prefix):
                    return found
            path = path.rstrip("/").rpartition("/")[0]
        return ""

    def _credentials(self, prefix: str) -> str:
        if token := self._values.get(f"{prefix}:_authToken"):
            return f"Bearer {token}"
        if login := self._values.get(f"{prefix}:_auth"):
            return f"Basic {login}"
        user, encoded = (self._values.get(f"{prefix}:{key}") for key in ("username", "_password"))
        if user and encoded:
            password = base64.b64decode(encoded).decode(errors="replace")
            return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
        return ""


def _read(text: str, variables: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith(("#", ";")):
            plain = value.strip().strip("\"'")
            found[key.strip()] = _VARIABLE.sub(lambda one: variables.get(one[1], ""), plain)
    return found
