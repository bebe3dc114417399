"""What the recipes of all kinds share: base variables, the names phases get,
checks of what a project may set.
"""

from __future__ import annotations

import re
from collections.abc import Set

from cleanroom.model.errors import ProjectError
from cleanroom.model.plan import ServiceSpec
from cleanroom.services.base import DATA


def base_variables() -> dict[str, str]:
    """The environment of a service's processes: the same on every machine."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": DATA,
        "TMPDIR": "/tmp",  # noqa: S108 - the environment's own
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }


def location_variables(name: str, port: int, url: str) -> dict[str, str]:
    """CLEANROOM_<NAME>_HOST, _PORT and _URL."""
    prefix = "CLEANROOM_" + re.sub(r"[^A-Z0-9]", "_", name.upper())
    return {f"{prefix}_HOST": "127.0.0.1", f"{prefix}_PORT": str(port), f"{prefix}_URL": url}


def refuse_reserved(spec: ServiceSpec, reserved: Set[str], name_pattern: str) -> None:
    """Settings that decide where the server listens and keeps its state are ours;
    any other name may be set.

    Raises:
        ProjectError: the project sets one of them, a name that is none,
            or a value of several lines.
    """
    for name, value in spec.options.items():
        key = f"cleanroom.services.{spec.name}.options.{name}"
        where = str(spec.origin or "")
        if name.lower() in reserved:
            raise ProjectError(
                "CR-SERVICE-005",
                f"{key}: this setting is the engine's",
                hint="remove it",
                where=where,
            )
        if not re.fullmatch(name_pattern, name):
            raise ProjectError(
                "CR-SERVICE-005",
                f"{key}: expected the name of a server setting, got {name!r}",
                hint="correct it",
                where=where,
            )
        if not value.isprintable():
            raise ProjectError(
                "CR-SERVICE-005",
                f"{key}: expected one line of printable text, got {value!r}",
                hint="correct it",
                where=where,
            )
