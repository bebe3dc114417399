"""Collectors for tests: they take OTLP over HTTP or gRPC on a port of the loopback,
and behave as badly as they are told to.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Collector(ThreadingHTTPServer):
    """Keeps what it took: (path, headers, body) of each request."""

    daemon_threads = True

    def __init__(
        self,
        statuses: list[int] | None = None,
        headers: dict[str, str] | None = None,
        silent: threading.Event | None = None,
        largest: int = 1 << 30,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses = statuses or [200]  # one per request, the last for all others
        self.headers = headers or {}
        self.silent = silent  # no answer before this is set
        self.largest = largest  # bytes of a request; more is answered with 413
        self.requests: list[tuple[str, dict[str, str], bytes]] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: Collector
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.server.silent is not None:
            self.server.silent.wait(30)
        status = 413
        if len(body) <= self.server.largest:
            self.server.requests.append(
                (self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            )
            status = (
                self.server.statuses.pop(0)
                if len(self.server.statuses) > 1
                else self.server.statuses[0]
            )
        self.send_response(status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


@contextmanager
def collecting(**how: Any) -> Iterator[Collector]:
    """A collector that answers while the body runs."""
    collector = Collector(**how)
    thread = threading.Thread(target=collector.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        if collector.silent is not None:
            collector.silent.set()
        collector.shutdown()
        collector.server_close()
        thread.join()


class GrpcCollector:
    """The same by gRPC: keeps the requests of the trace service that it took."""

    def __init__(
        self, answers: list[str] | None = None, silent: threading.Event | None = None
    ) -> None:
        self.answers = answers or []  # a status for each request, then OK
        self.silent = silent
        self.requests: list[Any] = []
        self.metadata: list[dict[str, Any]] = []
        self.endpoint = ""

    def Export(self, request: Any, context: Any) -> Any:
        import grpc
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceResponse,
        )

        if self.silent is not None:
            self.silent.wait(30)
        self.metadata.append(dict(context.invocation_metadata()))
        if self.answers and (name := self.answers.pop(0)) != "OK":
            context.abort(grpc.StatusCode[name], "as it was told to")
        self.requests.append(request)
        return ExportTraceServiceResponse()


@contextmanager
def grpc_collecting(
    *, largest: int = 4 << 20, certificate: tuple[bytes, bytes] | None = None, **how: Any
) -> Iterator[GrpcCollector]:
    """A gRPC server that answers while the body runs.

    `largest` request in bytes (its default is gRPC's own), `certificate`:
    key and certificate for TLS.
    """
    from concurrent.futures import ThreadPoolExecutor

    import grpc
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
        add_TraceServiceServicer_to_server,
    )

    collector = GrpcCollector(**how)
    server = grpc.server(
        ThreadPoolExecutor(4),
        options=[("grpc.max_receive_message_length", largest), ("grpc.so_reuseport", 0)],
    )
    add_TraceServiceServicer_to_server(collector, server)
    if certificate is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([certificate]))
    collector.endpoint = f"http{'' if certificate is None else 's'}://127.0.0.1:{port}"
    server.start()
    try:
        yield collector
    finally:
        if collector.silent is not None:
            collector.silent.set()
        server.stop(None).wait()


def spans_of(collector: Collector | GrpcCollector) -> list[Any]:
    """The protobuf spans that it took, in order."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    requests = (
        collector.requests
        if isinstance(collector, GrpcCollector)
        else [
            ExportTraceServiceRequest.FromString(body)
            for path, _, body in collector.requests
            if path == "/v1/traces"
        ]
    )
    return [
        span
        for request in requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
