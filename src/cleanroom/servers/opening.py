"""Servers and databases that both `with` and `async with` enter."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

from cleanroom.servers.loop_thread import Hosted

Blocking = TypeVar("Blocking")
Async = TypeVar("Async")
Core = TypeVar("Core")


class Opening(Generic[Blocking, Async]):
    """A server to be. `with` gives one whose methods block, `async with` one whose methods are
    awaited; both work in any thread and in any event loop, also in one that runs already.
    """

    def __init__(
        self,
        name: str,
        manager: Callable[[], AbstractAsyncContextManager[Core]],
        blocking: Callable[[Hosted[Any], Core], Blocking],
        asynchronous: Callable[[Hosted[Any], Core], Async],
    ) -> None:
        self._name = name
        self._manager = manager
        self._blocking = blocking
        self._asynchronous = asynchronous
        self._entered: list[Hosted[Any]] = []

    def start(self) -> Blocking:
        """Start it without a block, as the cells of a notebook do; its `stop` ends it.

        Raises:
            CleanroomError: it cannot be started here; see the code.
        """
        hosted = self._hosted()
        return self._blocking(hosted, hosted.open())

    def __enter__(self) -> Blocking:
        hosted = self._hosted()
        server = self._blocking(hosted, hosted.open())
        self._entered.append(hosted)
        return server

    def __exit__(self, *exc: object) -> None:
        self._entered.pop().close()

    async def __aenter__(self) -> Async:
        hosted = self._hosted()
        server = self._asynchronous(hosted, await hosted.open_async())
        self._entered.append(hosted)
        return server

    async def __aexit__(self, *exc: object) -> None:
        await self._entered.pop().close_async()

    def _hosted(self) -> Hosted[Any]:
        return Hosted(self._manager(), self._name)
