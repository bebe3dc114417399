"""Migrations are applied once, in order, and stay as they were."""

from __future__ import annotations

import psycopg
import pytest
from shop import migrate


def test_all_migrations_are_applied_in_order(database: psycopg.Connection):
    assert (
        list(migrate.applied(database))
        == [migration.number for migration in migrate.available()]
        == [1, 2, 3]
    )


def test_migrating_again_does_nothing(database: psycopg.Connection):
    assert migrate.migrate(database) == []


def test_a_migration_changed_afterwards_is_refused(database: psycopg.Connection):
    database.execute("UPDATE migration SET sha256 = 'other' WHERE number = 2")
    with pytest.raises(migrate.Changed, match="002 orders"):
        migrate.migrate(database)


def test_a_failing_migration_leaves_the_database_as_it_was(
    database: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
):
    steps = [
        *migrate.available(),
        migrate.Migration(4, "half", "CREATE TABLE half ();"),
        migrate.Migration(5, "broken", "CREATE TABEL"),
    ]
    monkeypatch.setattr(migrate, "available", lambda: steps)
    with pytest.raises(psycopg.errors.SyntaxError):
        migrate.migrate(database)
    assert 4 not in migrate.applied(database)
    assert database.execute("SELECT to_regclass('half')").fetchone() == (None,)
