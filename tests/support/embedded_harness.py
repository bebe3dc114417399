"""What the tests of the embedded backend share: the kinds of their fixtures,
and running a shell's text.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import msgspec

from cleanroom.backends.base import Environment, EnvironmentSpec, ExecResult
from cleanroom.backends.embedded.backend import EmbeddedBackend
from cleanroom.model.policy import Level, default_policy

Entered = Callable[[], AbstractAsyncContextManager[EmbeddedBackend]]
Phase = Callable[..., EnvironmentSpec]
# of the backend and of its environments; another process's tests have another one
RUN_ID = f"t{os.getpid()}"
BARE = {"workspace": None, "working_directory": "/"}  # an environment without a project


async def run(
    environment: Environment, text: str, timeout_seconds: float | None = None
) -> tuple[ExecResult, str]:
    """A shell's text, how it ended, and what it said on both streams."""
    said = bytearray()
    result = await environment.exec(
        ("sh", "-c", text),
        on_output=lambda stream, piece: said.extend(piece),
        timeout_seconds=timeout_seconds,
    )
    return result, said.decode(errors="replace")


def limited(**fields: object) -> dict[str, object]:
    """Without a project, and with these limits."""
    policy = default_policy(Level.MEDIUM)
    return {
        **BARE,
        "policy": msgspec.structs.replace(
            policy, limits=msgspec.structs.replace(policy.limits, **fields)
        ),
    }


async def on_terminal(environment: Environment) -> str:
    """What a command shows on a terminal that is its controlling one, and how it ended."""
    ours, theirs = os.openpty()
    shown: list[bytes] = []
    try:
        # Opening /dev/tty fails without a controlling terminal (ENXIO).
        result = await environment.exec(
            ("sh", "-c", "echo controlled > /dev/tty; exit 3"),
            on_output=lambda _, data: shown.append(data),
            timeout_seconds=20,
            terminal=theirs,
        )
        assert not shown
        return f"{os.read(ours, 1000).decode().strip()}\r\nexit {result.exit_code}"
    finally:
        os.close(ours)
        os.close(theirs)
