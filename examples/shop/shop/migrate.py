"""Numbered migrations, each applied once, in order, and never changed afterwards."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import NamedTuple

import psycopg


class Migration(NamedTuple):
    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


class Changed(Exception):
    """A migration that was applied is not what it was."""


def available() -> list[Migration]:
    found = sorted(
        file.name
        for file in files("shop").joinpath("migrations").iterdir()
        if file.name.endswith(".sql")
    )
    return [
        Migration(
            int(name[:3]), name[4:-4], files("shop").joinpath("migrations", name).read_text("utf-8")
        )
        for name in found
    ]


def applied(database: psycopg.Connection) -> dict[int, str]:
    """Number and digest of each migration the database has."""
    return dict(database.execute("SELECT number, sha256 FROM migration ORDER BY number").fetchall())


def migrate(database: psycopg.Connection) -> list[Migration]:
    """Apply what is missing, all or nothing; the migrations that were applied now."""
    with database.transaction():
        database.execute("LOCK TABLE migration")
        done = applied(database)
        for migration in available():
            if done.get(migration.number, migration.sha256) != migration.sha256:
                raise Changed(
                    f"migration {migration.number:03} {migration.name} was changed after it "
                    "had been applied"
                )
        new = [migration for migration in available() if migration.number not in done]
        for migration in new:
            database.execute(migration.sql)
            database.execute(
                "INSERT INTO migration (number, name, sha256) VALUES (%s, %s, %s)",
                (migration.number, migration.name, migration.sha256),
            )
    return new
