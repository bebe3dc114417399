"""Each test has a shop of its own: a schema in the database, a prefix in Redis, both removed afterwards. Without the stores tests fail."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from shop import migrate, stores
from shop.orders import Shop

SCHEMA = Path(__file__).parent.parent / "database/schema.sql"


@pytest.fixture(scope="session")
def connection() -> Iterator[psycopg.Connection]:
    with stores.database() as database:
        yield database


@pytest.fixture(scope="session")
def cache() -> Iterator[redis.Redis]:
    with stores.cache() as client:
        client.ping()
        yield client


@pytest.fixture
def database(connection: psycopg.Connection) -> Iterator[psycopg.Connection]:
    name = f"test_{secrets.token_hex(6)}"
    connection.execute(f"CREATE SCHEMA {name}")
    connection.execute(f"SET search_path TO {name}")
    try:
        connection.execute(SCHEMA.read_text())
        migrate.migrate(connection)
        yield connection
    finally:
        connection.execute("RESET search_path")
        connection.execute(f"DROP SCHEMA {name} CASCADE")


@pytest.fixture
def shop(database: psycopg.Connection, cache: redis.Redis) -> Iterator[Shop]:
    shop = Shop(database, cache, prefix=f"test-{secrets.token_hex(6)}")
    shop.offer("tea", "Tea", 500, stock=10)
    shop.offer("cup", "Cup", 850, stock=2)
    try:
        yield shop
    finally:
        for key in list(cache.scan_iter(f"{shop.prefix}:*")):
            cache.delete(key)
