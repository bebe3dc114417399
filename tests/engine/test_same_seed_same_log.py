"""A whole run is a function of its plan, its script and its seed."""

from __future__ import annotations

import re
from random import Random

import msgspec
import pytest

from cleanroom.model.errors import EnvironmentFailed
from cleanroom.model.events import Envelope
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

SEEDS = 40
TIMES = re.compile(
    r'"(?:time_unix_ns|monotonic_ns|duration_seconds|first_unix_ns|last_unix_ns)":[-\d.e]+,?'
)
FOLDER = re.compile(r"/[^\"]*/cleanroom-test-\w+")


def program(random: Random) -> Program:
    """One that ends well, badly, late or never, and says or tries something on the way."""
    seconds = random.choice((0.0, 0.1, 1.0, 90.0))
    match random.randrange(5):
        case 0:
            return succeed(exit_code=random.choice((1, 7, 137)), seconds=seconds)
        case 1:
            return forever
        case 2:
            return _trying(random.randrange(1, 4), seconds)
        case _:
            return succeed(
                b"said\n" * random.randrange(200),
                seconds=seconds,
                files={f"made-{random.randrange(3)}": b"x"},
            )


def _trying(times: int, seconds: float) -> Program:
    async def run(inside: Inside) -> int:
        for number in range(times):
            inside.attempt(egress_attempt(f"192.0.2.{number}", 443))
        return await succeed(b"tried\n", seconds=seconds)(inside)

    return run


async def story(seed: int) -> Outcome:
    """A plan, a script and faults made of the seed, carried out."""
    random = Random(seed)
    programs = {f"p{number}": program(random) for number in range(6)}
    names = [f"phase-{number}" for number in range(random.randrange(1, 6))]
    phases = [
        phase(
            name,
            *random.choices(list(programs), k=random.randrange(3)),
            timeout_seconds=random.choice((1.0, 60.0, 600.0)),
        )
        for name in names
    ]
    faults = (
        [
            Fault(
                nth=random.randrange(1, 30),
                error=EnvironmentFailed("CR-ENV-002", "as the script says"),
            )
        ]
        if random.randrange(3) == 0
        else []
    )
    script = Script(
        programs=programs, faults=tuple(faults), delays={"environment": random.choice((0.0, 0.5))}
    )
    return await run_plan(plan(*phases, seed=seed), MemoryBackend(script))


def told(outcome: Outcome) -> list[str]:
    """The log with ids numbered in the order of their appearance,
    without times and temporary folders.
    """
    known: dict[str, str] = {"": ""}

    def plain(envelope: Envelope) -> str:
        ids = {
            name: known.setdefault(getattr(envelope, name), f"id-{len(known)}")
            for name in ("trace_id", "span_id", "parent")
        }
        text = msgspec.json.encode(msgspec.structs.replace(envelope, **ids)).decode()
        return FOLDER.sub("/FOLDER", TIMES.sub("", text))

    return [plain(envelope) for envelope in outcome.events]


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_the_same_seed_gives_the_same_log(seed: int):
    """Two runs of one plan, script and seed publish the same events in the same order,
    times aside, and come to the same result.
    """
    first, second = await story(seed), await story(seed)
    assert told(first) == told(second)
    assert (first.result.outcome, first.result.exit_code) == (
        second.result.outcome,
        second.result.exit_code,
    )


async def test_the_stories_are_of_every_kind():
    """Among them are runs that pass, fail, time out, and that the backend let down."""
    outcomes = {(await story(seed)).result.outcome for seed in range(SEEDS)}
    assert {"passed", "failed", "timeout", "error"} <= outcomes
