"""The commands that empty a key-value server for its next user."""

from __future__ import annotations

Commands = tuple[tuple[str, ...], ...]
FUNCTIONS_SINCE = 7  # the major version of Redis that keeps functions beside its data


def everything(version: str) -> Commands:
    """End all connections; remove keys, scripts and functions of all databases."""
    keeps_functions = int(version.partition(".")[0]) >= FUNCTIONS_SINCE
    return (
        ("CLIENT", "KILL", "TYPE", "normal"),
        ("CLIENT", "KILL", "TYPE", "pubsub"),
        ("FLUSHALL",),
        ("SCRIPT", "FLUSH"),
        *([("FUNCTION", "FLUSH")] if keeps_functions else []),
    )


def one_database(number: int) -> Commands:
    """Remove the keys of one database: others are somebody else's."""
    return (("SELECT", str(number)), ("FLUSHDB",))
