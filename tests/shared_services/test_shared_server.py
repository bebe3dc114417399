"""The server of shared services on the memory backend, in this process: what runs get of it,
what they learn, and when it ends.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import pytest

from cleanroom.engine.shared_services import discovery
from cleanroom.engine.shared_services import server as server_module
from cleanroom.engine.shared_services.client import ServerConnection, connect
from cleanroom.engine.shared_services.discovery import ServerConfig, connect_or_start
from cleanroom.engine.shared_services.pool import PoolStatus, pool_key, pool_status
from cleanroom.engine.shared_services.server import SharedServer, wait_idle
from cleanroom.engine.supervision.service import ServiceState
from cleanroom.model.policy import Level, default_policy
from cleanroom.sandbox.journal import process_name
from cleanroom.services.base import Probe, Recipe
from cleanroom.testing import Inside, MemoryBackend, Program, Script, forever, succeed

SECONDS = 20  # for what takes milliseconds


class Bench:
    """Starts servers in this process, and keeps what their backends ran."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = tmp_path / "project"
        self.root.mkdir()
        self.runs = tmp_path / "cache/runs"
        self.statements: list[str] = []
        self.refused: set[str] = set()
        self.identity = ""
        self._listening: list[socket.socket] = []
        monkeypatch.setattr(server_module, "seal", lambda roots: None)
        monkeypatch.setattr(discovery, "_spawn", self._spawn)

    def _spawn(self, folder: object, listening: socket.socket, root: str) -> int:
        self._listening.append(listening.dup())
        return os.getpid()

    def config(self, kind: discovery.Kind = "session", **fields: object) -> ServerConfig:
        config = ServerConfig(
            kind=kind,
            key=pool_key(str(self.root), "memory"),
            project="shop",
            root=str(self.root),
            runs=str(self.runs),
            templates=str(self.runs.parent / "services"),
            policy=default_policy(Level.MEDIUM),
            seed=42,
        )
        return msgspec.structs.replace(config, **fields)

    @asynccontextmanager
    async def serving(
        self, config: ServerConfig, programs: Mapping[str, Program] | None = None
    ) -> AsyncIterator[anyio.Event]:
        """Run a server; the event is set once it has ended. Leaving ends it."""
        found = await anyio.to_thread.run_sync(connect_or_start, config)
        assert found is not None
        self.identity = found[0]
        found[1].close()
        listening = self._listening.pop()
        script = Script(programs=dict(programs or {}), otherwise=self._otherwise)
        server = SharedServer(
            config, self.runs / self.identity, listening, lambda *_: MemoryBackend(script)
        )
        ended = anyio.Event()

        async def serve() -> None:
            try:
                await server.serve()
            finally:
                listening.close()
                ended.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            with anyio.fail_after(SECONDS):
                yield ended
                server.end()
                await ended.wait()

    async def _otherwise(self, inside: Inside) -> int:
        if inside.argv[0] != "psql":
            return await forever(inside) if inside.argv[0].startswith("serve") else 0
        folder = self.runs / self.identity / "data/services" / inside.environment.id
        text = (folder / "private" / Path(inside.argv[-1]).name).read_text()
        made = [line for line in text.splitlines() if line.startswith(("CREATE DAT", "DROP DAT"))]
        self.statements += [" ".join(line.split()[:3]).replace(" IF", "") for line in made]
        if any(word in text for word in self.refused):
            inside.write(b"ERROR: refused")
            return 3
        return 0

    async def status(self) -> PoolStatus:
        return await anyio.to_thread.run_sync(pool_status, str(self.runs), str(self.root), "memory")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def recipe(name: str, kind: str = "generic", **fields: object) -> Recipe:
    made = Recipe(
        name=name,
        kind=kind,  # type: ignore[arg-type]
        version="1",
        probe=Probe(kind="exec", argv=("ask",)),
        main=(f"serve-{name}",),
        administer=("psql", "-c"),
        port=7000,
        to="tcp:7000",
        phase_variables={"WORD": f"word-of-{name}"},
        secrets=(f"word-of-{name}",),
    )
    return msgspec.structs.replace(made, **fields)


async def first(server: ServerConnection, name: str, *, ready: bool = True) -> ServiceState:
    """The first state that is ready, or failed."""
    async for state in server.services[name].states():
        if state.ready is ready or state.failure is not None:
            return state
    raise AssertionError("the states ended")


@asynccontextmanager
async def joining(
    config: ServerConfig, *recipes: Recipe, lease: bool = True
) -> AsyncIterator[ServerConnection]:
    async with connect(config, "run", recipes, lease=lease) as server:
        assert server is not None
        yield server


# --- sessions


async def test_two_runs_of_a_session_have_the_same_service(bench: Bench):
    """The second finds it ready, in the same environment and with the same credentials."""
    config = bench.config()
    async with bench.serving(config):
        async with joining(config, recipe("db")) as one, joining(config, recipe("db")) as other:
            assert (await first(one, "db")).ready
            assert (await first(other, "db")).ready
            assert one.id == other.id == bench.identity
            assert one.services["db"].environment == other.services["db"].environment
            assert one.services["db"].recipe.secrets == ("word-of-db",)
        async with joining(config, recipe("db")) as later:
            assert later.services["db"].environment.startswith(f"{bench.identity}/service-db-1")


async def test_a_service_of_another_configuration_is_not_given(bench: Bench):
    """The run is told its name, and starts one of its own."""
    config = bench.config()
    async with (
        bench.serving(config),
        joining(config, recipe("db")),
        joining(config, recipe("db", version="2")) as other,
    ):
        assert other.others == ("db",)
        assert not other.services
        assert other.resources == ()


async def test_a_secret_makes_no_other_configuration(bench: Bench):
    """Each run makes passwords of its own; that of the first one counts."""
    config = bench.config()
    second = recipe("db", phase_variables={"WORD": "another"}, secrets=("another",))
    async with (
        bench.serving(config),
        joining(config, recipe("db")),
        joining(config, second) as other,
    ):
        assert other.services["db"].recipe.secrets == ("word-of-db",)
        assert other.services["db"].recipe.phase_variables == {"WORD": "word-of-db"}


async def test_a_run_learns_what_the_ledger_has_to_say(bench: Bench):
    """The process, its folder and each environment are held for it."""
    config = bench.config()
    async with bench.serving(config), joining(config, recipe("db")) as server:
        process, folder, environment = server.resources
    assert process == f"process {os.getpid()} ({bench.identity})"
    assert folder == f"folder {bench.runs / bench.identity}"
    assert environment.startswith("environment service-db-")


async def test_recoveries_and_failures_reach_the_run(bench: Bench):
    """A service that dies is restarted, then given up: with the code that the server had."""
    config = bench.config()
    dying = recipe("db", restarts_max=1)
    async with (
        bench.serving(config, {"serve-db": succeed(exit_code=3)}),
        joining(config, dying) as server,
    ):
        states = [state async for state in server.services["db"].states()]
        events = server.events()
        recoveries = [await anext(events) for _ in range(2)]
    assert states[-1].failure is not None
    assert states[-1].failure.code == "CR-SERVICE-021"
    assert [getattr(event, "action", "") for event in recoveries] == ["restarted", "gave_up"]


# --- leases of a pool


async def started_pool(config: ServerConfig, *recipes: Recipe) -> None:
    """As `pool start` does."""
    async with joining(config, *recipes, lease=False) as server:
        for name in server.services:
            await first(server, name)


async def test_each_run_of_a_pool_has_a_database_of_its_own(bench: Bench):
    """Names and passwords differ, and what a run had is removed when it leaves."""
    config = bench.config("pool")
    async with bench.serving(config):
        await started_pool(config, recipe("pg", "postgres"))
        async with (
            joining(config, recipe("pg", "postgres")) as one,
            joining(config, recipe("pg", "postgres")) as other,
        ):
            assert (await first(one, "pg")).ready
            assert (await first(other, "pg")).ready
            recipes = [server.services["pg"].recipe for server in (one, other)]
            names = [each.phase_variables["PGDATABASE"] for each in recipes]
            assert len(set(names)) == 2
            assert recipes[0].secrets != recipes[1].secrets
            assert f"database {names[0]}" in one.resources
        dropped = [words for words in bench.statements if words.startswith("DROP")]
    assert len(dropped) == 2


async def test_a_database_that_cannot_be_created_fails_the_runs_service(bench: Bench):
    """The run learns what the server said."""
    config = bench.config("pool")
    bench.refused = {"CREATE"}
    async with bench.serving(config):
        await started_pool(config, recipe("pg", "postgres"))
        async with joining(config, recipe("pg", "postgres")) as server:
            state = await first(server, "pg")
    assert state.failure is not None
    assert state.failure.code == "CR-SERVICE-030"
    assert "refused" in state.failure.message


async def test_a_server_that_cannot_be_divided_is_leased_to_one_run_at_a_time(bench: Bench):
    """The second run starts its own; the next one gets a new server with another password."""
    config = bench.config("pool")
    async with bench.serving(config):
        await started_pool(config, recipe("cache", "redis"))
        async with joining(config, recipe("cache", "redis")) as one:
            async with joining(config, recipe("cache", "redis")) as other:
                assert not other.services
                assert other.others == ()
            before = one.services["cache"]
        async with joining(config, recipe("cache", "redis")) as later:
            after = later.services["cache"]
            assert (await first(later, "cache")).ready
    assert after.environment != before.environment
    assert after.recipe.secrets != before.recipe.secrets


async def test_a_run_gets_only_services_that_the_pool_was_started_with(bench: Bench):
    """It starts the others itself."""
    config = bench.config("pool")
    async with bench.serving(config), joining(config, recipe("cache", "redis")) as server:
        assert not server.services


async def test_a_run_that_dies_gives_its_leases_back(bench: Bench):
    """Its connection ends without a word, and the server counts it until all is removed."""
    config = bench.config("pool")
    async with bench.serving(config):
        await started_pool(config, recipe("pg", "postgres"))
        async with joining(config, recipe("pg", "postgres")) as server:
            await first(server, "pg")
            assert (await bench.status()).leases == 1
            server.close()
            while (await bench.status()).leases:
                await anyio.sleep(0.01)  # polling for what the server does
        assert [words for words in bench.statements if words.startswith("DROP")]


# --- its end


async def test_a_pools_status_names_its_services(bench: Bench):
    """As `pool status` prints it."""
    config = bench.config("pool", idle_seconds=600.0)
    async with bench.serving(config):
        await started_pool(config, recipe("cache", "redis"))
        status = await bench.status()
    assert (status.id, status.pid, status.idle_seconds, status.leases) == (
        bench.identity,
        os.getpid(),
        600.0,
        0,
    )
    assert [(s.name, s.version, s.ready) for s in status.services] == [("cache", "1", True)]


async def test_a_server_ends_with_its_owner(bench: Bench):
    """A session's services end with its ggen."""
    async with (
        await anyio.open_process(["sleep", "60"]) as owner,
        bench.serving(bench.config(owner=process_name(owner.pid))) as ended,
    ):
        assert not ended.is_set()
        owner.kill()
        await ended.wait()


async def test_a_server_ends_when_no_run_has_used_it_for_long(bench: Bench):
    """A run that has services keeps it."""
    config = bench.config("pool", idle_seconds=0.05)
    async with bench.serving(config) as ended:
        async with joining(config, recipe("cache", "redis"), lease=False) as server:
            await first(server, "cache")
            await anyio.sleep(0.2)
            assert not ended.is_set()
        await ended.wait()


async def test_services_fail_for_runs_whose_server_ends(bench: Bench):
    """Whoever waits for one learns that the server has ended."""
    config = bench.config("pool", idle_seconds=0.0)
    async with bench.serving(config), joining(config, recipe("db"), lease=False) as server:
        await first(server, "db")
        assert server._link is not None
        server.server_ended()
        states = [state async for state in server.services["db"].states()]
    assert states[-1].failure is not None
    assert states[-1].failure.code == "CR-SESSION-004"


@pytest.mark.looptime
async def test_idle_time_begins_anew_with_every_use():
    """Ten minutes without a run, counted from the last one that was seen."""
    began = anyio.current_time()

    await wait_idle(600, lambda: anyio.current_time() < began + 300)

    assert 899 <= anyio.current_time() - began <= 901


@pytest.mark.looptime
async def test_without_any_use_idle_time_is_exact():
    """A pool that nobody uses ends when it was said to."""
    began = anyio.current_time()

    await wait_idle(10, lambda: False)

    assert anyio.current_time() - began == pytest.approx(10, abs=0.01)
