"""Fan-out of events to subscribers, in one process and one event loop.

`publish` is a plain function: it cannot wait, so a cancelled producer never leaves an event with
half of the subscribers.
Subscriptions are bounded. One that overflows is marked lagged, and its own task raises, because a
silent gap in an audit log is worse than a stop.
Only a live display may keep the newest events instead, and it counts those that it drops.

Events are delivered in batches: at the event loop's next turn at the latest, and before any
subscriber reads its queue.
Redacting, filtering and queueing hundreds of events takes little more time than one.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import anyio
import anyio.lowlevel

from cleanroom.core.clock import Clock
from cleanroom.core.redaction import Redactor
from cleanroom.model.errors import CleanroomError, Exit
from cleanroom.model.events import Envelope, Event, Finished, Result, Started, Subject

# Events of one delivery: enough to share its fixed cost, and a few MiB of undelivered ones at most.
DELIVERY_EVENTS = 256
# Queued events at which pumps pause although an inbox has room for more: a burst then stays in the
# processor's cache, and memory stays flat.
PAUSE_EVENTS = 16384
# Queued events at which a batch is no longer held back: enough to share its fixed cost.
LINGER_EVENTS = 1024
# Between two checks of the subscribers' queues: far below what a person notices, far above the cost
# of a check.
POLL_SECONDS = 0.001


class SubscriberLagged(CleanroomError):
    """A subscriber was too slow, and events for it were lost."""

    exit = Exit.ENGINE


class SpanContext(NamedTuple):
    """The running task's place in the trace. Ids as in `Envelope`."""

    trace_id: str
    span_id: str
    parent: str


_current: ContextVar[SpanContext | None] = ContextVar("cleanroom_span", default=None)


class Span:
    """An open span.

    Its attributes become fields of its Finished event. Without a result the span passed, or ended
    as its exception says.
    """

    def __init__(self, context: SpanContext, sampled: bool = True) -> None:
        self.context = context
        self._sampled = sampled
        self.result: Result | None = None
        self.exit_code: int | None = None
        self.reason = ""
        self.code = ""
        self.attributes: dict[str, str | int | float | bool] = {}

    @property
    def traceparent(self) -> str:
        """The W3C `traceparent` for programs that this span starts.

        Their spans become children of this one, if the trace is sampled.
        """
        return f"00-{self.context.trace_id}-{self.context.span_id}-{self._sampled:02x}"


class Subscription:
    """One subscriber's inbox.

    Call `batch()` until it returns nothing: the bus has closed, and all events were read.
    """

    def __init__(
        self,
        name: str,
        kinds: tuple[type[Event], ...] | None,
        limit: int,
        keep_newest: bool,
        deliver: Callable[[], None],
    ) -> None:
        self.name = name
        self.kinds = None if kinds is None else frozenset(kinds)
        self.limit = limit
        self.dropped = 0
        self._keep_newest = keep_newest
        self._deliver = deliver  # the bus's: queues published events that are not delivered yet
        self._queue: deque[Envelope] = deque()
        self._lagged = False
        self._closed = False
        self._has_reader = False  # a task has called `batch`
        self._idle = False  # its task waits in `batch`: all events that it took are processed
        # while its task lingers for a larger batch: the kinds that do not end the wait
        self._deferrable: frozenset[type[Event]] | None = None
        self._draining = False  # the bus is about to close
        self._wake = anyio.Event()

    def _put(self, envelopes: list[Envelope]) -> None:
        """Queue the events of its kinds, as far as there is room."""
        wanted = (
            envelopes
            if self.kinds is None
            else [envelope for envelope in envelopes if type(envelope.event) in self.kinds]
        )
        if not wanted or self._lagged:
            return
        excess = len(self._queue) + len(wanted) - self.limit
        if excess > 0 and not self._keep_newest:
            # For good: an event after the gap must not look as if it followed the one before it.
            self._lagged = True
            wanted = wanted[:-excess]
        self._queue.extend(wanted)
        while len(self._queue) > self.limit:
            self._queue.popleft()
            self.dropped += 1
        if self._idle or (
            self._deferrable is not None and not self._may_defer(self._deferrable, wanted)
        ):
            self._wake_reader()

    def _may_defer(self, deferrable: frozenset[type[Event]], arrived: Iterable[Envelope]) -> bool:
        """Whether all queued events, `arrived` included, may be held back for a larger batch."""
        return (
            not self._draining
            and len(self._queue) < LINGER_EVENTS
            and all(type(envelope.event) in deferrable for envelope in arrived)
        )

    def _start_draining(self) -> None:
        self._draining = True
        if self._deferrable is not None:
            self._wake.set()

    def _wake_reader(self) -> None:
        self._idle = False
        self._wake.set()

    def _close(self) -> None:
        self._closed = self._draining = True
        self._wake_reader()

    @property
    def closed(self) -> bool:
        """Whether no more events come: what is queued can still be read."""
        return self._closed

    @property
    def waiting(self) -> int:
        """How many events are queued."""
        self._deliver()
        return len(self._queue)

    def take(self) -> list[Envelope]:
        """All queued events, oldest first, without waiting: for a reader without its own task.

        Raises:
            SubscriberLagged: events were lost to this subscription.
        """
        self._deliver()
        self._check_lag()
        taken = list(self._queue)
        self._queue.clear()
        return taken

    def _check_lag(self) -> None:
        if self._lagged:
            hint = "the disk or the machine is too slow for this much output; see which one it is"
            text = f"subscriber {self.name!r} fell more than {self.limit} events behind"
            raise SubscriberLagged("CR-BUS-001", text, hint=hint)

    @property
    def _busy(self) -> bool:
        """Whether its task has events to read, or is processing some."""
        return (
            self._has_reader
            and not self._keep_newest
            and not self._lagged
            and (bool(self._queue) or not self._idle)
        )

    async def batch(
        self, deferrable: frozenset[type[Event]] = frozenset(), linger_seconds: float = 0.0
    ) -> list[Envelope]:
        """All queued events, oldest first; waits until there is one.

        The batch is empty once the bus has closed.
        While only `deferrable` kinds are queued, it waits for others, at most `linger_seconds`:
        for a subscriber to which each batch costs much, and kinds that come all the time.

        Raises:
            SubscriberLagged: events were lost to this subscription.
                Those before the gap have been returned.
        """
        self._has_reader = True
        self._deliver()
        while not self._queue:
            self._check_lag()
            if self._closed:
                return []
            self._wake = anyio.Event()
            self._idle = True
            try:
                await self._wake.wait()
            finally:
                self._idle = False
            self._deliver()
        if linger_seconds and self._may_defer(deferrable, self._queue):
            await self._linger(deferrable, linger_seconds)
        taken = list(self._queue)
        self._queue.clear()
        return taken

    async def _linger(self, deferrable: frozenset[type[Event]], seconds: float) -> None:
        self._wake = anyio.Event()
        self._deferrable = deferrable
        try:
            with anyio.move_on_after(seconds):
                await self._wake.wait()
        finally:
            self._deferrable = None
        self._deliver()


class Bus:
    """Numbers events, stamps them with time and span, and queues them for the subscriptions of
    their kinds.

    With a redactor no subscriber gets an event before its secrets are replaced.
    """

    def __init__(
        self,
        run_id: str,
        clock: Clock,
        *,
        trace_id: str = "",
        parent_span: str = "",
        sampled: bool = True,
        redactor: Redactor | None = None,
    ) -> None:
        """`sampled` is the flag of the W3C `traceparent` that spans pass on: whether this trace is
        collected.
        """
        self.run_id = run_id
        self.clock = clock
        self.trace_id = trace_id or os.urandom(16).hex()
        self.sampled = sampled
        self._redactor = redactor
        self._wall_ns, self._monotonic_ns = clock.wall_ns, clock.monotonic_ns
        self._root_context = SpanContext(self.trace_id, "", parent_span)
        self._seq = 0
        self._subscriptions: list[Subscription] = []
        self._published: list[Envelope] = []  # not delivered yet
        self._closed = False

    def subscribe(
        self,
        name: str,
        kinds: tuple[type[Event], ...] | None = None,
        *,
        limit: int,
        keep_newest: bool = False,
    ) -> Subscription:
        """Open an inbox for these kinds (None: all). It gets the events published from now on."""
        self._deliver()  # earlier events are not for it
        subscription = Subscription(name, kinds, limit, keep_newest, self._deliver)
        self._subscriptions.append(subscription)
        return subscription

    @property
    def published(self) -> int:
        """How many events were published so far: the number of the last."""
        return self._seq

    def publish(self, event: Event, at: SpanContext | None = None) -> None:
        """Publish an event. `at` places it on another span than the running task's."""
        assert not self._closed, f"published after the bus closed: {event!r}"
        trace_id, span_id, parent = at or _current.get() or self._root_context
        if not self._published and any(
            s._idle or s._deferrable is not None for s in self._subscriptions
        ):
            # Subscribers that do not wait deliver by themselves, before they read.
            asyncio.get_running_loop().call_soon(self._deliver)
        self._seq += 1
        self._published.append(
            Envelope(
                self._seq,
                self.run_id,
                self._wall_ns(),
                self._monotonic_ns(),
                trace_id,
                span_id,
                parent,
                event,  # type: ignore[arg-type]
            )
        )
        if len(self._published) >= DELIVERY_EVENTS:
            self._deliver()

    def _deliver(self) -> None:
        """Queue the published events for all subscriptions, without their secrets."""
        if not self._published:
            return
        envelopes, self._published = self._published, []
        if self._redactor is not None:
            envelopes = self._redactor.envelopes(envelopes)
        for subscription in self._subscriptions:
            subscription._put(envelopes)

    def current_context(self) -> SpanContext:
        """The running task's place in the trace."""
        return _current.get() or self._root_context

    @contextmanager
    def span(
        self, subject: Subject, attributes: dict[str, str | int | float | bool] | None = None
    ) -> Iterator[Span]:
        """Publish Started, run the body as a span, publish Finished.

        An exception passes through and is named in Finished.
        """
        with self.detached_span(subject, attributes) as span:
            token = _current.set(span.context)
            try:
                yield span
            finally:
                _current.reset(token)

    @contextmanager
    def detached_span(
        self, subject: Subject, attributes: dict[str, str | int | float | bool] | None = None
    ) -> Iterator[Span]:
        """As `span`, but events and spans of the body are not inside of it.

        It is for something that goes on beside the body.
        """
        outer = self.current_context()
        span = Span(
            SpanContext(self.trace_id, os.urandom(8).hex(), outer.span_id or outer.parent),
            self.sampled,
        )
        began = self.clock.monotonic_ns()
        self.publish(Started(subject=subject, attributes=attributes or {}), span.context)
        try:
            yield span
        except BaseException as error:
            if span.result is None:
                span.result, span.reason, span.code = _outcome_of(error)
            raise
        finally:
            duration = (self.clock.monotonic_ns() - began) / 1e9
            self.publish(
                Finished(
                    subject=subject,
                    result=span.result or "passed",
                    duration_seconds=duration,
                    exit_code=span.exit_code,
                    reason=span.reason,
                    code=span.code,
                    attributes=span.attributes,
                ),
                span.context,
            )

    async def wait_room(self) -> None:
        """Wait while a subscription is more than half full, or more than PAUSE_EVENTS behind.

        Pumps of output and samples call it between batches.
        """
        await anyio.lowlevel.checkpoint()
        while any(  # noqa: ASYNC110
            s.waiting > min(s.limit // 2, PAUSE_EVENTS) and not s._lagged and not s._keep_newest
            for s in self._subscriptions
        ):
            await anyio.sleep(POLL_SECONDS)

    async def wait_processed(self, name: str) -> None:
        """Wait until the subscriber of that name has processed all events published before.

        Without such a subscriber it returns at once.
        It never returns if the subscriber's task has ended early: give it a time limit.
        """
        await anyio.lowlevel.checkpoint()  # lets a task that was started just now begin to read
        while self._busy(name):  # noqa: ASYNC110
            await anyio.sleep(POLL_SECONDS)

    async def drain(self) -> None:
        """Wait until every lossless subscriber has processed all events, also those that another
        subscriber published meanwhile. Then call `close` at once.

        An inbox that no task has begun to read is not waited for.
        It never returns if a subscriber's task has ended early: give it a time limit.
        """
        await anyio.lowlevel.checkpoint()  # lets tasks that were started just now begin to read
        for subscription in self._subscriptions:
            subscription._start_draining()
        while self._busy():  # noqa: ASYNC110
            await anyio.sleep(POLL_SECONDS)

    def _busy(self, name: str = "") -> bool:
        self._deliver()
        return any(s._busy for s in self._subscriptions if name in ("", s.name))

    def close(self) -> None:
        """End publishing. Subscribers read what is queued, and end."""
        self._deliver()
        self._closed = True
        for subscription in self._subscriptions:
            subscription._close()


def _outcome_of(error: BaseException) -> tuple[Result, str, str]:
    """Result, reason and code of the Finished event of a span that an exception ends."""
    while isinstance(error, BaseExceptionGroup):
        # of a task group: the others were cancelled because the first failed
        error = error.exceptions[0]
    if isinstance(error, asyncio.CancelledError):
        return "cancelled", "cancelled", ""
    if isinstance(error, TimeoutError):
        return "timeout", str(error), ""
    if isinstance(error, CleanroomError):
        return ("refused" if error.exit is Exit.REFUSED else "error"), str(error), error.code
    return "error", f"{type(error).__name__}: {error}", ""
