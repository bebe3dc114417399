"""TOML of lock files and manifests, which come with the project and may say anything. Pure."""

from __future__ import annotations

import tomllib
from typing import Any

# The parser's time and memory grow with the square of a key's parts: 120 kB took 1.5 GB.
DOTS_MAX = 1000  # of a line


def read_toml(content: bytes) -> dict[str, Any]:
    """The document.

    Raises:
        ValueError: it is no TOML, or none that a package manager writes; the message says why.
    """
    text = content.decode()
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > DOTS_MAX:
            raise ValueError(f"line {number}: more than {DOTS_MAX} dots")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("it has too many levels") from error
