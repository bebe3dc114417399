"""What is held open in a thread with an event loop of its own, and waited for from outside."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

import cleanroom
from cleanroom.servers.loop_thread import Hosted


class Held:
    """A context manager that tells how far it came, and may wait or fail on its way."""

    def __init__(self, *, waits: bool = False, fails: bool = False) -> None:
        self.steps: list[str] = []
        self.begun = threading.Event()
        self._waits, self._fails = waits, fails

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[str]:
        self.steps.append("entering")
        self.begun.set()
        try:
            if self._waits:
                await anyio.sleep_forever()
            if self._fails:
                raise ZeroDivisionError
            yield "value"
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)
            self.steps.append("left")


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_it_is_entered_and_left_without_a_loop() -> None:
    """A program that has no event loop opens, calls and closes it; no thread is left."""
    held = Held()
    hosted = Hosted(held(), "held-blocking")
    assert hosted.open() == "value"
    assert hosted.call(asyncio.sleep(0, "slept")).result() == "slept"
    assert "held-blocking" in threads()
    hosted.close()
    assert held.steps == ["entering", "left"]
    assert "held-blocking" not in threads()


async def test_a_blocking_call_works_where_a_loop_runs() -> None:
    """As in a cell of a notebook: the loop is not needed for it, and is not disturbed."""
    held = Held()
    hosted = Hosted(held(), "held-cell")
    assert hosted.open() == "value"
    assert hosted.call(asyncio.sleep(0, "slept")).result() == "slept"
    hosted.close()
    assert held.steps == ["entering", "left"]


def test_it_outlives_the_loop_that_opened_it() -> None:
    """Opened in one event loop, called in a second, closed in a third."""
    held = Held()
    hosted = Hosted(held(), "held-loops")

    async def call() -> str:
        return await hosted.call(asyncio.sleep(0, "slept")).result_async()

    assert anyio.run(hosted.open_async) == "value"
    assert anyio.run(call) == "slept"
    anyio.run(hosted.close_async)
    assert held.steps == ["entering", "left"]


@pytest.mark.parametrize("native", [True, False], ids=["asyncio", "anyio"])
async def test_cancelled_while_it_is_entered_it_is_left(native: bool) -> None:
    """Whoever is cancelled waits until nothing is left, and is cancelled then."""
    held = Held(waits=True)
    hosted = Hosted(held(), "held-cancelled")
    if native:
        task = asyncio.create_task(hosted.open_async())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        with anyio.move_on_after(0.05) as scope:
            await hosted.open_async()
        assert scope.cancelled_caught
    assert held.steps == ["entering", "left"]
    assert "held-cancelled" not in threads()


async def test_a_cancelled_call_is_ended_first() -> None:
    """The coroutine in the other loop has ended when the caller goes on."""
    hosted = Hosted(Held()(), "held-call")
    await hosted.open_async()
    steps = []

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            steps.append("ended")

    with anyio.move_on_after(0.05) as scope:
        await hosted.call(work()).result_async()
    assert scope.cancelled_caught
    assert steps == ["ended"]
    await hosted.close_async()


def test_what_entering_raises_comes_out_as_it_is() -> None:
    """And the thread has ended."""
    with pytest.raises(ZeroDivisionError):
        Hosted(Held(fails=True)(), "held-failing").open()
    assert "held-failing" not in threads()


def test_a_program_that_forgets_it_ends_and_leaves_it(tmp_path: Path) -> None:
    """At the interpreter's exit what is still open is left."""
    program = tmp_path / "forgets.py"
    program.write_text("""
from contextlib import asynccontextmanager
from cleanroom.servers.loop_thread import Hosted

@asynccontextmanager
async def held():
    yield
    print("left", flush=True)

Hosted(held(), "forgotten").open()
""")
    done = subprocess.run(
        [sys.executable, program],
        env={"PYTHONPATH": str(Path(cleanroom.__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("left\n", "", 0)
