"""How a client reaches a server or a database, and what a command in a server came to. Values."""

from __future__ import annotations

import re

import msgspec

from cleanroom.core.arguments import Expected, check


def _is_driver(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\w*", value, re.ASCII) is not None


DRIVER = Expected("the name of a driver, such as psycopg or asyncpg", _is_driver)


class Url(str):
    """An address. It is text; called, it names a driver, as SQLAlchemy reads it."""

    __slots__ = ()

    def __call__(self, *, driver: str = "") -> str:
        """The address with this driver: `url(driver="psycopg")` begins `postgresql+psycopg://`.

        Raises:
            UsageError: `driver` is no name.
        """
        check("url: driver", driver, DRIVER)
        scheme, _, rest = self.partition("://")
        return f"{scheme}+{driver}://{rest}" if driver else str(self)


class Database(msgspec.Struct, frozen=True, kw_only=True):
    """A PostgreSQL database and how to reach it."""

    url: Url
    host: str
    port: int
    user: str
    password: str
    database: str

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables for a client: DATABASE_URL and those of libpq."""
        return {
            "DATABASE_URL": str(self.url),
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGUSER": self.user,
            "PGPASSWORD": self.password,
            "PGDATABASE": self.database,
        }

    def named(self, name: str) -> Database:
        """The database of that name on the same server."""
        return database(self.host, self.port, self.user, self.password, name)


def database(host: str, port: int, user: str, password: str, name: str) -> Database:
    """A database with its address. None of the parts needs quoting in one."""
    url = Url(f"postgresql://{user}:{password}@{host}:{port}/{name}")
    return Database(url=url, host=host, port=port, user=user, password=password, database=name)


class KeyValue(msgspec.Struct, frozen=True, kw_only=True):
    """A Valkey or Redis server and how to reach it."""

    url: Url
    host: str
    port: int
    password: str
    database: int = 0

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables for a client: REDIS_URL."""
        return {"REDIS_URL": str(self.url)}


def keyvalue(host: str, port: int, password: str, number: int = 0) -> KeyValue:
    """A key-value server's database with its address."""
    return KeyValue(
        url=Url(f"redis://:{password}@{host}:{port}/{number}"),
        host=host,
        port=port,
        password=password,
        database=number,
    )


class ExecResult(msgspec.Struct, frozen=True, kw_only=True):
    """A command that ended, with what it wrote. A status that is not 0 is a result too."""

    exit_code: int  # 128+n for a signal; 127 and 126 as a shell says them; 124 after its time
    stdout: str
    stderr: str
