"""Valkey and Redis servers: one server, emptied between its users."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from anyio.abc import ByteStream

from cleanroom.core.arguments import SECONDS, VARIABLES, check
from cleanroom.model.errors import ServiceFailed
from cleanroom.model.plan import ServiceSpec
from cleanroom.servers.addresses import ExecResult, KeyValue, Url, keyvalue
from cleanroom.servers.databases import failing
from cleanroom.servers.emptying import Commands, everything
from cleanroom.servers.hosts import Host
from cleanroom.servers.loop_thread import Hosted
from cleanroom.servers.opening import Opening
from cleanroom.servers.phase_services import RUN, phase_redis
from cleanroom.servers.requests import ARGV, EXEC_SECONDS, Place, place
from cleanroom.services import resp

if TYPE_CHECKING:
    from cleanroom.servers.own_server import OwnServer


class RedisHost(Host, Protocol):
    """What is asked of one of this kind beside."""

    keyvalue: KeyValue
    # what empties it
    emptying: Commands


class _Redis:
    """What both kinds have."""

    def __init__(self, hosted: Hosted[Any], server: RedisHost) -> None:
        self._hosted = hosted
        self._server = server
        self.version: str = server.version
        self.keyvalue: KeyValue = server.keyvalue
        self.host: str = server.keyvalue.host
        self.port: int = server.keyvalue.port

    @property
    def url(self) -> Url:
        """Its address."""
        return self.keyvalue.url

    @property
    def password(self) -> str:
        """Its password."""
        return self.keyvalue.password

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables for a client: REDIS_URL."""
        return self.keyvalue.variables


class RedisServer(_Redis):
    """A server whose methods block; they may be called from any thread."""

    def clear(self) -> None:
        """End every connection and remove all keys, scripts and functions, in all databases.

        Raises:
            ServiceFailed: the server did not do it, or is gone.
        """
        self._hosted.call(_clear(self._server)).result()

    def exec(self, argv: Sequence[str], *, timeout_seconds: float = EXEC_SECONDS) -> ExecResult:
        """Run a command where the server runs.

        Raises:
            UsageError: an argument is not what it has to be, or this is a phase's service.
            CleanroomError: the server is gone.
        """
        done: ExecResult = self._hosted.call(_exec(self._server, argv, timeout_seconds)).result()
        return done

    def logs(self) -> str:
        """What the server has written so far.

        Raises:
            UsageError: this is a phase's service, whose log is the run's.
        """
        text: str = self._hosted.call(self._server.logs()).result()
        return text

    def stop(self) -> None:
        """End the server that `start` started."""
        self._hosted.close()


class AsyncRedisServer(_Redis):
    """A server whose methods are awaited, in any event loop."""

    async def clear(self) -> None:
        """As `RedisServer.clear`."""
        await self._hosted.call(_clear(self._server)).result_async()

    async def exec(
        self, argv: Sequence[str], *, timeout_seconds: float = EXEC_SECONDS
    ) -> ExecResult:
        """As `RedisServer.exec`."""
        call = self._hosted.call(_exec(self._server, argv, timeout_seconds))
        done: ExecResult = await call.result_async()
        return done

    async def logs(self) -> str:
        """As `RedisServer.logs`."""
        text: str = await self._hosted.call(self._server.logs()).result_async()
        return text


async def _clear(server: RedisHost) -> None:
    commands = server.emptying
    with failing("emptying the key-value server"):
        async with await server.dial() as stream:
            answers = await resp.send_commands(stream, server.keyvalue.password, *commands)
    refused = [answer for answer in answers if answer.startswith("-")]
    if refused or len(answers) != len(commands) + 1:
        words = "; ".join(refused) or "the connection ended"
        raise ServiceFailed("CR-SERVICE-030", f"emptying the key-value server: {words}")


async def _exec(server: RedisHost, argv: Sequence[str], timeout_seconds: float) -> ExecResult:
    check("exec: argv", argv, ARGV)
    check("exec: timeout_seconds", timeout_seconds, SECONDS)
    return await server.exec(argv, {"REDISCLI_AUTH": server.keyvalue.password}, timeout_seconds)


def redis(
    *,
    version: str = "",
    options: Mapping[str, str] | None = None,
    folder: str | Path | None = None,
    caller: Mapping[str, str] | None = None,
) -> Opening[RedisServer, AsyncRedisServer]:
    """A Valkey or Redis server; inside a phase of a run the phase's own.

    `with` gives a `RedisServer`, `async with` an `AsyncRedisServer`.
    Arguments and errors are those of `postgres`.
    """
    check("servers.redis: options", options or {}, VARIABLES)
    where = place("servers.redis", version, folder, caller)
    spec = ServiceSpec(name="redis", kind="redis", version=version, options=dict(options or {}))
    return Opening("cleanroom-redis", lambda: _open(spec, where), RedisServer, AsyncRedisServer)


@asynccontextmanager
async def _open(spec: ServiceSpec, where: Place) -> AsyncIterator[RedisHost]:
    if RUN in where.caller:
        async with phase_redis(spec, where.caller) as phase_server:
            yield phase_server
    else:
        # in a phase most of the engine would be imported for nothing
        from cleanroom.servers.own_server import serve

        async with serve(spec, where.folder, where.caller) as server:
            yield _OwnRedis(server)


class _OwnRedis:
    """A server of our own."""

    def __init__(self, server: OwnServer) -> None:
        (password,) = server.recipe.secrets
        self.version = server.version
        self.keyvalue = keyvalue(server.host, server.port, password)
        self.emptying = everything(server.version)
        self._server = server

    async def dial(self) -> ByteStream:
        return await self._server.dial()

    async def exec(
        self, argv: Sequence[str], variables: Mapping[str, str], timeout_seconds: float
    ) -> ExecResult:
        return await self._server.exec(argv, variables, timeout_seconds)

    async def logs(self) -> str:
        return await self._server.logs()
