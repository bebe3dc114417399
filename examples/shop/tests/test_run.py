"""What earlier phases of the same run did is still there."""

from __future__ import annotations

import psycopg
from shop import migrate


def test_the_init_phase_has_migrated_the_shops_own_database(connection: psycopg.Connection):
    assert list(migrate.applied(connection)) == [
        migration.number for migration in migrate.available()
    ]
