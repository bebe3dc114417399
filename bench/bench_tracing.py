"""What does tracing cost a run, and what does it cost to send one?

Workload: a log of many spans (a phase each with a command,
a note and a line of output in it) is taken by the tracer event by event and written as the trace
file, in this process, by CPU time, which does not count what else the machine does.
The share of the lifecycle is what the same work takes for the events of a recorded run of
examples/shop (its spans of tests and SQL statements with it), by that run's duration.
Export: 20,000 spans are delivered to a collector in a process of its own that reads and forgets;
how long after the run's end that took, and how much memory it added at its peak.
Delay: how long a run's end waits for a collector that takes the connection and never answers.
Imports: what loading the exporter takes, paid only by runs that send.
Units: microseconds of CPU a span, percent, milliseconds, MB.
"""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.figures import Figure
from bench.machine import ROOT
from cleanroom.evidence.tracing import SpanData, Trace, otlp_json
from cleanroom.evidence.tracing.span import Source
from cleanroom.model.events import Envelope, Event, Finished, Note, Output, Started, Subject

COLLECTOR = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *_): pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


def measure(small: bool) -> list[Figure]:
    """All figures; at the smallest size where `small`."""
    spans = 200 if small else 20_000
    costs = tuple(_cost(_log(spans)) / spans * 1e6 for _ in range(1 if small else 5))
    found = [
        Figure(
            benchmark="tracing",
            name="a span, taken and written",
            unit="µs",
            values=costs,
            at_most=30.0,
            note=f"{spans:,} spans",
        )
    ]
    found += _share(small)
    return found + _export(spans, 1 if small else 5)


def _log(spans: int) -> list[Envelope]:
    """The events of a run with so many spans."""
    made: list[Envelope] = []

    def tell(event: Event, span: int, parent: int) -> None:
        seq = len(made) + 1
        made.append(
            Envelope(
                seq=seq,
                run_id="r",
                time_unix_ns=10**18 + seq,
                monotonic_ns=seq,
                trace_id="1" * 32,
                span_id=f"{span:016x}",
                parent=f"{parent:016x}" if parent else "",
                event=event,
            )
        )  # type: ignore[arg-type]

    tell(Started(subject=Subject("run", "bench"), attributes={"root": "/p", "version": "0"}), 1, 0)
    for number in range(2, spans + 1, 2):
        phase, command = Subject("phase", f"p{number}"), Subject("command", f"p{number}#1")
        tell(
            Started(
                subject=phase,
                attributes={
                    "hermetic": True,
                    "policy": "Medium",
                    "timeout_seconds": 600.0,
                    "log": "logs/p.log",
                },
            ),
            number,
            1,
        )
        tell(Note(subject=phase, level="info", text="something a person reads"), number, 1)
        tell(Started(subject=command, attributes={"command": "pytest -q"}), number + 1, number)
        tell(
            Output(subject=phase, stream="stdout", text="a line of output\n", offset=0),
            number + 1,
            number,
        )
        tell(
            Finished(subject=command, result="passed", duration_seconds=0.1, exit_code=0),
            number + 1,
            number,
        )
        tell(Finished(subject=phase, result="passed", duration_seconds=0.1, exit_code=0), number, 1)
    return made


def _cost(log: list[Envelope]) -> float:
    """CPU seconds of taking these events and writing the file."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        trace = Trace()
        for envelope in log:
            trace.add(envelope)
        Path(folder, "trace.otlp.json").write_bytes(otlp_json(trace.spans()))
        return time.process_time() - began


def _share(small: bool) -> list[Figure]:
    """Of a recorded run of the shop, where there is one."""
    from cleanroom import engine

    shop = ROOT / "examples" / "shop"
    if not engine.list_runs(shop):
        return []
    log = engine.read_run(shop)
    seconds = (log[-1].monotonic_ns - log[0].monotonic_ns) / 1e9
    shares = tuple(_cost(log) / seconds * 100 for _ in range(1 if small else 5))
    return [
        Figure(
            benchmark="tracing",
            name="share of the shop's lifecycle",
            unit="%",
            values=shares,
            at_most=3.0,
            note=f"{len(log):,} events",
        )
    ]


def _export(spans: int, rounds: int) -> list[Figure]:
    """To a collector that behaves, from a process that has not loaded the exporter."""
    imports = tuple(_import_milliseconds() for _ in range(rounds))
    with _collector() as endpoint:
        told = [_delivered(spans, endpoint) for _ in range(rounds)]
    return [
        Figure(
            benchmark="tracing",
            name="loading the exporter, in its thread",
            unit="ms",
            values=imports,
        ),
        Figure(
            benchmark="tracing",
            name="delivering all spans at once",
            unit="ms",
            values=tuple(ms for ms, _ in told),
            note=f"{spans:,} spans",
        ),
        Figure(
            benchmark="tracing",
            name="memory added by delivering them",
            unit="MB",
            values=tuple(max(mb, 0.01) for _, mb in told),
        ),
        Figure(
            benchmark="tracing",
            name="delay by a silent collector",
            unit="ms",
            values=tuple(_delay() for _ in range(rounds)),
            at_most=1000.0,
        ),
    ]


def _delay() -> float:
    """Milliseconds that the end of a run waits for a collector that never answers."""
    from cleanroom.evidence.tracing.delivery import Delivery
    from cleanroom.evidence.tracing.settings import read_settings

    with socket.create_server(("127.0.0.1", 0)) as silent:
        to = f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces"
        delivery = Delivery(read_settings({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": to}).destinations)
        delivery.put("traces", [_span(2, Source())])
        silent.accept()[0].recv(1)  # the request is under way
        began = time.perf_counter()
        delivered = delivery.finish()
        assert not delivered.complete
        return 1000 * (time.perf_counter() - began)


def _import_milliseconds() -> float:
    code = (
        "import time; b = time.perf_counter(); import "
        "opentelemetry.exporter.otlp.proto.http.trace_exporter; print(1000 * "
        "(time.perf_counter() - b))"
    )
    return float(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
    )


@contextmanager
def _collector() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, "-c", COLLECTOR], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.communicate()


def _delivered(spans: int, endpoint: str) -> tuple[float, float]:
    """Milliseconds and MB, in a process of its own: the peak of memory belongs to a process."""
    code = f"from bench.bench_tracing import deliver; print(*deliver({spans}, {endpoint!r}))"
    milliseconds, megabytes = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    return float(milliseconds), float(megabytes)


def _span(number: int, source: Source) -> SpanData:
    return SpanData(
        trace_id="1" * 32,
        span_id=f"{number:016x}",
        parent_id="1".zfill(16),
        name=f"step {number % 50}",
        start_ns=10**18,
        end_ns=10**18 + number,
        source=source,
    )


def deliver(spans: int, endpoint: str) -> tuple[float, float]:
    """Deliver so many spans, and what that took: milliseconds,
    and MB above what the spans themselves hold.
    """
    from cleanroom.evidence.tracing.delivery import Delivery
    from cleanroom.evidence.tracing.settings import read_settings

    source = Source({"service.name": "bench"})
    found = [_span(number, source) for number in range(2, spans + 2)]
    delivery = Delivery(
        read_settings({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{endpoint}/v1/traces"}).destinations
    )
    delivery.put("traces", found[:1])
    time.sleep(1.0)  # the exporter is loaded meanwhile, as in a run
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    delivery.put("traces", found[1:])
    delivered = delivery.finish(120)
    milliseconds = 1000 * (time.perf_counter() - began)
    assert delivered.complete, delivered
    return milliseconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
