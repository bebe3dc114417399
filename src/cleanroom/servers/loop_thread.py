"""An event loop in a thread of its own, in which a server lives whatever its user is doing.

A server has tasks: they restart it, and look whether it answers.
In its user's own loop they would end with that loop (pytest has one for each test), stand still
while it blocks, and not exist in programs that have none.
Callers wait from outside: blocking, or from any event loop.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Generic, TypeVar

import anyio
import anyio.to_thread

T = TypeVar("T")

# At the interpreter's exit, for a server that nobody left: its keeper ends it anyhow.
EXIT_SECONDS = 10.0


async def settled(future: Future[Any]) -> None:
    """Wait until it has a result or an error, from any event loop; the future is not touched."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        await anyio.to_thread.run_sync(wait_settled, future, abandon_on_cancel=True)
        return
    waiter = loop.create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def from_any_thread(_: Future[Any]) -> None:
        with suppress(RuntimeError):  # the waiter's loop has ended
            loop.call_soon_threadsafe(wake)

    future.add_done_callback(from_any_thread)
    await waiter


def wait_settled(future: Future[Any], timeout_seconds: float | None = None) -> None:
    """Wait until it has a result or an error. Blocks."""
    future.exception(timeout_seconds)


class Call(Generic[T]):
    """One coroutine that runs in the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> None:
        self.future: Future[T] = Future()
        self._loop = loop
        self._task: asyncio.Task[T] | None = None
        loop.call_soon_threadsafe(self._begin, coroutine)

    def result(self) -> T:
        """Wait for it. Blocks; when interrupted, ends it first."""
        try:
            return self.future.result()
        finally:
            if not self.future.done():
                self.cancel()
                wait_settled(self.future)

    async def result_async(self) -> T:
        """Wait for it from any event loop; when cancelled, ends it first."""
        try:
            await settled(self.future)
        finally:
            if not self.future.done():
                self.cancel()
                with anyio.CancelScope(shield=True):
                    await settled(self.future)
        return self.future.result()

    async def result_shielded(self) -> T:
        """Wait for it from any event loop, also when cancelled: for what has to be done."""
        with anyio.CancelScope(shield=True):
            try:
                await settled(self.future)
            finally:
                # asyncio's own cancellation knows no shield
                wait_settled(self.future)
        return self.future.result()

    def cancel(self) -> None:
        """End it; it may have things to do until then."""
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _begin(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._task = self._loop.create_task(coroutine)
        self._task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.future.set_exception(CancelledError())
        elif (error := task.exception()) is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(task.result())


class LoopThread:
    """The thread and its loop, from making it until `stop`."""

    def __init__(self, name: str) -> None:
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._end = asyncio.Event()
        # A daemon: a program whose user forgot to leave a server ends all the same.
        self._thread = threading.Thread(target=self._run, args=(started,), name=name, daemon=True)
        self._thread.start()
        self._loop = started.result()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> Call[T]:
        """Run it in the loop."""
        return Call(self._loop, coroutine)

    def soon(self, function: Callable[[], object]) -> None:
        """Call it in the loop."""
        self._loop.call_soon_threadsafe(function)

    def stop(self) -> None:
        """End the loop and the thread. Blocks for a moment."""
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def _run(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        async def main() -> None:
            started.set_result(asyncio.get_running_loop())
            await self._end.wait()

        # Not the policy's loop, which may be another library's.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(main())


class Hosted(Generic[T]):
    """An asynchronous context manager that is held open in a thread with a loop of its own."""

    def __init__(self, manager: AbstractAsyncContextManager[T], name: str) -> None:
        self._manager = manager
        self._process = os.getpid()
        self._opened: Future[T] = Future()
        self._leaving = asyncio.Event()
        self._thread = LoopThread(name)
        self._holding = self._thread.call(self._hold())
        self._holding.future.add_done_callback(self._ended)

    def open(self) -> T:
        """Wait until it is entered. Blocks; when interrupted or refused, nothing of it is left."""
        try:
            value = self._opened.result()
        except BaseException:
            self._holding.cancel()
            wait_settled(self._holding.future)
            self._thread.stop()
            raise
        atexit.register(self._at_exit)
        return value

    async def open_async(self) -> T:
        """As `open`, from any event loop."""
        try:
            await settled(self._opened)
            value = self._opened.result()
        except BaseException:
            self._holding.cancel()
            await self._wait_left()
            raise
        atexit.register(self._at_exit)
        return value

    def close(self) -> None:
        """Leave it, and wait until it is left. Blocks."""
        atexit.unregister(self._at_exit)
        self._thread.soon(self._leaving.set)
        try:
            wait_settled(self._holding.future)
        finally:
            self._thread.stop()
        self._holding.future.result()

    async def close_async(self) -> None:
        """As `close`, from any event loop."""
        atexit.unregister(self._at_exit)
        self._thread.soon(self._leaving.set)
        await self._wait_left()
        self._holding.future.result()

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Call[Any]:
        """Run a coroutine in the loop."""
        return self._thread.call(coroutine)

    async def _wait_left(self) -> None:
        try:
            with anyio.CancelScope(shield=True):
                await settled(self._holding.future)
        finally:
            # asyncio's own cancellation knows no shield
            wait_settled(self._holding.future)
            self._thread.stop()

    async def _hold(self) -> None:
        async with self._manager as value:
            self._opened.set_result(value)
            await self._leaving.wait()

    def _ended(self, held: Future[None]) -> None:
        if not self._opened.done():
            self._opened.set_exception(held.exception() or CancelledError())

    def _at_exit(self) -> None:
        if os.getpid() == self._process:  # a forked child has the thread's memory only
            self._thread.soon(self._leaving.set)
            with suppress(TimeoutError):
                wait_settled(self._holding.future, EXIT_SECONDS)
