"""A collector for tests: takes OTLP over HTTP on a port of the loopback, and behaves as badly as it is told to."""

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
        self, statuses: list[int] | None = None, headers: dict[str, str] | None = None, silent: threading.Event | None = None
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses = statuses or [200]  # one per request, the last for all others
        self.headers = headers or {}
        self.silent = silent  # no answer before this is set
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
        self.server.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.server.statuses.pop(0) if len(self.server.statuses) > 1 else self.server.statuses[0])
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


def spans_of(collector: Collector) -> list[Any]:
    """The protobuf spans that it took, in order."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    found = []
    for path, _, body in collector.requests:
        if path == "/v1/traces":
            request = ExportTraceServiceRequest.FromString(body)
            found += [span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans]
    return found
