"""How many events per second does the bus carry to five subscribers with the audit log on disk?

Workload: one task publishes a fixed mix of metrics, output and spans' events (seed 42) in bursts,
and waits for room between them, as the pumps do.
Five subscribers see all that concerns them: audit (hash chain,
one fdatasync and one new head per batch), an event log, monitor, recovery, and a counter.
The clock stops when the last of them has ended: everything is on disk, nothing lost.
Unit: events per second, the best of three rounds.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import anyio

from cleanroom.core.beneath import Folder
from cleanroom.core.bus import Bus, Subscription
from cleanroom.core.clock import SystemClock
from cleanroom.core.files import LineWriter, hold
from cleanroom.core.redaction import Redactor
from cleanroom.evidence.audit import log as audit_log
from cleanroom.model.events import (
    AnyEvent,
    Finished,
    Metric,
    Output,
    Started,
    Subject,
    encode_lines,
)
from cleanroom.subscribers import audit, monitor, recovery

TARGET = 300_000
BURST = 2_000


def workload(count: int) -> list[AnyEvent]:
    """The mix: of ten events six are lines of output, two metrics, and one span opens and ends."""
    rng = random.Random(42)
    phase, environment = Subject("phase", "test"), Subject("environment", "test-1")
    made: list[AnyEvent] = []
    for number in range(count):
        match number % 10:
            case 0:
                made.append(
                    Started(
                        subject=Subject("command", f"test#{number % 7}"),
                        attributes={"command": "pytest -q"},
                    )
                )
            case 9:
                made.append(
                    Finished(
                        subject=Subject("command", f"test#{number % 7}"),
                        result="passed",
                        duration_seconds=rng.random(),
                    )
                )
            case 4 | 8:
                metric = Metric(
                    subject=environment,
                    environment="test-1",
                    cpu_seconds=number / 1000,
                    memory_bytes=rng.randrange(1 << 30),
                    disk_bytes=number,
                    network_bytes=0,
                    processes=rng.randrange(64),
                    source="cgroup",
                )
                made.append(metric)
            case _:
                text = f"tests/test_orders.py::test_{rng.randrange(10_000)} PASSED\n"
                made.append(Output(subject=phase, stream="stdout", text=text, offset=number * 40))
    return made


async def measure(bursts: Iterable[Sequence[AnyEvent]], folder: Path) -> tuple[float, int]:
    """Seconds from the first event until everything is on disk,
    and how many events everybody saw.
    """
    clock = SystemClock()
    bus = Bus("20260101-000000-bench", clock, redactor=Redactor(["correct horse battery staple"]))
    genesis = audit_log.Genesis(
        plan_sha256="0" * 64, policy_sha256="0" * 64, engine_version="bench"
    )
    log = audit_log.AuditLog(hold(folder / "audit"), bus.run_id, genesis, clock)
    log.open()
    inboxes = [
        bus.subscribe("audit", limit=audit.LIMIT),
        bus.subscribe("events", limit=200_000),
        bus.subscribe("monitor", monitor.READS, limit=monitor.LIMIT),
        bus.subscribe("recovery", recovery.READS, limit=recovery.LIMIT),
        bus.subscribe("counter", limit=200_000),
    ]
    seen: list[int] = []
    published = 0
    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(audit.run, inboxes[0], log)
        tasks.start_soon(write_events, inboxes[1], hold(folder))
        tasks.start_soon(monitor.run, inboxes[2], bus)
        tasks.start_soon(recover, inboxes[3])
        tasks.start_soon(count_events, inboxes[4], seen)
        for burst in bursts:
            for event in burst:
                bus.publish(event)
            published += len(burst)
            await bus.wait_room()
        await bus.drain()
        bus.close()
    seconds = time.perf_counter() - began
    assert sum(seen) == published, "an event was lost"
    return seconds, published


async def write_events(inbox: Subscription, folder: Folder) -> None:
    async with LineWriter(folder, "events.jsonl") as writer:
        while batch := await inbox.batch():
            await writer.write(encode_lines(batch))


async def recover(inbox: Subscription) -> None:
    await recovery.run(inbox, lambda command: None, seed=42)


async def count_events(inbox: Subscription, seen: list[int]) -> None:
    while batch := await inbox.batch():
        seen.append(len(batch))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--small", action="store_true", help="the smallest size, to see that it works"
    )
    arguments = parser.parse_args()
    events = workload(2_000 if arguments.small else 300_000)
    bursts = [events[start : start + BURST] for start in range(0, len(events), BURST)]
    # the prepared events are the workload, not garbage to look through:
    # a run does not hold them all
    gc.freeze()
    best, records, valid = float("inf"), 0, True
    for _ in range(1 if arguments.small else 3):
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            seconds, _ = anyio.run(measure, bursts, Path(folder))
            found = audit_log.verify(hold(Path(folder, "audit")))
            best, records, valid = min(best, seconds), found.records, valid and found.valid
    rate = round(len(events) / best)
    checksum = f"{records} records, {'valid' if valid else 'NOT VALID'}"
    if arguments.json:
        print(
            json.dumps(
                {
                    "name": "bus",
                    "value": rate,
                    "unit": "events/s",
                    "target": TARGET,
                    "events": len(events),
                    "checksum": checksum,
                }
            )
        )
    else:
        print(
            f"bus: {rate:,} events/s to five subscribers, audit on disk (target {TARGET:,}; "
            f"{len(events):,} events; {checksum})"
        )
    sys.exit(0 if valid else 1)


if __name__ == "__main__":
    main()
