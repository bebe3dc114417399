"""The bus: order, filters, lag, spans, the end."""

from __future__ import annotations

import anyio
import pytest

from cleanroom.core.bus import (
    DELIVERY_EVENTS,
    LINGER_EVENTS,
    PAUSE_EVENTS,
    Bus,
    SubscriberLagged,
    Subscription,
)
from cleanroom.core.clock import LoopClock, SystemClock
from cleanroom.core.redaction import Redactor
from cleanroom.model.errors import PolicyRefused
from cleanroom.model.events import Envelope, Finished, Note, Started, Subject

RUN = Subject("run", "shop")


def note(text: str) -> Note:
    return Note(subject=RUN, level="info", text=text)


def made() -> Bus:
    return Bus("run-1", SystemClock())


async def everything(inbox: Subscription) -> list[Envelope]:
    seen: list[Envelope] = []
    while batch := await inbox.batch():
        seen += batch
    return seen


async def test_every_subscriber_sees_every_event_in_order():
    """Two subscribers get the same envelopes, numbered from 1 without gaps,
    also where they are more than are delivered together.
    """
    bus = made()
    inboxes = [bus.subscribe(name, limit=1000) for name in ("one", "two")]
    for number in range(DELIVERY_EVENTS + 50):
        bus.publish(note(str(number)))
    bus.close()
    one, two = [await everything(inbox) for inbox in inboxes]

    assert one == two
    assert [(envelope.seq, envelope.event) for envelope in one] == [
        (number + 1, note(str(number))) for number in range(DELIVERY_EVENTS + 50)
    ]


async def test_a_subscriber_gets_only_the_kinds_it_wants():
    """A subscription with kinds sees these alone, also where it was opened after such events had
    been published.
    """
    bus = made()
    bus.publish(note("before"))
    inbox = bus.subscribe("notes", (Note,), limit=10)
    bus.publish(note("after"))
    bus.publish(Started(subject=RUN))
    bus.close()

    assert [envelope.event for envelope in await everything(inbox)] == [note("after")]


async def test_a_subscriber_that_falls_behind_sees_all_before_the_gap_and_then_an_error():
    """What came before the gap is handed out, nothing after it,
    and then the subscriber's own task raises.
    """
    bus = made()
    inbox = bus.subscribe("slow", limit=3)
    for number in range(4):
        bus.publish(note(str(number)))

    first = await inbox.batch()
    bus.publish(note("after the gap"))
    with pytest.raises(SubscriberLagged, match="'slow' fell more than 3 events behind") as caught:
        await inbox.batch()
    assert caught.value.code == "CR-BUS-001"
    assert [envelope.seq for envelope in first] == [1, 2, 3]


async def test_a_display_keeps_the_newest_and_counts_the_rest():
    """With keep_newest the oldest are dropped and counted, and no error is raised."""
    bus = made()
    inbox = bus.subscribe("display", limit=3, keep_newest=True)
    for number in range(10):
        bus.publish(note(str(number)))
    bus.close()

    assert [envelope.seq for envelope in await everything(inbox)] == [8, 9, 10]
    assert inbox.dropped == 7


async def test_one_slow_subscriber_costs_the_others_nothing():
    """Lag of one subscriber loses no event of another."""
    bus = made()
    bus.subscribe("slow", limit=1)
    inbox = bus.subscribe("fast", limit=100)
    for number in range(50):
        bus.publish(note(str(number)))
    bus.close()

    assert len(await everything(inbox)) == 50


async def test_a_cancelled_subscriber_can_come_back():
    """Cancelling a wait for a batch loses no event."""
    bus = made()
    inbox = bus.subscribe("one", limit=10)
    with anyio.move_on_after(0):
        await inbox.batch()
    bus.publish(note("later"))

    assert [envelope.event for envelope in await inbox.batch()] == [note("later")]


async def test_a_waiting_subscriber_is_woken_by_an_event_and_by_the_end():
    """A task that waits gets the event at once, and an empty batch when the bus closes."""
    bus = made()
    inbox = bus.subscribe("one", limit=10)
    seen: list[int] = []

    async def read() -> None:
        while batch := await inbox.batch():
            seen.append(len(batch))
        seen.append(0)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        bus.publish(note("x"))
        await anyio.wait_all_tasks_blocked()
        bus.close()

    assert seen == [1, 0]


async def test_nothing_is_published_after_the_end():
    """Publishing on a closed bus is a broken invariant."""
    bus = made()
    bus.close()

    with pytest.raises(AssertionError, match="after the bus closed"):
        bus.publish(note("late"))


async def test_the_bus_is_drained_only_when_what_subscribers_published_was_seen_too():
    """An event that one subscriber publishes about another event reaches everyone before the bus
    closes.
    """
    bus = made()
    echo, reader = bus.subscribe("echo", (Started,), limit=10), bus.subscribe("reader", limit=10)
    seen: list[Envelope] = []

    async def answer() -> None:
        while batch := await echo.batch():
            await anyio.lowlevel.checkpoint()
            for _ in batch:
                bus.publish(note("answer"))

    async def read() -> None:
        seen.extend(await everything(reader))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        tasks.start_soon(read)
        bus.publish(Started(subject=RUN))
        await bus.drain()
        bus.close()

    assert [type(envelope.event) for envelope in seen] == [Started, Note]


@pytest.mark.looptime
async def test_a_pump_waits_while_a_subscriber_is_more_than_half_full():
    """`wait_room` returns at half full, and not before; a display never holds a pump up."""
    bus = Bus("run-1", LoopClock())
    inbox = bus.subscribe("one", limit=4)
    bus.subscribe("display", limit=1, keep_newest=True)
    for number in range(3):
        bus.publish(note(str(number)))
    with anyio.move_on_after(1) as held:
        await bus.wait_room()
    await inbox.batch()
    with anyio.fail_after(1):
        await bus.wait_room()

    assert held.cancelled_caught


@pytest.mark.looptime
async def test_a_pump_waits_for_a_subscriber_that_is_far_behind():
    """However large an inbox is, a pump pauses at ROOM events,
    so that a flood does not become memory.
    """
    bus = Bus("run-1", LoopClock())
    inbox = bus.subscribe("large", limit=1_000_000)
    for number in range(PAUSE_EVENTS + 1):
        bus.publish(note(str(number)))
    with anyio.move_on_after(1) as held:
        await bus.wait_room()
    await inbox.batch()

    assert held.cancelled_caught


async def test_a_span_opened_in_a_task_is_the_parent_in_its_child_tasks():
    """Events and spans of child tasks belong to the span that was open when they started;
    a sibling's do not.
    """
    bus = made()
    inbox = bus.subscribe("all", limit=100)

    async def child(name: str) -> None:
        with bus.span(Subject("command", name)):
            await anyio.lowlevel.checkpoint()
            bus.publish(note(name))

    async def phase(name: str) -> None:
        with bus.span(Subject("phase", name)):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(child, f"{name}#1")
                tasks.start_soon(child, f"{name}#2")

    with bus.span(RUN):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(phase, "test")
            tasks.start_soon(phase, "lint")
    bus.publish(note("outside"))
    bus.close()
    seen = await everything(inbox)
    spans = {
        envelope.event.subject.name: envelope
        for envelope in seen
        if isinstance(envelope.event, Started)
    }

    assert spans["test"].parent == spans["lint"].parent == spans["shop"].span_id
    for name in ("test#1", "test#2", "lint#1", "lint#2"):
        assert spans[name].parent == spans[name[:4]].span_id
    notes = {
        envelope.event.text: envelope.span_id
        for envelope in seen
        if isinstance(envelope.event, Note)
    }
    assert notes == {name: spans[name].span_id for name in notes if name != "outside"} | {
        "outside": ""
    }
    assert {envelope.trace_id for envelope in seen} == {bus.trace_id}


@pytest.mark.parametrize(
    ("error", "result", "code"),
    [
        (ValueError("broken"), "error", ""),
        (TimeoutError("too long"), "timeout", ""),
        (PolicyRefused("CR-X-001", "no"), "refused", "CR-X-001"),
        (
            ExceptionGroup("group", [ExceptionGroup("inner", [TimeoutError("too long")])]),
            "timeout",
            "",
        ),
    ],
)
async def test_a_span_that_an_exception_ends_says_so(error, result, code):
    """Finished names the exception, which passes through; that of a task group is named by the
    first of its parts.
    """
    bus = made()
    inbox = bus.subscribe("all", (Finished,), limit=10)
    with pytest.raises(type(error)), bus.span(RUN):
        raise error
    bus.close()
    finished = (await everything(inbox))[0].event

    assert isinstance(finished, Finished)
    assert (finished.result, finished.code) == (result, code)


@pytest.mark.looptime
async def test_a_cancelled_span_is_finished_as_cancelled():
    """Cancelling the body of a span still publishes its end, with its duration."""
    bus = Bus("run-1", LoopClock())
    inbox = bus.subscribe("all", (Finished,), limit=10)
    with anyio.move_on_after(3), bus.span(RUN):
        await anyio.sleep_forever()
    bus.close()
    finished = (await everything(inbox))[0].event

    assert isinstance(finished, Finished)
    assert (finished.result, finished.duration_seconds) == ("cancelled", 3.0)


async def test_no_subscriber_sees_a_secret():
    """The redactor comes before the first subscriber, and takes a value out of each event that has
    one and of no other.
    """
    bus = Bus("run-1", SystemClock(), redactor=Redactor(["hunter22"]))
    inbox = bus.subscribe("all", limit=10)
    for text in ("before", "password hunter22", "after"):
        bus.publish(note(text))
    bus.close()

    assert [envelope.event for envelope in await everything(inbox)] == [
        note("before"),
        note("password [redacted]"),
        note("after"),
    ]


NOTES = frozenset((Note,))
FOR_EVER = 3600.0


async def reads_with_linger(inbox: Subscription, seen: list[list[Envelope]]) -> None:
    while batch := await inbox.batch(NOTES, FOR_EVER):
        seen.append(batch)


async def test_deferrable_events_come_with_the_first_that_is_not():
    """Deferrable kinds are not handed out by themselves; another kind takes them with it at once,
    in order.
    """
    bus = made()
    seen: list[list[Envelope]] = []
    inbox = bus.subscribe("audit", limit=1000)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reads_with_linger, inbox, seen)
        for text in ("one", "two"):
            bus.publish(note(text))
            await anyio.wait_all_tasks_blocked()
        assert seen == []
        bus.publish(Started(subject=RUN))
        await anyio.wait_all_tasks_blocked()
        assert [envelope.event for envelope in seen[0]] == [
            note("one"),
            note("two"),
            Started(subject=RUN),
        ]
        bus.close()


async def test_a_batch_is_not_held_back_once_it_is_large_or_the_bus_drains():
    """A burst is handed out without another kind, and draining does not take as long as waiting
    would.
    """
    bus = made()
    seen: list[list[Envelope]] = []
    inbox = bus.subscribe("audit", limit=2 * LINGER_EVENTS)
    with anyio.fail_after(FOR_EVER / 60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reads_with_linger, inbox, seen)
            bus.publish(note("first"))
            await anyio.wait_all_tasks_blocked()
            for number in range(LINGER_EVENTS):
                bus.publish(note(str(number)))
            await anyio.wait_all_tasks_blocked()
            assert sum(map(len, seen)) == LINGER_EVENTS + 1
            bus.publish(note("last"))
            await bus.drain()
            assert sum(map(len, seen)) == LINGER_EVENTS + 2
            bus.publish(note("after"))
            await bus.drain()
            bus.close()
    assert sum(map(len, seen)) == LINGER_EVENTS + 3


async def test_what_waits_is_handed_out_when_its_time_is_over():
    """A deferrable event that stays alone is late by no more than it is said to be."""
    bus = made()
    inbox = bus.subscribe("audit", limit=10)
    bus.publish(note("alone"))
    with anyio.fail_after(30):
        assert [envelope.event for envelope in await inbox.batch(NOTES, 0.001)] == [note("alone")]


async def test_who_takes_now_and_then_gets_all_and_learns_of_a_gap():
    """`take` needs no task: it gives what waits, in order, and raises where something was lost."""
    bus = made()
    inbox = bus.subscribe("count", (Note,), limit=2)
    bus.publish(note("one"))
    bus.publish(note("two"))
    assert [envelope.event for envelope in inbox.take()] == [note("one"), note("two")]
    assert inbox.take() == []
    for number in range(3):
        bus.publish(note(str(number)))
    with pytest.raises(SubscriberLagged):
        inbox.take()


@pytest.mark.looptime
async def test_what_a_subscriber_concludes_is_there_once_it_has_dealt_with_it():
    """`wait_processed` returns after the named subscriber has published what it concluded from all
    before, and at once without one.
    """
    bus = made()
    inbox, found = (
        bus.subscribe("monitor", (Started,), limit=10),
        bus.subscribe("count", (Note,), limit=10),
    )

    async def conclude() -> None:
        while batch := await inbox.batch():
            await anyio.sleep(5)  # virtual
            for _ in batch:
                bus.publish(note("concluded"))

    async with anyio.create_task_group() as tasks:
        await bus.wait_processed("nobody")
        tasks.start_soon(conclude)
        for _ in range(3):
            bus.publish(Started(subject=RUN))
        await bus.wait_processed("monitor")
        assert len(found.take()) == 3
        bus.close()
