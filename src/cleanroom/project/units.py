"""Durations and sizes as people write them."""

from __future__ import annotations

import math
import re

_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d{1,19}(?:\.\d{1,6})?) ?(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)")
_BYTES = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}

SECONDS_MAX = 365 * 86400.0  # timers take more, people do not
BYTES_MAX = 2**62  # kernel interfaces count in signed 64 bits


def duration(value: object) -> float | None:
    """Seconds above 0, of "1m30s", "500ms", "20s" or a number of seconds;
    None for anything else.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        seconds = float(value) if abs(value) <= SECONDS_MAX else math.inf
    elif isinstance(value, str):
        parts = _DURATION.findall(value)
        if not parts or "".join(number + unit for number, unit in parts) != value:
            return None
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    else:
        return None
    return seconds if 0 < seconds <= SECONDS_MAX else None


def written(field: str, value: float) -> str:
    """The value of a field of `Limits` as people write it: 2 GiB, 600 s, 4096."""
    if field.endswith("_seconds"):
        return f"{value:g} s"
    if not field.endswith("_bytes"):
        return f"{value:g}"
    units = [unit for unit in ("TiB", "GiB", "MiB", "KiB") if value % _BYTES[unit] == 0]
    return f"{value // _BYTES[units[0]]:.0f} {units[0]}" if units else f"{value:.0f} bytes"


def size(value: object) -> int | None:
    """Bytes above 0, of "1GiB", "512MiB", "1GB" or a number of bytes; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        count = value
    elif isinstance(value, str) and (found := _SIZE.fullmatch(value.strip())):
        count = int(float(found.group(1)) * _BYTES[found.group(2)])
    else:
        return None
    return count if 0 < count <= BYTES_MAX else None
