"""The memory backend keeps the protocol that every backend keeps."""

from __future__ import annotations

import anyio
import pytest

from cleanroom.backends import registry
from cleanroom.backends.base import EnvironmentSpec
from cleanroom.backends.memory.backend import NO_SCRIPT
from cleanroom.backends.memory.programs import forever
from cleanroom.model.errors import EnvironmentFailed, PolicyRefused, UsageError
from cleanroom.model.policy import Level, default_policy
from cleanroom.testing import CHECK_SCRIPT, CHECKS, Check, MemoryBackend, Script, check_backend


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_memory_backend_passes(check: Check):
    """The suite of all backends holds for the scripted one."""
    await check_backend(lambda scratch: MemoryBackend(CHECK_SCRIPT), [check])


async def test_a_backend_that_leaves_something_fails_the_suite():
    """The suite's ledger check is not vacuous."""
    from cleanroom.backends.base import Leftover

    script = Script(programs=CHECK_SCRIPT.programs, left=(Leftover(kind="cgroup", name="stale"),))
    with pytest.raises(AssertionError, match="left behind"):
        await check_backend(lambda scratch: MemoryBackend(script), CHECKS[:1])


async def test_without_a_script_nothing_is_claimed():
    """An unscripted memory backend enforces nothing and says so."""
    report = await MemoryBackend().probe(Level.MEDIUM)
    assert {row.enforced for row in report.dimensions} == {"no"}
    assert report.notes == (NO_SCRIPT,)


@pytest.mark.parametrize("name", registry.LATER)
def test_backends_of_later_versions_are_refused(name: str):
    """What comes later ends with exit 3 and a code, never with a stub."""
    with pytest.raises(PolicyRefused) as refused:
        registry.candidates(name)
    assert refused.value.code == "CR-BACKEND-001"
    assert name in str(refused.value)


def test_an_unknown_backend_is_a_usage_error():
    """A misspelt backend names those that exist."""
    with pytest.raises(UsageError, match="embedded"):
        registry.candidates("embeded")


def test_other_systems_are_refused_with_a_way_out(monkeypatch: pytest.MonkeyPatch):
    """Not on Linux: exit 3 and a hint, for every backend that needs it."""
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(PolicyRefused) as refused:
        registry.candidates("auto")
    assert "Linux" in refused.value.hint
    assert registry.candidates("memory") == ("memory",)


async def test_an_environment_that_was_ended_runs_nothing_more():
    """What ran in it when it was ended, and what is asked of it later, fails with a code."""
    async with MemoryBackend(Script(programs={"server": forever})) as backend:
        spec = EnvironmentSpec(
            id="one", run_id="r", role="phase", policy=default_policy(Level.MEDIUM), variables={}
        )
        async with backend.environment(spec) as environment:

            async def wait() -> None:
                with pytest.raises(EnvironmentFailed) as failed:
                    await environment.exec(("server",), on_output=lambda *_: None)
                assert failed.value.code == "CR-ENV-001"

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                await anyio.wait_all_tasks_blocked()
                await environment.kill()
            with pytest.raises(EnvironmentFailed, match="has ended") as failed:
                await environment.exec(("server",), on_output=lambda *_: None)
            assert failed.value.code == "CR-ENV-001"
