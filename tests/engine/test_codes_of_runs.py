"""Each code of a run is made to happen: on the memory backend in virtual time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from cleanroom.backends.base import Leftover
from cleanroom.backends.memory.script import broken
from cleanroom.model.capability import Canary, Missing, Sample
from cleanroom.model.policy import GIB, Level, default_policy
from cleanroom.services.base import Probe, Recipe
from cleanroom.testing import (
    Fault,
    Inside,
    MemoryBackend,
    Outcome,
    Program,
    Script,
    egress_attempt,
    forever,
    phase,
    plan,
    run_plan,
    succeed,
)

pytestmark = pytest.mark.looptime

FINE = Sample(
    cpu_seconds=1, memory_bytes=0, disk_bytes=0, network_bytes=0, processes=1, source="memory"
)
OVER = msgspec.structs.replace(FINE, memory_bytes=3 * GIB)
ENDING = msgspec.structs.replace(default_policy(Level.MEDIUM), reaction="end")
LOOSE = Canary(
    name="connect-out",
    dimension="network",
    rule="network.egress",
    expected="refused",
    found="connected",
    result="failed",
)
UNHELD = Missing(rule="network.names", why="no resolver", hint="")


async def attempt(inside: Inside) -> int:
    inside.attempt(egress_attempt("192.0.2.1", 443))
    return 0


async def attempt_and_stay(inside: Inside) -> int:
    await attempt(inside)
    return await forever(inside)


async def daemon(inside: Inside) -> int:
    inside.leave("ssh-agent")
    return 0


def script(**fields: object) -> MemoryBackend:
    return MemoryBackend(Script(**{"otherwise": succeed(), **fields}))


def of_program(program: Program) -> MemoryBackend:
    return script(programs={"a": program})


def codes(outcome: Outcome) -> set[str]:
    """Every code that the run said, in an event or in its result."""
    said = {getattr(envelope.event, "code", "") for envelope in outcome.events}
    return (said | {outcome.result.error.get("code", "")}) - {""}


RUNS = {
    "CR-ENV-002": (
        plan(phase("test", "a")),
        script(faults=(Fault(operation="exec", nth=1, error=broken()),)),
    ),
    "CR-PHASE-001": (plan(phase("test", "a")), of_program(succeed(exit_code=7))),
    "CR-PHASE-002": (plan(phase("test", "a", timeout_seconds=5)), of_program(forever)),
    "CR-PHASE-003": (plan(phase("test", "a", policy=ENDING)), of_program(attempt_and_stay)),
    "CR-PHASE-005": (plan(phase("test", "a")), of_program(attempt)),
    "CR-PHASE-006": (plan(phase("test", "a", budget_seconds=1)), of_program(succeed(seconds=3))),
    "CR-PHASE-007": (plan(phase("test", "a")), of_program(daemon)),
    "CR-PHASE-010": (
        plan(phase("test", "a", dependencies="run `cargo vendor`")),
        of_program(succeed(exit_code=101)),
    ),
    "CR-PHASE-020": (plan(phase("test", "bash", idle="bash")), script()),
    "CR-POLICY-005": (
        plan(phase("test", "a"), allow_degraded=("network.names",)),
        script(missing=(UNHELD,)),
    ),
    "CR-POLICY-010": (plan(phase("test", "a")), script(canaries=(LOOSE,))),
    "CR-SLO-001": (plan(phase("test", "a"), slo_seconds=1), of_program(succeed(seconds=3))),
    "CR-ENGINE-003": (
        plan(phase("test", "a")),
        script(left=(Leftover(kind="cgroup", name="left-behind"),)),
    ),
}


@pytest.mark.parametrize("code", RUNS)
async def test_what_happens_in_a_run_is_said_with_its_code(code: str):
    """The code is in an event of the run or in its error, and in none of a run to which nothing
    happened.
    """
    quiet = await run_plan(plan(phase("test", "a")), script())
    assert codes(quiet) == set()

    assert code in codes(await run_plan(*RUNS[code]))


async def serve(inside: Inside) -> int:
    inside.write(b"starting\n")
    return await forever(inside)


async def fall_over(inside: Inside) -> int:
    inside.write(b"fatal: out of luck\n")
    return 3


def answering(*answers: int) -> Program:
    """A probe that gives these exit statuses in turn, the last one from then on."""
    left = list(answers)

    async def ask(inside: Inside) -> int:
        return left.pop(0) if len(left) > 1 else left[0]

    return ask


RECIPE = Recipe(
    name="db",
    kind="generic",
    version="1",
    probe=Probe(kind="exec", argv=("ask",)),
    main=("serve",),
    port=7000,
    to="tcp:7000",
    start_timeout_seconds=3,
    restarts_max=1,
)
SERVICES = {
    "CR-SERVICE-020": {"serve": serve, "ask": answering(1)},
    "CR-SERVICE-021": {"serve": fall_over, "ask": answering(1)},
    "CR-SERVICE-023": {"serve": fall_over, "ask": answering(1)},
    "CR-SERVICE-024": {"serve": serve, "ask": answering(0, 0, 1)},
    "CR-SERVICE-025": {"serve": succeed(seconds=5, exit_code=3), "ask": answering(0)},
}


@pytest.mark.parametrize("code", SERVICES)
async def test_what_happens_to_a_service_is_said_with_its_code(code: str):
    """In the end of one of its lives, or in the error of the run that needed it."""
    used = script(programs={**SERVICES[code], "a": succeed(seconds=20)})
    outcome = await run_plan(plan(phase("test", "a", services=("db",))), used, recipes=[RECIPE])

    assert code in codes(outcome)


async def test_a_service_that_a_limit_ends_is_said_with_its_code():
    """What was found in it is the reason of the life that ended so."""
    used = script(programs={"serve": serve, "ask": answering(0), "a": forever}, samples=(OVER,))
    outcome = await run_plan(plan(phase("test", "a", services=("db",))), used, recipes=[RECIPE])

    assert "CR-SERVICE-022" in codes(outcome)


async def fill(inside: Inside) -> int:
    """Prepare a template."""
    Path(inside.environment.spec.mounts[0].source, "file").write_bytes(b"data")
    return 0


def prepared(**programs: Program) -> tuple[MemoryBackend, Recipe]:
    """A service with a template, and these programs beside those it needs."""
    recipe = msgspec.structs.replace(RECIPE, template_key="k", prepare=(("fill",),))
    usual = {"fill": fill, "serve": serve, "ask": answering(0), "a": succeed()}
    return script(programs={**usual, **programs}), recipe


# Has a lease of a file: whoever opens it waits until this has written to it.
WRITES_WHEN_READ = """
import fcntl, os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("ready", flush=True)
signal.sigwait({signal.SIGIO})
os.write(file, b"more")
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="leases of files are Linux's")
async def test_prepared_data_that_does_not_last_is_said_with_its_code():
    """Somebody still writes to it while it is kept: what is then looked up is not what was kept."""
    writers = []

    async def fill_and_go_on(inside: Inside) -> int:
        file = Path(inside.environment.spec.mounts[0].source, "file")
        words = (sys.executable, "-c", WRITES_WHEN_READ, str(file))
        writers.append(subprocess.Popen(words, stdout=subprocess.PIPE))
        assert writers[0].stdout.readline() == b"ready\n"
        return 0

    used, recipe = prepared(fill=fill_and_go_on)
    try:
        outcome = await run_plan(plan(phase("test", "a", services=("db",))), used, recipes=[recipe])
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    assert "CR-SERVICE-027" in codes(outcome)


async def test_prepared_data_that_was_damaged_is_made_anew_and_said():
    """A server that does not start from it finds it as it was in its next life."""
    found = []

    async def serve_what_is_whole(inside: Inside) -> int:
        file = Path(inside.environment.spec.mounts[0].above, "file")
        found.append(file.read_bytes())
        if len(found) == 1:
            file.write_bytes(b"atad")
            return 3
        return await serve(inside)

    async def ask(inside: Inside) -> int:
        return 0 if len(found) > 1 else 1

    used, recipe = prepared(serve=serve_what_is_whole, ask=ask)
    outcome = await run_plan(plan(phase("test", "a", services=("db",))), used, recipes=[recipe])
    assert "CR-SERVICE-028" in codes(outcome)
    assert (outcome.result.outcome, found) == ("passed", [b"data", b"data"])
