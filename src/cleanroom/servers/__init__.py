"""Real servers for programs on the host, without a project: what the pytest fixtures are made of.

    with servers.postgres(init=["schema.sql"]) as server, server.database() as database:
        connect(database.url)

`async with` enters them too.
"""

from __future__ import annotations

from cleanroom.servers.addresses import Database, ExecResult, KeyValue, Url
from cleanroom.servers.postgres_server import AsyncPostgresServer, PostgresServer, postgres
from cleanroom.servers.redis_server import AsyncRedisServer, RedisServer, redis

__all__ = [
    "AsyncPostgresServer",
    "AsyncRedisServer",
    "Database",
    "ExecResult",
    "KeyValue",
    "PostgresServer",
    "RedisServer",
    "Url",
    "postgres",
    "redis",
]
