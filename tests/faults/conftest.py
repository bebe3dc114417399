"""A project for each test."""

from __future__ import annotations

from acceptance_bench import project

__all__ = ["project"]
