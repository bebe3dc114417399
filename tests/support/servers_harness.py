"""Asks servers as a client on the host does."""

from __future__ import annotations

import os
import subprocess

from cleanroom import servers


def ask(database: servers.Database | servers.PostgresServer, statement: str) -> str:
    """What psql says, its errors too."""
    done = subprocess.run(
        ["psql", "-X", "-q", "-A", "-t", "-c", statement],
        env={**os.environ, **database.variables},
        capture_output=True,
        text=True,
    )
    return (done.stdout + done.stderr).strip()
