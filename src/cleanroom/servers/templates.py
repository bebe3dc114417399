"""Templates that a function of the user's makes: migrations, or rows that every test begins with.

The function runs once for each server, where it was asked for: in the thread that asks, or, for
`async with`, in a worker thread, and awaited if it is a coroutine function.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

import anyio.to_thread

from cleanroom.core.arguments import Expected, optional
from cleanroom.servers.addresses import Database
from cleanroom.servers.databases import Databases
from cleanroom.servers.loop_thread import Hosted, settled

Make = Callable[[Database], object]
MAKE = optional(Expected("a function that is given the database to fill", callable))


class Templates:
    """The templates of one server: each function's database, frozen."""

    def __init__(self, hosted: Hosted[Any], databases: Databases) -> None:
        self._hosted = hosted
        self._databases = databases
        self._lock = threading.Lock()
        self._names: dict[Make, Future[str]] = {}

    def name(self, make: Make | None) -> str:
        """The name of the template that `make` fills; empty for None. Blocks.

        Raises:
            Exception: what the function raised, now or when it was first called.
        """
        if make is None:
            return ""
        future, mine = self._future(make)
        if mine:
            database = self._hosted.call(self._databases.create()).result()
            try:
                _call(make, database)
                self._hosted.call(self._databases.freeze(database.database)).result()
            except BaseException as error:
                self._failed(make, future, error)
                self._hosted.call(self._databases.drop(database.database)).result()
                raise
            future.set_result(database.database)
        return future.result()

    async def name_async(self, make: Make | None) -> str:
        """As `name`, from any event loop."""
        if make is None:
            return ""
        future, mine = self._future(make)
        if mine:
            database = await self._hosted.call(self._databases.create()).result_async()
            try:
                if inspect.iscoroutinefunction(make):
                    await make(database)
                else:
                    await anyio.to_thread.run_sync(_call, make, database)
                freezing = self._databases.freeze(database.database)
                await self._hosted.call(freezing).result_async()
            except BaseException as error:
                self._failed(make, future, error)
                with anyio.CancelScope(shield=True):
                    dropping = self._databases.drop(database.database)
                    await self._hosted.call(dropping).result_async()
                raise
            future.set_result(database.database)
        await settled(future)
        return future.result()

    def _future(self, make: Make) -> tuple[Future[str], bool]:
        """Its name to be, and whether the caller is the one that has to make it."""
        with self._lock:
            mine = make not in self._names
            return self._names.setdefault(make, Future()), mine

    def _failed(self, make: Make, future: Future[str], error: BaseException) -> None:
        """Others hear the same; one that was only interrupted may be tried again."""
        if not isinstance(error, Exception):
            with self._lock:
                del self._names[make]
        future.set_exception(error)


def _call(make: Make, database: Database) -> None:
    """Call it, and wait for what it may return to be awaited.

    Where an event loop runs in this thread already, as in a notebook, a thread of its own is one
    in which the function may run another.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        _call_here(make, database)
        return
    raised: list[BaseException] = []

    def work() -> None:
        try:
            _call_here(make, database)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=partial(contextvars.copy_context().run, work))
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def _call_here(make: Make, database: Database) -> None:
    made = make(database)
    if inspect.isawaitable(made):
        asyncio.run(_wait(made))


async def _wait(made: Awaitable[object]) -> None:
    await made
