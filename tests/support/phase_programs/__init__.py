"""Programs that phases of the tests' projects run: standard library only, copied as they are."""

from __future__ import annotations

from pathlib import Path


def source(name: str) -> str:
    """The text of a program of this folder."""
    return (Path(__file__).parent / f"{name}.py").read_text()
