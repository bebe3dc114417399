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
from cleanroom.project.keys import EgressKeys
from cleanroom.project.settings import Layer
from cleanroom.project.source import Node, nearest, read_source

FLOOR_FILE = Path("/etc/cleanroom/config.toml")
_KEYS = ("policy", "backend", "egress", "images")
_EGRESS_KEYS = ("host", "port", "private")


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """None: the organisation does not say."""

    file: str = ""
    policy: Level | None = None
    backend: BackendName | None = None
    egress: tuple[str, ...] | None = None  # patterns of "host:port"
    private_egress: tuple[str, ...] = ()  # those whose names may lead to private addresses
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
        for entry in layer.settings.egress or ():
            self._check_egress(subject, entry)
        image = layer.settings.image
        if image and self.images is not None and not _any(image, self.images):
            raise self._below(
                f"{subject}.cleanroom.image",
                f"one of {', '.join(self.images) or 'no images'}",
                image,
            )

    def _check_egress(self, subject: str, entry: EgressKeys) -> None:
        if self.egress is None:
            return
        allowed = self.private_egress if entry.private else self.egress
        if not any(_covers(entry, pattern) for pattern in allowed):
            private = " with private = true" if entry.private else ""
            raise self._below(
                f"{subject}.cleanroom.egress",
                f"one of {', '.join(allowed) or 'no hosts'}{private}",
                f"{entry.name}{private}",
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
    hosts = [_egress_pattern(item) for item in egress.items()] if egress else []
    return Floor(
        file=file,
        policy=Level(policy.choice(Level)) if policy else None,
        backend=_backend(backend) if backend else None,
        egress=tuple(pattern for pattern, _ in hosts) if egress else None,
        private_egress=tuple(pattern for pattern, private in hosts if private),
        images=images.texts() if images else None,
    )


def _backend(node: Node) -> BackendName:
    names: dict[str, BackendName] = {name: name for name in get_args(BackendName)}
    return names[node.choice(names)]


def _egress_pattern(node: Node) -> tuple[str, bool]:
    """A pattern of "host:port", and whether private addresses may be behind it."""
    if not isinstance(node.value, dict):
        return node.text(), False
    for key, child in node.children().items():
        if key not in _EGRESS_KEYS:
            raise child.error("CR-POLICY-002", f"expected {', '.join(_EGRESS_KEYS)}", at_key=True)
    named, port, private = (node.get(key) for key in _EGRESS_KEYS)
    if named is None:
        node.fail("the key 'host' in it")
    host = named.text()
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    number = "443" if port is None else _port_pattern(port)
    return f"{host}:{number}", private is not None and private.flag()


def _port_pattern(node: Node) -> str:
    return "*" if node.value == "*" else str(node.integer(1, 65535))


def _covers(entry: EgressKeys, pattern: str) -> bool:
    """Whether the floor's pattern covers every name that a project's entry opens."""
    if not entry.host.startswith("*."):
        return matches(entry.name, pattern)
    host, _, port = pattern.rpartition(":")
    return _covers_domain(entry.name, pattern) or (
        _covers_domain(entry.host, host) and matches(str(entry.port or 443), port)
    )


def _covers_domain(names: str, pattern: str) -> bool:
    """`names` and `pattern` begin with a star: of any other pattern only some names are covered."""
    tail = pattern[1:]
    literal = pattern.startswith("*") and not set(tail) & set("*?[")
    return literal and names[1:].endswith(tail)


def _any(name: str, patterns: Sequence[str]) -> bool:
    return any(matches(name, pattern) for pattern in patterns)
