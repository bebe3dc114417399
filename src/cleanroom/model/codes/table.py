"""All codes, by name."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from cleanroom.model.codes.record import Code

# Modules of this package, one for each area; `CODES` of each holds its records.
_AREA_NAMES = (
    "audit",
    "backend",
    "bus",
    "cache",
    "cli",
    "container",
    "doctor",
    "engine",
    "env",
    "fetch",
    "file",
    "fs",
    "history",
    "host",
    "init",
    "net",
    "pause",
    "phase",
    "policy",
    "proc",
    "project",
    "res",
    "sandbox",
    "service",
    "session",
    "shell",
    "slo",
    "state",
    "trace",
    "usage",
    "workspace",
)
AREAS: tuple[ModuleType, ...] = tuple(
    import_module(f"{__package__}.{name}") for name in _AREA_NAMES
)

CODES: dict[str, Code] = {record.code: record for area in AREAS for record in area.CODES}
