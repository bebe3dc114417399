"""Scripts of the memory backend: what happens in its environments, as data."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec
from anyio.abc import ByteStream

from cleanroom.backends.base import Leftover
from cleanroom.backends.memory.programs import Program
from cleanroom.model.capability import Canary, Missing, Sample
from cleanroom.model.errors import CleanroomError, EnvironmentFailed
from cleanroom.model.policy import DIMENSIONS

# opens the stream that `dial` returns; OSError: nobody listens
Answer = Callable[[], Awaitable[ByteStream]]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Fail the nth call of an operation ("*": of any), once or from then on."""

    operation: str = "*"
    nth: int
    error: Exception
    for_good: bool = False


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """What happens in the environments of one backend."""

    # by the text after `sh -c`, or by the words of the command joined with blanks
    programs: Mapping[str, Program] = {}
    otherwise: Program | None = None  # for other commands; None: they are not found (127)
    canaries: tuple[Canary, ...] = tuple(
        Canary(
            name=f"memory-{dimension}",
            dimension=dimension,
            rule=rule,
            expected="refused",
            found="refused by the script",
            result="passed",
        )
        for dimension, rule in zip(
            DIMENSIONS,
            ("network.egress", "filesystem.write", "process.privileges", "resource.memory"),
            strict=True,
        )
    )
    samples: tuple[Sample, ...] = ()  # given in turn; the last one is repeated
    dials: Mapping[str, Answer] = {}  # by "unix:/path" or "tcp:PORT"
    missing: tuple[Missing, ...] = ()
    levels: Mapping[str, tuple[Missing, ...]] = {}
    faults: tuple[Fault, ...] = ()
    delays: Mapping[str, float] = {}  # operation -> seconds
    left: tuple[Leftover, ...] = ()  # what the ledger claims to be left at the end


def broken(text: str = "the script says so") -> CleanroomError:
    """An error as a backend translates it."""
    return EnvironmentFailed("CR-ENV-002", text, hint="see the run's log")
