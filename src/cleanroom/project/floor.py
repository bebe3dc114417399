"""An organisation's floor: what no project on this machine may fall below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import msgspec

from cleanroom.core.patterns import matches
from cleanroom.model.errors import PolicyRefused, ProjectError
from cleanroom.model.plan import BackendName
from cleanroom.model.policy import Level
from cleanroom.project.settings import Layer
from cleanroom.project.source import Node, nearest, read_source

FLOOR_FILE = Path("/etc/cleanroom/config.toml")
_KEYS = ("policy", "backend", "egress", "images")


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """None: the organisation does not say."""

    file: str = ""
    policy: Level | None = None
    backend: BackendName | None = None
    egress: tuple[str, ...] | None = None  # patterns of "host:port"
    images: tuple[str, ...] | None = None  # patterns of image names

    def backend_for(self, asked: BackendName) -> BackendName:
        """The required backend where the project leaves it open.

        Raises:
            PolicyRefused: the project or command line names another one.
        """
        if self.backend in (None, "auto", asked):
            return asked
        if asked == "auto":
            assert self.backend is not None
            return self.backend
        raise self._below("cleanroom.backend", f"{self.backend}", asked)

    def check(self, subject: str, layer: Layer, level: Level, *, hermetic: bool) -> None:
        """Is one phase at or above the floor?

        Raises:
            PolicyRefused: it is below.
        """
        if self.policy is not None and not hermetic:
            raise self._below(f"{subject}.cleanroom.enabled", "true", "false")
        if self.policy is not None and not level.at_least(self.policy):
            raise self._below(f"{subject}.cleanroom.policy", f"at least {self.policy}", level)
        for host in layer.settings.egress or ():
            if self.egress is not None and not _any(host, self.egress):
                raise self._below(
                    f"{subject}.cleanroom.egress",
                    f"one of {', '.join(self.egress) or 'no hosts'}",
                    host,
                )
        image = layer.settings.image
        if image and self.images is not None and not _any(image, self.images):
            raise self._below(
                f"{subject}.cleanroom.image",
                f"one of {', '.join(self.images) or 'no images'}",
                image,
            )

    def _below(self, key: str, expected: str, found: str) -> PolicyRefused:
        return PolicyRefused(
            "CR-POLICY-002",
            (
                f"{key}: expected {expected}, which {self.file} requires on this machine, found "
                f"{found}"
            ),
            hint="change the project, or ask those who keep that file",
        )


def read_floor(file: Path) -> Floor:
    """The floor of this machine; without the file there is none.

    Raises:
        PolicyRefused: the file cannot be understood; going on could be below what it says.
    """
    try:
        node = read_source(file, str(file)).node
        for key, child in node.children().items():
            if key not in _KEYS:
                close = nearest(key, _KEYS)
                raise child.error(
                    "CR-POLICY-002",
                    f"expected {', '.join(_KEYS)}",
                    hint=f"did you mean {close!r}?" if close else "",
                    at_key=True,
                )
        return _floor(node, str(file))
    except ProjectError as error:
        if error.code == "CR-PROJECT-001":
            return Floor()
        raise PolicyRefused(
            "CR-POLICY-002",
            error.message,
            hint=error.hint or "ask those who keep that file",
            where=error.where,
        ) from error


def _floor(node: Node, file: str) -> Floor:
    policy, backend, egress, images = (node.get(key) for key in _KEYS)
    return Floor(
        file=file,
        policy=Level(policy.choice(Level)) if policy else None,
        backend=_backend(backend) if backend else None,
        egress=egress.texts() if egress else None,
        images=images.texts() if images else None,
    )


def _backend(node: Node) -> BackendName:
    names: dict[str, BackendName] = {name: name for name in get_args(BackendName)}
    return names[node.choice(names)]


def _any(name: str, patterns: Sequence[str]) -> bool:
    return any(matches(name, pattern) for pattern in patterns)
