"""A real Jaeger for `make jaeger` and for tests: found or built, and started on the loopback.

    python scripts/jaeger.py COMMAND...     start Jaeger, run COMMAND with its traces sent there,
    say where to look, wait for Ctrl-C at a terminal

The program is `jaeger` on PATH, else jaeger-VERSION.xz in the folder CLEANROOM_TOOLS,
else it is built from its Go module (5 to 7 minutes, once per user).
The module is without the page's assets: such a Jaeger takes and answers everything,
but its page is a placeholder, unless JAEGER_UI_ASSETS names built ones.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import tools

MODULE, VERSION, RELEASE = "github.com/jaegertracing/jaeger", "1.76.0", "v2.13.0"
CONFIGURATION = Path(__file__).resolve().parent.parent / "otel" / "jaeger.yaml"
PLACEHOLDER = b"not the Jaeger UI"
NO_PAGE = """
This Jaeger was built from its Go module, which is without the page: the addresses above show a placeholder, /api/traces/ID has the traces.
To look at them here: cleanroom-engine trace, or the run's report. In Jaeger: its release or container image (the same traces, by --push, or the trace file
by upload), or JAEGER_UI_ASSETS=FOLDER with built assets of jaeger-ui.
"""  # noqa: E501
START_SECONDS = 20.0  # it answers after 0.1 s; a busy machine may take long to load it


class Jaeger(NamedTuple):
    """Where a running one is reached."""

    ui: str
    otlp_http: str
    otlp_grpc: str

    def get(self, path: str) -> Any:
        """The JSON that its API answers."""
        with urllib.request.urlopen(f"{self.ui}{path}", timeout=10) as answer:
            return json.load(answer)

    @property
    def has_page(self) -> bool:
        """Whether there is something to look at: a Jaeger built from its module has a placeholder
        for its page.
        """
        with urllib.request.urlopen(self.ui, timeout=10) as answer:
            return PLACEHOLDER not in answer.read(1 << 20)

    def wait_trace(self, trace_id: str, count: int) -> Any:
        """The trace, once it has so many spans: its store takes batches.

        Raises:
            TimeoutError: it has not after some seconds.
        """
        found = 0
        for _ in range(200):
            with suppress(OSError):  # not there yet
                (trace,) = self.get(f"/api/traces/{trace_id}")["data"]
                found = len(trace["spans"])
                if found >= count:
                    return trace
            time.sleep(0.05)
        raise TimeoutError(f"{found} of {count} spans arrived")


def build() -> Path:
    """Build it inside its downloaded module: `go install` refuses a module with a replace
    directive.
    """
    if not shutil.which("go"):
        sys.exit(
            "make jaeger needs a `jaeger` on PATH, CLEANROOM_TOOLS, or Go to build it; "
            "`docker compose -f otel/compose.yaml up` is the other way"
        )
    print("building Jaeger from its Go module, which takes some minutes", file=sys.stderr)
    told = subprocess.run(
        ["go", "mod", "download", "-json", f"{MODULE}@v{VERSION}"],
        check=True,
        capture_output=True,
        cwd="/",
    )
    folder = json.loads(told.stdout)["Dir"]
    flags = f"-s -w -X {MODULE}/internal/version.latestVersion={RELEASE}"
    kept = tools.folder() / f"jaeger-{VERSION}"
    environment = {**os.environ, "CGO_ENABLED": "0"}
    subprocess.run(
        ["go", "build", "-trimpath", "-ldflags", flags, "-o", kept, "./cmd/jaeger"],
        check=True,
        cwd=folder,
        env=environment,
    )
    return kept


@contextmanager
def running(*, usual_ports: bool = False) -> Iterator[Jaeger]:
    """A Jaeger that lives as long as the body, on its usual ports or on free ones of the
    loopback.
    """
    names = ("UI", "OTLP_HTTP", "OTLP_GRPC", "QUERY", "HEALTH")
    ports = dict(
        zip(
            names,
            (16686, 4318, 4317, 16685, 13133) if usual_ports else free_ports(len(names)),
            strict=True,
        )
    )
    environment = {
        **os.environ,
        **{f"JAEGER_{name}_PORT": str(port) for name, port in ports.items()},
    }
    found = Jaeger(
        *(f"http://127.0.0.1:{ports[name]}" for name in ("UI", "OTLP_HTTP", "OTLP_GRPC"))
    )
    process = subprocess.Popen(
        [tools.find("jaeger") or build(), "--config", CONFIGURATION],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _wait(found, process)
        yield found
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stderr is not None
        process.stderr.close()


def _wait(jaeger: Jaeger, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            jaeger.get("/api/services")
        except OSError:
            time.sleep(0.05)
        else:
            return
    process.kill()
    raise SystemExit(f"Jaeger did not start: {process.communicate()[1][-2000:]}")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody has at this moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def _services(jaeger: Jaeger) -> list[str]:
    """Who has sent traces; what was sent last shows after its batch."""
    deadline = time.monotonic() + 3
    while not (found := jaeger.get("/api/services")["data"]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [service for service in found or [] if service != "jaeger"]  # it traces itself


def main(command: list[str]) -> int:
    with running(usual_ports=True) as jaeger:
        print(
            f"Jaeger: {jaeger.ui} (spans to {jaeger.otlp_http}, grpc {jaeger.otlp_grpc})",
            flush=True,
        )
        status = (
            subprocess.run(
                command, env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": jaeger.otlp_http}
            ).returncode
            if command
            else 0
        )
        traces = {
            t["traceID"]: t
            for service in _services(jaeger)
            for t in jaeger.get(f"/api/traces?service={service}&limit=20")["data"]
        }
        for identity, trace in traces.items():
            services = sorted({process["serviceName"] for process in trace["processes"].values()})
            print(
                (
                    f"{len(trace['spans'])} spans of {' and '.join(services)}: "
                    f"{jaeger.ui}/trace/{identity}"
                ),
                flush=True,
            )
        if not jaeger.has_page:
            print(NO_PAGE, flush=True)
        if sys.stdin.isatty():
            print("Ctrl-C ends Jaeger and forgets its traces", flush=True)
            try:
                while True:
                    time.sleep(3600)
            except KeyboardInterrupt:
                pass
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
