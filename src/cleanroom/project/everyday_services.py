"""Services that a phase can name without declaring them, beside the built-in ones: their keys, from
the file beside this module.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from cleanroom.project.keys import ReadyKeys, ServiceKeys

FILE = Path(__file__).with_suffix(".toml")


class EverydayService(msgspec.Struct, frozen=True, kw_only=True):
    """One of them: its keys, the program that it needs, and how that is installed."""

    keys: ServiceKeys
    needs: str
    install: str


@cache
def everyday_services() -> dict[str, EverydayService]:
    """All of them by name. Read once; only projects that name one, or a wrong one, need them."""
    return {name: _service(table) for name, table in tomllib.loads(FILE.read_text("utf-8")).items()}


def completed(keys: ServiceKeys, service: EverydayService) -> ServiceKeys:
    """A project's keys, completed by those of the service; of tables entry by entry."""
    found: dict[str, Any] = {}
    for field in ServiceKeys.__struct_fields__:
        own, given = getattr(keys, field), getattr(service.keys, field)
        if isinstance(own, dict) and isinstance(given, dict):
            found[field] = {**given, **own}
        else:
            found[field] = given if own is None else own
    return ServiceKeys(**found)


def _service(table: dict[str, Any]) -> EverydayService:
    ready = dict(table["ready"])
    timeout = float(ready.pop("timeout", "30s").removesuffix("s"))
    keys = ServiceKeys(
        command=tuple(table["command"]),
        ready=ReadyKeys(**ready, timeout=timeout),
        ports=table.get("ports"),
        env=table["env"],
    )
    return EverydayService(keys=keys, needs=table["needs"], install=table["install"])
