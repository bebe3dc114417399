"""The two subscribers that write a run's evidence: events, reports, trace."""

from __future__ import annotations

import json
import os
from pathlib import Path

import anyio
import msgspec
import pytest

from cleanroom.core.bus import Bus
from cleanroom.core.clock import SystemClock
from cleanroom.evidence.reports.fold import fold
from cleanroom.evidence.reports.result import RunResult
from cleanroom.evidence.tracing import read_otlp_json
from cleanroom.model.errors import ArtifactError
from cleanroom.model.events import Subject, decode
from cleanroom.subscribers import reporter, tracer
from cleanroom.subscribers.reporter import Reporter
from support.event_log_builder import RUN, egress, shop
from support.open_folders import open_folder
from support.otlp_collector import collecting


async def observed(
    root: Path,
    report_folder: Path | None = None,
    caller: dict[str, str] | None = None,
    *,
    sampled: bool = True,
) -> tuple[Reporter, Path]:
    """A short run on a real bus, seen by both."""
    bus = Bus("r1", SystemClock())
    run_folder = root / ".ggen" / "cleanroom" / "runs" / "r1"
    observer = Reporter(
        root,
        open_folder(run_folder),
        open_folder(report_folder or root / ".ggen/cleanroom/reports"),
    )
    trace = run_folder / tracer.TRACE_FILE
    inbox, traced = (
        bus.subscribe("reporter", limit=reporter.LIMIT),
        bus.subscribe("tracer", tracer.READS, limit=tracer.LIMIT),
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(observer.run, inbox)
        tasks.start_soon(
            tracer.Tracer.of(open_folder(run_folder), caller or {}, sampled=sampled).run, traced
        )
        with (
            bus.span(RUN, {"slo_seconds": 20.0}),
            bus.span(Subject("phase", "test"), {"hermetic": True}) as span,
            bus.span(Subject("command", "test#1")),
        ):
            await anyio.lowlevel.checkpoint()
            bus.publish(egress("test"))
            span.exit_code = 0
        bus.close()
    return observer, trace


@pytest.mark.parametrize("sampled", [True, False])
async def test_a_sampler_decides_about_spans_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampled: bool
):
    """Metrics of a run whose trace is not sampled are sent all the same,
    and its file is written.
    """
    pytest.importorskip(
        "opentelemetry.exporter.otlp.proto.http", reason="the extra otlp is not installed"
    )
    monkeypatch.setattr(tracer, "END_SECONDS", 30.0)  # no claim here about how fast it is
    with collecting() as collector:
        _, trace = await observed(
            tmp_path, caller={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}, sampled=sampled
        )
        paths = {path for path, _, _ in collector.requests}

    assert paths == {"/v1/metrics", *(["/v1/traces"] if sampled else [])}
    assert len(read_otlp_json(trace.read_bytes())) == 3


async def test_the_event_log_is_every_event_in_order(tmp_path: Path):
    """Folding the file gives what the reporter knows."""
    observer, _ = await observed(tmp_path)
    envelopes = [decode(line) for line in observer.events_path.read_bytes().splitlines()]

    assert [envelope.seq for envelope in envelopes] == list(range(1, 8))
    assert fold(envelopes) == observer.result()


async def test_the_written_result_names_every_file_relative_to_the_project(tmp_path: Path):
    """Each path of `reports` exists, and the JSON report is the final result with audit head and
    reports.
    """
    observer, trace = await observed(tmp_path)
    final = await observer.write(
        msgspec.structs.replace(
            observer.result(), audit_head={"bytes": 10, "seq": 1, "hash": "ab"}
        ),
        {"trace": trace},
    )

    assert set(final.reports) == {"json", "junit", "html", "sarif", "events", "trace"}
    assert all(
        (tmp_path / path).is_file() and not os.path.isabs(path) for path in final.reports.values()
    )
    assert (
        msgspec.json.decode((tmp_path / final.reports["json"]).read_bytes(), type=RunResult)
        == final
    )


async def test_reports_lie_beside_their_events_too(tmp_path: Path):
    """The newest run's reports are replaced by the next, those beside the events stay."""
    observer, _ = await observed(tmp_path)
    await observer.write(observer.result())

    for name in (
        "test_results.json",
        "test_results.junit.xml",
        "test_results.html",
        "test_results.sarif",
    ):
        assert (observer.run_folder.path / name).read_bytes() == (
            observer.report_folder.path / name
        ).read_bytes()


async def test_another_report_folder_is_named_whole(tmp_path: Path):
    """Outside the project a relative path would say nothing."""
    outside = tmp_path / "out"
    observer, _ = await observed(tmp_path / "project", outside)

    assert (await observer.write(observer.result())).reports["html"] == str(
        outside / "test_results.html"
    )


async def test_a_report_that_cannot_be_written_is_an_error(tmp_path: Path):
    """No run ends as if its reports were there."""
    observer, _ = await observed(tmp_path / "project", tmp_path / "out")
    (tmp_path / "out").rmdir()

    with pytest.raises(ArtifactError):
        await observer.write(observer.result())


async def test_the_trace_file_holds_the_runs_spans(tmp_path: Path):
    """Run, phase and command, each the parent of the next."""
    _, trace = await observed(tmp_path)
    found = json.loads(trace.read_bytes())["resourceSpans"][0]["scopeSpans"][0]["spans"]

    assert [span["name"] for span in found] == ["RUN shop", "phase test", "command test#1"]
    assert [span.get("parentSpanId") for span in found] == [
        None,
        found[0]["spanId"],
        found[1]["spanId"],
    ]


async def test_reports_can_be_made_again_from_the_log(tmp_path: Path):
    """From the same events come the same reports."""
    result = fold(shop())
    reporter.write_reports(result, [open_folder(tmp_path / "a")])
    reporter.write_reports(fold(shop()), [open_folder(tmp_path / "b")])

    for path in reporter.report_paths(tmp_path / "a").values():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
