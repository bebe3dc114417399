"""Requirements that name the address of a wheel: `name @ https://host/name-1.0-py3-none-any.whl`."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from cleanroom.dependencies.addresses import is_web_address
from cleanroom.dependencies.digests import is_digest
from cleanroom.dependencies.model import Artifact
from cleanroom.dependencies.simple_index import is_file_name

_REQUIREMENT = re.compile(
    r"([A-Za-z0-9](?:[\w.-]{0,198}[A-Za-z0-9])?)\s*(?:\[[\w\s,.-]*\]\s*)?@\s*"
    r"(https://[^\s;]+)\s*(?:\s;(.*))?",
    re.ASCII,
)


class WheelAddress(NamedTuple):
    """A wheel that lies at an address of its own."""

    name: str
    version: str
    file: str
    url: str  # without fragment
    digest: str = ""  # "sha256:..."
    marker: str = ""

    @property
    def artifact(self) -> Artifact:
        """The file, pinned on first use where no digest stands beside the address."""
        return Artifact(
            name=self.name,
            version=self.version,
            file=self.file,
            url=self.url,
            digest=self.digest,
            pinned=bool(self.digest),
        )


def wheel_address(text: str) -> WheelAddress | None:
    """What a requirement says; None where it names no wheel over https."""
    found = _REQUIREMENT.fullmatch(text.strip())
    if found is None or not text.isprintable() or "${" in text or not is_web_address(found[2]):
        return None
    parts = urlsplit(found[2])
    file = unquote(parts.path).rpartition("/")[2]
    words = file.removesuffix(".whl").split("-")
    if not file.endswith(".whl") or not is_file_name(file) or len(words) not in (5, 6):
        return None
    digest = f"sha256:{parse_qs(parts.fragment).get('sha256', [''])[0].lower()}"
    return WheelAddress(
        found[1],
        words[1],
        file,
        parts._replace(fragment="").geturl(),
        digest if is_digest(digest) else "",
        (found[3] or "").strip(),
    )
