"""Faults of container engines: each has an outcome that is said,
and nothing is left that could be removed.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from cleanroom.backends.base import EnvironmentSpec
from cleanroom.backends.containers.client import EngineName, find_socket
from cleanroom.backends.registry import make
from cleanroom.model.errors import EnvironmentFailed
from cleanroom.model.policy import Level, default_policy
from cleanroom.sandbox.processes import container_cleanup
from support.container_harness import CACHE, ENGINES, IMAGE, labelled, require
from support.engine_proxy import proxied
from support.open_folders import journal_at

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(300)]

RUN_ID = f"f{os.getpid()}"


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> EngineName:
    require(request.param)
    name: EngineName = request.param
    return name


def spec(**fields: object) -> EnvironmentSpec:
    given = {
        "id": "phase",
        "run_id": RUN_ID,
        "role": "phase",
        "policy": default_policy(Level.MEDIUM),
        "variables": {},
        "image": IMAGE,
    }
    return EnvironmentSpec(**(given | fields))  # type: ignore[arg-type]


async def test_a_slow_engine_is_waited_for(engine: EngineName, tmp_path: Path):
    """Every call half a second late: the command runs, and nothing is left."""
    with proxied(engine, tmp_path, delay_seconds=0.5) as way:
        made = make(
            engine,
            run_id=RUN_ID,
            scratch=tmp_path / "s",
            journal=journal_at(tmp_path / "j"),
            cache=CACHE,
            caller=way.caller,
        )
        async with made, made.environment(spec()) as environment:
            assert (
                await environment.exec(("true",), on_output=lambda stream, piece: None)
            ).exit_code == 0
        created, removed, left = await made.ledger()
        assert (created, left) == (removed, ())


async def test_an_engine_that_goes_away_is_said_and_its_container_named(
    engine: EngineName, tmp_path: Path
):
    """The command that runs meanwhile ends as it should; the container's processes are gone,
    and the ledger names what could not be removed.
    """
    with proxied(engine, tmp_path) as way:
        made = make(
            engine,
            run_id=RUN_ID,
            scratch=tmp_path / "s",
            journal=journal_at(tmp_path / "j"),
            cache=CACHE,
            caller=way.caller,
        )
        async with made:
            async with made.environment(spec()) as environment:
                way.cut()
                assert (
                    await environment.exec(("true",), on_output=lambda stream, piece: None)
                ).exit_code == 0
            with pytest.raises(EnvironmentFailed) as failed:
                async with made.environment(spec(id="next")):
                    pass
            assert failed.value.code == "CR-CONTAINER-004"
    _, _, left = await made.ledger()
    names = [thing.name for thing in left if thing.kind == "container"]
    assert names
    for name in names:
        assert container_cleanup.remove(find_socket(engine, os.environ), name)


async def test_a_name_that_is_taken_is_the_engines_refusal(engine: EngineName, tmp_path: Path):
    """Said with the engine's own words, exit 5; the stranger's container stays."""
    socket, name = find_socket(engine, os.environ), f"cleanroom-{RUN_ID}-phase-1"
    body = msgspec.json.encode({"Image": IMAGE, "Cmd": ["true"]})
    status, said = await asyncio.to_thread(
        container_cleanup.call, socket, "POST", f"/containers/create?name={name}", body
    )
    assert status == 201, said
    try:
        made = make(
            engine,
            run_id=RUN_ID,
            scratch=tmp_path / "s",
            journal=journal_at(tmp_path / "j"),
            cache=CACHE,
            caller=os.environ,
        )
        async with made:
            with pytest.raises(EnvironmentFailed) as failed:
                async with made.environment(spec()):
                    pass
        assert failed.value.code == "CR-CONTAINER-005"
        assert (
            await asyncio.to_thread(
                container_cleanup.call, socket, "GET", f"/containers/{name}/json"
            )
        )[0] == 200
    finally:
        await asyncio.to_thread(container_cleanup.remove, socket, name)


async def test_a_container_that_somebody_kills_fails_its_environment(
    engine: EngineName, tmp_path: Path
):
    """At once, and it is removed."""
    made = make(
        engine,
        run_id=RUN_ID,
        scratch=tmp_path / "s",
        journal=journal_at(tmp_path / "j"),
        cache=CACHE,
        caller=os.environ,
    )
    async with made, made.environment(spec()) as environment:
        (name,) = await asyncio.to_thread(labelled, engine, RUN_ID)
        socket = find_socket(engine, os.environ)
        killing = asyncio.create_task(
            asyncio.to_thread(container_cleanup.call, socket, "POST", f"/containers/{name}/kill")
        )
        with pytest.raises(EnvironmentFailed):
            await environment.exec(("sleep", "100"), on_output=lambda stream, piece: None)
        await killing
    created, removed, left = await made.ledger()
    assert (created, left) == (removed, ())


async def test_a_paused_container_is_ended_by_the_timeout(engine: EngineName, tmp_path: Path):
    """Nobody inside can act, so it is killed from outside; it is removed all the same."""
    made = make(
        engine,
        run_id=RUN_ID,
        scratch=tmp_path / "s",
        journal=journal_at(tmp_path / "j"),
        cache=CACHE,
        caller=os.environ,
    )
    async with made, made.environment(spec()) as environment:
        (name,) = await asyncio.to_thread(labelled, engine, RUN_ID)
        socket = find_socket(engine, os.environ)
        status, said = await asyncio.to_thread(
            container_cleanup.call, socket, "POST", f"/containers/{name}/pause"
        )
        assert status == 204, said
        with suppress(EnvironmentFailed, TimeoutError):
            async with asyncio.timeout(1):
                await environment.exec(("true",), on_output=lambda stream, piece: None)
    assert labelled(engine, RUN_ID) == []
    created, removed, left = await made.ledger()
    assert (created, left) == (removed, ())
