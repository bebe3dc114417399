"""Fan-out of facts to subscribers, in one process and one event loop.

`publish` is a plain function: it cannot wait, so a cancelled producer never leaves half the
subscribers told.
Subscriptions are bounded; one that overflows is marked lagged and its own task raises,
because a silent gap in an audit log is worse than a stop.
Only a live display may keep the newest instead, and it counts what it drops.

What is published at once is delivered together, at the loop's next turn at the latest and before
any subscriber looks: redacting, filtering and handing over hundreds of events takes little more
than doing it for one.
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

# events handed over together: what a delivery costs is shared by enough of them,
# and what waits for it is a few MiB at worst
DELIVERY = 256
# waiting events at which pumps pause although an inbox has room for more:
# a burst stays in the processor's cache, memory flat
ROOM = 16384
# waiting events at which nobody waits for company any more:
# what a batch costs is shared by enough of them
ENOUGH = 1024
# between looks at the subscribers' inboxes: far below what a person notices,
# far above what a look costs
PAUSE_SECONDS = 0.001


class SubscriberLagged(CleanroomError):
    """A subscriber did not keep up, so what it knows has a gap."""

    exit = Exit.ENGINE


class SpanContext(NamedTuple):
    """Where in the trace the running task is. Ids as in `Envelope`."""

    trace_id: str
    span_id: str
    parent: str


_current: ContextVar[SpanContext | None] = ContextVar("cleanroom_span", default=None)


class Span:
    """An open span.

    What is set here becomes its Finished event; untouched it is passed, or as its exception says.
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
        """The W3C header value for what this span starts: its spans become children of this one,
        where the trace is sampled.
        """
        return f"00-{self.context.trace_id}-{self.context.span_id}-{self._sampled:02x}"


class Subscription:
    """One subscriber's inbox.

    Take `batch()` until it comes back empty: the bus has closed and everything was seen.
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
        self._deliver = deliver  # the bus's: what was published and not handed over yet comes first
        self._queue: deque[Envelope] = deque()
        self._lagged = False
        self._closed = False
        self._attended = False  # somebody has begun to read
        self._idle = False  # its task waits in `batch`: all that was handed out has been dealt with
        # while its task waits for company: the kinds that do not end that
        self._patient: frozenset[type[Event]] | None = None
        self._hurried = False  # the bus is about to close
        self._wake = anyio.Event()

    def _put(self, envelopes: list[Envelope]) -> None:
        """Take those it wants, as far as there is room."""
        wanted = (
            envelopes
            if self.kinds is None
            else [envelope for envelope in envelopes if type(envelope.event) in self.kinds]
        )
        if not wanted or self._lagged:
            return
        excess = len(self._queue) + len(wanted) - self.limit
        if excess > 0 and not self._keep_newest:
            # for good: what came after the gap must not look as if it followed what came before
            self._lagged = True
            wanted = wanted[:-excess]
        self._queue.extend(wanted)
        while len(self._queue) > self.limit:
            self._queue.popleft()
            self.dropped += 1
        if self._idle or (self._patient is not None and not self._may_wait(self._patient, wanted)):
            self._rouse()

    def _may_wait(self, patient: frozenset[type[Event]], arrived: Iterable[Envelope]) -> bool:
        """Whether what waits, and `arrived` among it, may wait for company."""
        return (
            not self._hurried
            and len(self._queue) < ENOUGH
            and all(type(envelope.event) in patient for envelope in arrived)
        )

    def _hurry(self) -> None:
        self._hurried = True
        if self._patient is not None:
            self._wake.set()

    def _rouse(self) -> None:
        self._idle = False
        self._wake.set()

    def _close(self) -> None:
        self._closed = self._hurried = True
        self._rouse()

    @property
    def waiting(self) -> int:
        self._deliver()
        return len(self._queue)

    def take(self) -> list[Envelope]:
        """All that is there, oldest first, without waiting: for a reader without a task of its own.

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
        """Its task has something to see, or is dealing with it."""
        return (
            self._attended
            and not self._keep_newest
            and not self._lagged
            and (bool(self._queue) or not self._idle)
        )

    async def batch(
        self, patient: frozenset[type[Event]] = frozenset(), company_seconds: float = 0.0
    ) -> list[Envelope]:
        """All that is waiting, oldest first; waits for something.

        Empty means the bus has closed.

        Where nothing but `patient` kinds waits, more is waited for, at most `company_seconds`:
        for whom a batch is dear, and what comes all the time can wait.

        Raises:
            SubscriberLagged: events were lost to this subscription.
                What came before the gap has been handed out.
        """
        self._attended = True
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
        if company_seconds and self._may_wait(patient, self._queue):
            await self._wait_for_company(patient, company_seconds)
        taken = list(self._queue)
        self._queue.clear()
        return taken

    async def _wait_for_company(self, patient: frozenset[type[Event]], seconds: float) -> None:
        self._wake = anyio.Event()
        self._patient = patient
        try:
            with anyio.move_on_after(seconds):
                await self._wake.wait()
        finally:
            self._patient = None
        self._deliver()


class Bus:
    """Numbers facts, stamps them with time and span, and hands them to every subscription that
    wants them.

    With a redactor no event is seen by anyone before its secrets are out.
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
        """`sampled`: what those whom a span starts are told:
        whether anybody will look at this trace.
        """
        self.run_id = run_id
        self.clock = clock
        self.trace_id = trace_id or os.urandom(16).hex()
        self.sampled = sampled
        self._redactor = redactor
        self._wall_ns, self._monotonic_ns = clock.wall_ns, clock.monotonic_ns
        self._outside = SpanContext(self.trace_id, "", parent_span)
        self._seq = 0
        self._subscriptions: list[Subscription] = []
        self._published: list[Envelope] = []  # and not delivered yet
        self._closed = False

    def subscribe(
        self,
        name: str,
        kinds: tuple[type[Event], ...] | None = None,
        *,
        limit: int,
        keep_newest: bool = False,
    ) -> Subscription:
        """Open an inbox for these kinds (None: all).

        Everything published from now on arrives in it.
        """
        self._deliver()  # what was published before is not for it
        subscription = Subscription(name, kinds, limit, keep_newest, self._deliver)
        self._subscriptions.append(subscription)
        return subscription

    def publish(self, event: Event, at: SpanContext | None = None) -> None:
        """Tell every subscriber. `at` places the event on another span than the running task's."""
        assert not self._closed, f"published after the bus closed: {event!r}"
        trace_id, span_id, parent = at or _current.get() or self._outside
        if not self._published and any(
            s._idle or s._patient is not None for s in self._subscriptions
        ):
            # those who do not wait look by themselves
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
        if len(self._published) >= DELIVERY:
            self._deliver()

    def _deliver(self) -> None:
        """Hand over what was published, without its secrets."""
        if not self._published:
            return
        envelopes, self._published = self._published, []
        if self._redactor is not None:
            envelopes = self._redactor.envelopes(envelopes)
        for subscription in self._subscriptions:
            subscription._put(envelopes)

    def here(self) -> SpanContext:
        """The running task's place in the trace."""
        return _current.get() or self._outside

    @contextmanager
    def span(
        self, subject: Subject, attributes: dict[str, str | int | float | bool] | None = None
    ) -> Iterator[Span]:
        """Publish Started, run the body as a span, publish Finished.

        An exception passes through and is named in Finished.
        """
        with self.aside(subject, attributes) as span:
            token = _current.set(span.context)
            try:
                yield span
            finally:
                _current.reset(token)

    @contextmanager
    def aside(
        self, subject: Subject, attributes: dict[str, str | int | float | bool] | None = None
    ) -> Iterator[Span]:
        """The same for what goes on beside the body and may end before it:
        nothing in the body is inside of it.
        """
        outer = self.here()
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
                span.result, span.reason, span.code = _explained(error)
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
        """Let subscribers run while one of them is more than half full or far behind.

        Pumps call it between batches.
        """
        await anyio.lowlevel.checkpoint()
        while any(  # noqa: ASYNC110
            s.waiting > min(s.limit // 2, ROOM) and not s._lagged and not s._keep_newest
            for s in self._subscriptions
        ):
            await anyio.sleep(PAUSE_SECONDS)

    async def wait_dealt(self, name: str) -> None:
        """Wait until the subscriber of that name has dealt with all that was published before.

        Where there is none that is now.
        Waits for good where its task has ended early: bound it.
        """
        await anyio.lowlevel.checkpoint()  # a task that was started just now begins to read
        while self._busy(name):  # noqa: ASYNC110
            await anyio.sleep(PAUSE_SECONDS)

    async def drain(self) -> None:
        """Wait until every lossless subscriber has dealt with everything,
        also with what another published meanwhile.

        Then `close` at once.

        An inbox that nobody has begun to read is not waited for.
        Waits for good where a subscriber's task has ended early: bound it.
        """
        await anyio.lowlevel.checkpoint()  # tasks that were started just now begin to read
        for subscription in self._subscriptions:
            subscription._hurry()
        while self._busy():  # noqa: ASYNC110
            await anyio.sleep(PAUSE_SECONDS)

    def _busy(self, name: str = "") -> bool:
        self._deliver()
        return any(s._busy for s in self._subscriptions if name in ("", s.name))

    def close(self) -> None:
        """Nothing more will be published. Subscribers drain what they have and end."""
        self._deliver()
        self._closed = True
        for subscription in self._subscriptions:
            subscription._close()


def _explained(error: BaseException) -> tuple[Result, str, str]:
    """How an exception that ends a span reads in its Finished event."""
    while isinstance(error, BaseExceptionGroup):
        # of a task group: the first to fail is why the others were cancelled
        error = error.exceptions[0]
    if isinstance(error, asyncio.CancelledError):
        return "cancelled", "cancelled", ""
    if isinstance(error, TimeoutError):
        return "timeout", str(error), ""
    if isinstance(error, CleanroomError):
        return ("refused" if error.exit is Exit.REFUSED else "error"), str(error), error.code
    return "error", f"{type(error).__name__}: {error}", ""
