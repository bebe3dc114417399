"""Services on the memory backend: concurrency, readiness, restarts, reverse stop;
in virtual time.
"""

from __future__ import annotations

import anyio
import msgspec
import pytest

from cleanroom.cli.views.plain import PlainLines
from cleanroom.evidence.reports.text import seconds
from cleanroom.evidence.tracing.metrics import Metrics
from cleanroom.model.capability import Sample
from cleanroom.model.errors import EnvironmentFailed
from cleanroom.model.events import Finished, Recovery, Started
from cleanroom.model.policy import GIB
from cleanroom.services.base import Probe, Recipe
from cleanroom.testing import (
    Fault,
    Inside,
    MemoryBackend,
    Outcome,
    Script,
    forever,
    phase,
    plan,
    run_plan,
    succeed,
)

pytestmark = pytest.mark.looptime


def service(name: str, **fields) -> Recipe:
    given = {
        "name": name,
        "kind": "generic",
        "version": "1",
        "probe": Probe(kind="exec", argv=(f"ask-{name}",)),
        "main": (f"serve-{name}",),
        "port": 7000,
        "to": "tcp:7000",
        "phase_variables": {f"{name.upper()}_URL": f"tcp://127.0.0.1/{name}"},
    }
    return Recipe(**{**given, **fields})


class Server:
    """A scripted server: its nth life dies after `lives[n]` seconds (None:
    never), it answers after `ready_seconds`.
    """

    def __init__(self, name: str, *lives: float | None, ready_seconds: float = 0.1) -> None:
        self.name = name
        self.lives = lives or (None,)
        self.ready_seconds = ready_seconds
        self.count = 0
        self.began = 0.0
        self.running = False

    async def serve(self, inside: Inside) -> int:
        length = self.lives[min(self.count, len(self.lives) - 1)]
        self.count, self.began, self.running = self.count + 1, anyio.current_time(), True
        inside.write(b"starting\n")
        try:
            if length is None:
                await forever(inside)
            await anyio.sleep(length or 0)
            inside.write(b"fatal: out of luck\n")
            return 3
        finally:
            self.running = False

    async def ask(self, inside: Inside) -> int:
        return 0 if self.running and anyio.current_time() - self.began >= self.ready_seconds else 1

    @property
    def programs(self):
        return {f"serve-{self.name}": self.serve, f"ask-{self.name}": self.ask}


def backend(*servers: Server, **programs) -> MemoryBackend:
    scripted = {name: program for server in servers for name, program in server.programs.items()}
    return MemoryBackend(Script(programs={**scripted, **programs}, otherwise=succeed()))


def order(outcome: Outcome, kind: type, subject: str) -> list[str]:
    return [
        e.event.subject.name
        for e in outcome.events
        if isinstance(e.event, kind) and e.event.subject.kind == subject
    ]


async def test_services_start_at_once_and_stop_in_reverse():
    """All services start before any is ready, and the last started stops first."""
    outcome = await run_plan(
        plan(phase("test", "a", services=("db", "cache"))),
        backend(Server("db"), Server("cache")),
        recipes=[service("db"), service("cache")],
    )
    assert outcome.result.exit_code == 0, outcome.result.error
    assert order(outcome, Started, "service") == ["db", "cache"]
    assert order(outcome, Finished, "service") == ["cache", "db"]
    kinds = [
        (type(e.event).__name__, e.event.subject.kind, e.event.subject.name) for e in outcome.events
    ]
    assert kinds.index(("Started", "service", "cache")) < kinds.index(
        ("Finished", "readiness", "db")
    )
    assert [s.restarts for s in outcome.result.services] == [0, 0]
    assert all(0.1 <= s.ready_seconds < 0.2 for s in outcome.result.services)


async def test_a_service_starts_after_what_it_waits_for():
    """The phase that builds it has passed, and the one that it depends on is ready."""
    outcome = await run_plan(
        plan(phase("build", "a"), phase("test", "a", services=("api", "db"))),
        backend(Server("db"), Server("api")),
        recipes=[service("api", after="build", depends_on=("db",)), service("db")],
    )
    assert outcome.result.exit_code == 0, outcome.result.error
    kinds = [
        (type(e.event).__name__, e.event.subject.kind, e.event.subject.name) for e in outcome.events
    ]
    started = kinds.index(("Started", "service", "api"))
    assert started > kinds.index(("Finished", "readiness", "db"))
    assert started > kinds.index(("Finished", "phase", "build"))


async def test_ready_in_is_one_number():
    """From the service's start, with all that had to be made before it could answer:
    in the events, the line and the result.
    """
    script = Script(
        programs=Server("db").programs, otherwise=succeed(), delays={"environment": 1.5}
    )
    outcome = await run_plan(
        plan(phase("test", "a", services=("db",))), MemoryBackend(script), recipes=[service("db")]
    )
    plain = PlainLines()
    (row,) = outcome.result.services
    assert 1.6 <= row.ready_seconds < 2
    assert row.ready_at_seconds - row.started_seconds == pytest.approx(row.ready_seconds)
    lines = [line.text for envelope in outcome.events for line in plain.lines(envelope)]
    assert f"service db ready in {seconds(row.ready_seconds)}" in lines
    counted = Metrics()
    for envelope in outcome.events:
        counted.add(envelope)
    (point,) = [
        point for point in counted.points() if point.name == "cleanroom.service.ready.duration"
    ]
    assert point.value == row.ready_seconds


async def test_a_phase_waits_only_for_its_own_services():
    """A phase that names no service is through before a slow one is ready;
    one that names it waits and gets its variables.
    """
    seen = {}

    async def look(inside: Inside) -> int:
        seen.update(inside.variables)
        return 0

    slow = Server("db", ready_seconds=20.0)
    run = plan(phase("init", "a"), phase("test", "look", services=("db",)), slo_seconds=60)
    outcome = await run_plan(run, backend(slow, look=look), recipes=[service("db")])
    init, test = outcome.result.phases
    assert init.duration_seconds < 1
    assert test.duration_seconds > 19
    assert seen["DB_URL"] == "tcp://127.0.0.1/db"


async def test_a_service_that_dies_is_restarted():
    """A death during the run is a restart with a delay, and the phase after it finds the service
    ready.
    """
    run = plan(phase("one", "wait", services=("db",)), phase("two", "a", services=("db",)))
    outcome = await run_plan(
        run, backend(Server("db", 2.0, None), wait=succeed(seconds=5)), recipes=[service("db")]
    )
    assert outcome.result.exit_code == 0, outcome.result.error
    (row,) = outcome.result.services
    assert row.restarts == 1
    (recovery,) = [e.event for e in outcome.events if isinstance(e.event, Recovery)]
    assert (recovery.action, recovery.attempt) == ("restarted", 1)
    assert recovery.delay_seconds > 0


async def test_why_a_service_failed_is_said_also_where_leaving_it_failed():
    """That its environment had to be killed hides nothing:
    the cause of its restart is its own end.
    """
    lost = Fault(
        operation="leave",
        nth=1,
        error=EnvironmentFailed("CR-SANDBOX-006", "it did not end by itself"),
    )
    script = Script(
        programs={**Server("db", 2.0, None).programs, "wait": succeed(seconds=5)}, faults=(lost,)
    )
    run = plan(phase("test", "wait", services=("db",)))
    outcome = await run_plan(run, MemoryBackend(script), recipes=[service("db")])
    (recovery,) = [e.event for e in outcome.events if isinstance(e.event, Recovery)]
    assert recovery.cause == "service 'db' ended with exit status 3"
    assert outcome.result.exit_code == 0


async def test_restarts_are_bounded_and_then_given_up():
    """A service that always dies is started 1 + restarts_max times;
    the phase that needs it is an error, exit 5, with the service's words.
    """
    server = Server("db", 0.01, ready_seconds=99)
    outcome = await run_plan(
        plan(phase("test", "a", services=("db",))),
        backend(server),
        recipes=[service("db", restarts_max=2)],
    )
    assert server.count == 3
    assert (outcome.result.outcome, outcome.result.exit_code) == ("error", 5)
    assert outcome.result.error["code"] == "CR-SERVICE-021"
    assert "out of luck" in outcome.result.error["message"]
    assert [e.event.action for e in outcome.events if isinstance(e.event, Recovery)] == [
        "restarted",
        "restarted",
        "gave_up",
    ]


async def test_a_service_over_a_sampled_limit_is_held_against_the_run():
    """Killed once for its memory and ready again: every phase passes and the run does not,
    and says why.
    """
    over = Sample(
        cpu_seconds=1,
        memory_bytes=3 * GIB,
        disk_bytes=0,
        network_bytes=0,
        processes=1,
        source="memory",
    )
    fine = msgspec.structs.replace(over, memory_bytes=0)
    server = Server("db", None)
    script = Script(programs={**server.programs, "wait": succeed(seconds=5)}, samples=(over, fine))
    run = plan(phase("test", "wait", services=("db",)))
    outcome = await run_plan(run, MemoryBackend(script), recipes=[service("db")])
    assert [phase.result for phase in outcome.result.phases] == ["passed"]
    assert outcome.result.services[0].restarts == 1
    assert (outcome.result.outcome, outcome.result.exit_code) == ("failed", 1)
    assert outcome.result.reason == "1 violation by services"
    assert [(row.phase, row.service) for row in outcome.result.violations] == [("", "db")]


async def test_a_service_that_never_answers_is_given_its_time():
    """Not ready within start_timeout_seconds is a failed start that says how often it was asked."""
    server = Server("db", ready_seconds=999)
    recipe = service("db", start_timeout_seconds=3, restarts_max=0)
    outcome = await run_plan(
        plan(phase("test", "a", services=("db",))), backend(server), recipes=[recipe]
    )
    assert outcome.result.exit_code == 5
    assert "not ready after 3 s" in outcome.result.error["message"]


async def test_a_service_that_stops_answering_is_restarted():
    """A hung server, alive but silent, is found by its health probe."""
    server = Server("db")
    muted = False

    async def ask(inside: Inside) -> int:
        return 1 if muted and server.count == 1 else await server.ask(inside)

    async def mute(inside: Inside) -> int:
        nonlocal muted
        muted = True
        await anyio.sleep(10)
        return 0

    used = MemoryBackend(Script(programs={**server.programs, "ask-db": ask, "mute": mute}))
    outcome = await run_plan(
        plan(phase("test", "mute", services=("db",))), used, recipes=[service("db")]
    )
    assert outcome.result.services[0].restarts == 1
    assert any("stopped answering" in text for text in outcome.result.recoveries)


async def test_a_service_is_ready_only_when_its_first_probe_was_answered():
    """Where the first answer also makes the service this run's own,
    an answer to the later probe is not enough to be ready.
    """
    outcome = await run_plan(
        plan(phase("test", "a", services=("db",))),
        backend(Server("db"), **{"set password": succeed(exit_code=1)}),
        recipes=[
            service(
                "db",
                first_probe=Probe(kind="exec", argv=("set", "password")),
                start_timeout_seconds=1,
                restarts_max=0,
            )
        ],
    )
    assert outcome.result.exit_code == 5
    assert "not ready after 1 s" in outcome.result.error["message"]


async def test_without_a_script_a_service_is_not_claimed_to_be_ready():
    """On a backend that runs nothing, phases do not wait for ever and nothing is verified."""
    outcome = await run_plan(
        plan(phase("test", "a", services=("db",))), MemoryBackend(), recipes=[service("db")]
    )
    assert outcome.result.exit_code == 4
    assert outcome.result.services[0].ready_seconds is None


async def test_a_failing_phase_still_stops_every_service():
    """Failure unwinds as success does."""
    outcome = await run_plan(
        plan(phase("test", "bad", services=("db", "cache"))),
        backend(Server("db"), Server("cache"), bad=succeed(exit_code=1)),
        recipes=[service("db"), service("cache")],
    )
    assert order(outcome, Finished, "service") == ["cache", "db"]
    assert outcome.result.exit_code == 1
    assert outcome.result.ledger.left == ()
