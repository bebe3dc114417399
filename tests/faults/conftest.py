"""A project for each test."""

from __future__ import annotations

from support.command_harness import project

__all__ = ["project"]
