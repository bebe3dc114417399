"""An OTLP endpoint for one phase: receives the spans of its own programs over HTTP, bounded in rate
and size, and publishes them.

The endpoint listens on a unix socket in the run's scratch folder.
Inside, the relay that leads to declared hosts forwards 127.0.0.1:4318 to it.
Any other request gets an error response, and its content goes nowhere.
Refusals are reported once, when the phase has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio

from cleanroom.backends.base import PortForward
from cleanroom.core.beneath import unix_address
from cleanroom.core.bus import Bus, SpanContext
from cleanroom.evidence.tracing.otlp_json import to_otlp
from cleanroom.evidence.tracing.received import NotTaken, adopted, decode, require_protobuf
from cleanroom.model.events import Note, Spans, Subject

PORT = 4318  # OTLP over HTTP
REQUEST_BYTES = 4 << 20  # what collectors take by default, before and after decompression
PHASE_BYTES = 32 << 20  # of decoded requests: a phase's share of the event log
PHASE_SPANS = 20_000
SPANS_PER_SECOND = 5_000  # on average, with a burst of two seconds
CONNECTIONS_MAX = 32
IDLE_SECONDS = 30.0  # a connection that sends nothing is closed
VARIABLES = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{PORT}",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
}


class HttpResponse(NamedTuple):
    """A response without a body; `reason` of a refusal is for the report."""

    status: int
    reason: str = ""
    headers: tuple[tuple[str, str], ...] = ()


class Quota:
    """The remaining quota of one phase. The caller passes the time."""

    def __init__(self, now: float) -> None:
        self._spans_left, self._bytes_left = PHASE_SPANS, PHASE_BYTES
        self._tokens, self._at = 2.0 * SPANS_PER_SECOND, now

    def charge(self, spans: int, size: int, now: float) -> HttpResponse | None:
        """Count a request against the quota. None where it fits; else the refusing response."""
        self._tokens = min(
            2.0 * SPANS_PER_SECOND, self._tokens + (now - self._at) * SPANS_PER_SECOND
        )
        self._at = now
        if spans > self._spans_left or size > self._bytes_left:
            return HttpResponse(
                413, f"a phase may send {PHASE_SPANS} spans and {PHASE_BYTES >> 20} MiB"
            )
        if spans > self._tokens:
            return HttpResponse(
                429, f"more than {SPANS_PER_SECOND} spans a second", (("retry-after", "1"),)
            )
        self._tokens -= spans
        self._spans_left -= spans
        self._bytes_left -= size
        return None


class Receiver:
    """One phase's endpoint. Made by `receive`."""

    def __init__(self, bus: Bus, subject: Subject, at: SpanContext, path: Path) -> None:
        self._bus = bus
        self._subject = subject
        self._at = at
        self.port_forward = PortForward(
            service="otlp", port=PORT, environment="", to=f"host:{path}"
        )
        self._quota = Quota(anyio.current_time())
        self._refused: Counter[str] = Counter()
        self._connections: set[asyncio.Task[None]] = set()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a new connection in a task of its own."""
        if len(self._connections) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def close(self) -> None:
        """End all connections, and report refusals."""
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if self._refused:
            refusals = ", ".join(
                f"{reason} ({count} times)" if count > 1 else reason
                for reason, count in self._refused.most_common(5)
            )
            note = Note(
                subject=self._subject,
                level="warning",
                text=f"telemetry of phase {self._subject.name!r} was refused: {refusals}",
                code="CR-TRACE-007",
            )
            self._bus.publish(note, self._at)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        import h11

        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=64 << 10)
        try:
            while await self._serve_request(connection, reader, writer):
                connection.start_next_cycle()
        except (h11.ProtocolError, OSError, TimeoutError):
            pass  # not HTTP, closed, or idle: no client is left to respond to
        finally:
            writer.transport.abort()

    async def _serve_request(
        self, connection: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Read one request and respond. False where the connection cannot take another."""
        import h11

        request: Any = None
        body = bytearray()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if connection.they_are_waiting_for_100_continue:
                    writer.write(
                        connection.send(h11.InformationalResponse(status_code=100, headers=[]))
                    )
                with anyio.fail_after(IDLE_SECONDS):
                    connection.receive_data(await reader.read(64 << 10))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > REQUEST_BYTES:
                    return await self._respond(
                        connection,
                        writer,
                        HttpResponse(413, f"a request of more than {REQUEST_BYTES >> 20} MiB"),
                        last=True,
                    )
            elif isinstance(event, h11.EndOfMessage):
                return await self._respond(
                    connection, writer, self._receive_spans(request, bytes(body))
                )
            else:
                return False  # closed

    async def _respond(
        self,
        connection: Any,
        writer: asyncio.StreamWriter,
        response: HttpResponse,
        *,
        last: bool = False,
    ) -> bool:
        import h11

        if response.status != 200:
            self._refused[response.reason] += 1
        headers = [
            ("content-type", "application/x-protobuf"),
            ("content-length", "0"),
            *response.headers,
            *([("connection", "close")] if last else []),
        ]
        writer.write(
            connection.send(h11.Response(status_code=response.status, headers=headers))
            + connection.send(h11.EndOfMessage())
        )
        await writer.drain()
        return not last and connection.our_state is h11.DONE and connection.their_state is h11.DONE

    def _receive_spans(self, request: Any, body: bytes) -> HttpResponse:
        """Check a request, count it against the quota, and publish its spans."""
        headers = {
            name.decode("ascii", "replace"): value.decode("latin-1")
            for name, value in request.headers
        }
        if request.method != b"POST" or request.target.split(b"?")[0] != b"/v1/traces":
            return HttpResponse(404, "something else than POST /v1/traces")
        try:
            data = inflated(body, headers.get("content-encoding", ""))
            spans = decode(data, headers.get("content-type", ""))
        except NotTaken as error:
            return HttpResponse(400, str(error))
        if refusal := self._quota.charge(len(spans), len(data), anyio.current_time()):
            return refusal
        if spans:
            found = to_otlp(adopted(spans, self._at.trace_id, self._at.span_id, self._subject.name))
            self._bus.publish(
                Spans(subject=self._subject, count=len(spans), resource_spans=tuple(found)),
                self._at,
            )
        return HttpResponse(200)


def inflated(body: bytes, encoding: str) -> bytes:
    """The decompressed body.

    Raises:
        NotTaken: the body is not of this encoding, or is larger than a request may be.
    """
    match encoding.strip().lower():
        case "" | "identity":
            return body
        case "gzip":
            unpack = zlib.decompressobj(wbits=31)
        case "deflate":
            unpack = zlib.decompressobj()
        case _:
            raise NotTaken(f"expected gzip or deflate, found {encoding[:40]!r}")
    try:
        data = unpack.decompress(body, REQUEST_BYTES + 1)
    except zlib.error as error:
        raise NotTaken(f"not {encoding}: {error}") from None
    if len(data) > REQUEST_BYTES or not unpack.eof:
        raise NotTaken(f"cut short, or more than {REQUEST_BYTES >> 20} MiB when unpacked")
    return data


@asynccontextmanager
async def receive(
    bus: Bus, subject: Subject, at: SpanContext, folder: Path
) -> AsyncIterator[Receiver]:
    """An endpoint of this phase while the body runs; its socket lies in `folder`.

    Raises:
        BackendUnavailable: the packages that decode spans are not installed.
    """
    require_protobuf()
    path = folder / f"otlp-{at.span_id}.sock"
    receiver = Receiver(bus, subject, at, path)
    server = await asyncio.start_unix_server(
        receiver.connected, sock=_listen(path), limit=256 << 10
    )
    try:
        yield receiver
    finally:
        server.close()
        with anyio.CancelScope(shield=True):
            await receiver.close()
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _listen(path: Path) -> socket.socket:
    """A unix socket at `path`; its folder is held open only while the socket gets its name."""
    folder_descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(unix_address(folder_descriptor, path.name))
    except BaseException:
        listening.close()
        raise
    finally:
        os.close(folder_descriptor)
    return listening
