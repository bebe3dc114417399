"""Probes of a service: whether it is ready. A service that is not ready yet is no error."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import anyio
from anyio.abc import ByteStream

from cleanroom.services import pgwire, resp
from cleanroom.services.base import Probe

# A ready server answers in milliseconds; after this time the probe is repeated.
ANSWER_SECONDS = 5.0
STATUS_LINE_BYTES = 4096  # a status line has under 100; more without a line end is not HTTP
NOT_YET = (OSError, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)


class ExitStatus(Protocol):
    """How a command ended: the part of it that a probe reads."""

    @property
    def exit_code(self) -> int: ...


class ProbedEnvironment(Protocol):
    """The part of an environment that a probe needs; `backends.base.Environment` has it."""

    async def exec(
        self,
        argv: Sequence[str],
        *,
        on_output: Callable[[Literal["stdout", "stderr"], bytes], None],
        timeout_seconds: float | None = None,
    ) -> ExitStatus: ...

    async def dial(self, to: str) -> ByteStream: ...


async def is_ready(probe: Probe, environment: ProbedEnvironment, output: bytes = b"") -> bool:
    """Whether the service answers `probe` as a ready one does.

    `output` is what it has written so far; log probes search it.

    Raises:
        EnvironmentFailed: the environment has ended.
    """
    if probe.kind == "log":
        return (
            re.search(probe.pattern, output.decode(errors="replace"), flags=re.MULTILINE)
            is not None
        )
    if probe.kind == "exec":
        result = await environment.exec(
            probe.argv, on_output=lambda _stream, _data: None, timeout_seconds=ANSWER_SECONDS
        )
        return result.exit_code == 0
    with anyio.move_on_after(ANSWER_SECONDS):
        return await _over_stream(probe, environment)
    return False


async def _over_stream(probe: Probe, environment: ProbedEnvironment) -> bool:
    try:
        async with await environment.dial(probe.to) as stream:
            if probe.kind == "resp":
                return await resp.ping(stream, probe.password)
            if probe.kind == "sql":
                return await pgwire.run_statements(
                    stream,
                    user=probe.user,
                    database=probe.database,
                    password=probe.password,
                    statements=probe.statements,
                )
            if probe.kind == "http":
                return await _get(stream, probe.path)
            return True
    except NOT_YET:
        return False


async def _get(stream: ByteStream, path: str) -> bool:
    await stream.send(
        f"GET {path or '/'} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    )
    head = b""
    while b"\n" not in head and len(head) < STATUS_LINE_BYTES:
        head += await stream.receive()
    status = re.match(rb"HTTP/\d\.\d (\d{3})\b", head)
    return status is not None and int(status.group(1)) < 400
