"""`trace`, and what a run says of its telemetry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cleanroom import engine
from cleanroom.cli.output import Output
from cleanroom.cli.views.waterfall import differences, duration, steps, waterfall
from cleanroom.evidence.tracing import spans
from cleanroom.evidence.tracing.reading import compare, critical_path, trees
from support.event_log_builder import shop
from support.otlp_collector import collecting, spans_of

MAKE = (
    '[project]\nname = "p"\n[lifecycle.test]\ncommand = "true"\ncleanroom.enabled = false\n'
    '[lifecycle.bad]\ncommand = "false"\ncleanroom.enabled = false\n'
)
NOWHERE = "http://user:hunter2@127.0.0.1:9"  # nobody listens on the discard port of a test machine


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "make.toml").write_text(MAKE)
    return root


def call(project: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("OTEL_")
    }
    environment |= {"CLEANROOM_CACHE": str(project.parent / "cache"), "NO_COLOR": "1", **variables}
    command = [sys.executable, "-m", "cleanroom", *arguments]
    return subprocess.run(
        command,
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize(("phase", "status"), [("test", 0), ("bad", 1)])
def test_a_collector_that_refuses_is_told_once_and_changes_nothing(
    project: Path, phase: str, status: int
) -> None:
    """The exit status is the run's own, the line to push it is there,
    the secret of the address is not.
    """
    pytest.importorskip(
        "opentelemetry.exporter.otlp.proto.http", reason="the extra otlp is not installed"
    )
    done = call(project, "pipeline", phase, OTEL_EXPORTER_OTLP_ENDPOINT=NOWHERE)
    (run,) = engine.list_runs(project)

    assert done.returncode == status
    assert done.stderr.count("CR-TRACE-004") == 2  # the message, and where it is explained
    assert f"cleanroom-engine trace {run} --push" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr + "".join(
        p.read_text(errors="replace") for p in (project / ".ggen").rglob("*.*") if p.is_file()
    )
    assert {span.name for span in engine.read_trace(project, run)[1]} >= {"RUN p", f"phase {phase}"}


def test_without_a_collector_nothing_is_said_of_one(project: Path):
    """Silence by default."""
    done = call(project, "pipeline", "test")

    assert "trace" not in done.stderr


def test_the_extra_that_is_not_there_is_named(project: Path):
    """A collector is asked for, its exporter is not installed:
    the run is as it was, and the hint installs it.
    """
    hidden = project.parent / "hidden"
    (hidden / "opentelemetry").mkdir(parents=True)
    (hidden / "opentelemetry" / "__init__.py").write_text("")
    done = call(
        project,
        "pipeline",
        "test",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
        PYTHONPATH=str(hidden),
    )

    assert done.returncode == 0
    assert "[otlp]'" in done.stderr


def test_a_trace_is_shown_as_a_waterfall(project: Path):
    """The newest run, one line per span, its id first."""
    call(project, "pipeline", "test")
    done = call(project, "trace")

    assert done.stdout.startswith(f"run {engine.list_runs(project)[-1]} · trace ")
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:4]] == [
        ["RUN", "p"],
        ["phase", "test"],
        ["command", "test#1"],
    ]


def test_a_trace_as_json_is_its_spans(project: Path):
    """For programs: the values of the file."""
    call(project, "pipeline", "test")
    found = json.loads(call(project, "trace", "--output", "json").stdout)

    assert [span["name"] for span in found] == [span.name for span in engine.read_trace(project)[1]]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--compare", "3"], 2, "no run before"),
        (["--push"], 2, "CR-TRACE-005"),
        (["nothing-like-it"], 2, "CR-HISTORY-001"),
        (["--open", "--critical-path"], 2, "exclude each other"),
        (["--compare", "nothing-like-it"], 2, "CR-HISTORY-001"),
    ],
)
def test_what_cannot_be_done_is_a_usage_error(
    project: Path, arguments: list[str], status: int, said: str
) -> None:
    """Exit 2, with what was expected."""
    call(project, "pipeline", "test")
    done = call(project, "trace", *arguments)

    assert (done.returncode, said in done.stderr) == (status, True)


def test_a_push_that_fails_ends_with_5_and_the_line_to_repeat(project: Path):
    """It was the only thing asked for."""
    pytest.importorskip(
        "opentelemetry.exporter.otlp.proto.http", reason="the extra otlp is not installed"
    )
    call(project, "pipeline", "test")
    done = call(project, "trace", "--push", "http://127.0.0.1:9")

    assert done.returncode == 5
    assert "refused" in done.stderr
    assert "--push http://127.0.0.1:9" in done.stderr


def test_a_run_is_pushed_once_to_each_collector(project: Path):
    """The second time nothing is sent and that is said, also after it was pushed elsewhere
    meanwhile.
    """
    pytest.importorskip(
        "opentelemetry.exporter.otlp.proto.http", reason="the extra otlp is not installed"
    )
    call(project, "pipeline", "test")
    with collecting() as one, collecting() as other:
        said = [call(project, "trace", "--push", to.endpoint) for to in (one, other, one)]

    assert [done.returncode for done in said] == [0, 0, 0], said
    assert [" sent before" in done.stdout for done in said] == [False, False, True]
    assert len(spans_of(one)) == len(spans_of(other)) == len(engine.read_trace(project)[1])


def test_a_push_sends_only_what_is_missing(project: Path):
    """Spans were taken and metrics were not: the next push does not send the spans again,
    and the one after it nothing.
    """
    pytest.importorskip(
        "opentelemetry.exporter.otlp.proto.http", reason="the extra otlp is not installed"
    )
    call(project, "pipeline", "bad")
    with collecting(statuses=[200, 500]) as collector:
        failed = call(project, "trace", "--push", collector.endpoint)
        collector.statuses = [200]
        rest, nothing = (call(project, "trace", "--push", collector.endpoint) for _ in range(2))
        paths = [path for path, _, _ in collector.requests]

    assert (failed.returncode, rest.returncode, nothing.returncode) == (5, 0, 0)
    assert paths == ["/v1/traces", "/v1/metrics", "/v1/metrics", "/v1/logs"]
    assert "sent before: " in nothing.stdout
    assert "span" in nothing.stdout


def test_a_damaged_trace_file_is_an_error_and_not_a_traceback(project: Path):
    """Whatever lies there: a file of the project that says where it is."""
    call(project, "pipeline", "test")
    (
        project / ".ggen" / "cleanroom" / "runs" / engine.list_runs(project)[-1] / "trace.otlp.json"
    ).write_text("{")
    done = call(project, "trace")

    assert (done.returncode, "CR-TRACE-001" in done.stderr, "Traceback" in done.stderr) == (
        2,
        True,
        False,
    )


def test_a_killed_runs_trace_is_made_of_its_events(project: Path):
    """No trace file was written, the events are there."""
    call(project, "pipeline", "test")
    (
        project / ".ggen" / "cleanroom" / "runs" / engine.list_runs(project)[-1] / "trace.otlp.json"
    ).unlink()

    assert "phase test" in call(project, "trace").stdout


def test_config_show_says_where_telemetry_goes_and_what_is_not_honoured(project: Path):
    """Every OTEL_* variable that is set is either in force or named as not supported;
    secrets are not shown.
    """
    done = call(
        project,
        "config",
        "show",
        OTEL_EXPORTER_OTLP_ENDPOINT=NOWHERE,
        OTEL_BSP_MAX_QUEUE_SIZE="9",
        OTEL_EXPORTER_OTLP_HEADERS="key=hunter2",
    )

    assert "http://127.0.0.1:9/v1/traces by http/protobuf" in done.stdout
    assert "OTEL_BSP_MAX_QUEUE_SIZE" in done.stdout
    assert "hunter2" not in done.stdout


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_of_a_waterfall_is_wider_than_the_terminal(width: int) -> None:
    """Bars shrink, names are cut; only the marks at the end may stand over."""
    lines = waterfall(trees(spans(shop())), Output("never"), width)

    assert len(lines) == len(spans(shop()))
    assert all(len(line.rstrip("✗ 0123456789atemps").rstrip()) <= max(width, 40) for line in lines)


def test_a_span_with_another_clock_leaves_the_scale_as_it_is():
    """Code under test may say that its span was in 1970:
    the bars of all others are as without it.
    """
    import msgspec

    alone = waterfall(trees(spans(shop())), Output("never"), 100)
    odd = msgspec.structs.replace(
        spans(shop())[-1], span_id="f" * 16, name="odd", start_ns=1, end_ns=2
    )
    with_it = waterfall(trees([*spans(shop()), odd]), Output("never"), 100)

    assert [line for line in with_it if "odd" not in line] == alone


def test_names_in_a_trace_cannot_forge_lines():
    """Spans of code under test carry any text."""
    import msgspec

    hostile = [
        msgspec.structs.replace(span, name="\x1b[2Jx\nphase y passed") for span in spans(shop())
    ]

    assert "\x1b" not in "".join(waterfall(trees(hostile), Output("never"), 80))
    assert "\x1b" not in "".join(steps(critical_path(trees(hostile)[0])))
    assert "\n" not in "".join(differences(compare(hostile, [spans(shop())])))


def test_runs_of_another_kind_are_left_out_and_said(project: Path):
    """Of so many runs before, those with the same backend, policy and phases count."""
    for phases in (("test",), ("test", "test"), ("test",), ("bad",), ("test",)):
        call(project, "pipeline", *phases, "--backend", "memory")
    done = call(project, "trace", "--compare", "2")

    assert done.returncode == 0, done.stderr
    assert "left out 2 runs of another kind, such as one with phases bad, here test" in done.stdout
    found = json.loads(call(project, "trace", "--compare", "2", "--output", "json").stdout)
    assert {row["runs"] for row in found if row["path"] == "RUN p"} == {2}


def test_a_run_of_another_kind_that_is_named_is_compared_and_called_nothing(project: Path):
    """The figures are there, the difference in kind is said, and nothing is slower or faster."""
    for backend in ("memory", "memory", "memory", "embedded"):
        call(project, "pipeline", "test", "--backend", backend)
    runs = engine.list_runs(project)
    named = [word for run in runs[:3] for word in ("--compare", run)]
    done = call(project, "trace", *named)

    assert done.stdout.count("is another kind of run (backend memory, here embedded") == 3
    found = json.loads(call(project, "trace", *named, "--output", "json").stdout)
    assert {row["verdict"] for row in found if row["runs"] == 3} == {"unknown"}


def test_without_a_run_of_its_kind_there_is_nothing_to_compare_with(project: Path):
    """Exit 2 says of what kind the others are."""
    for phase in ("bad", "test"):
        call(project, "pipeline", phase, "--backend", "memory")
    done = call(project, "trace", "--compare", "3")

    assert done.returncode == 2
    assert "no run before" in done.stderr
    assert "phases bad, here test" in done.stderr


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.345, "12.35 s"), (0.25, "250 ms"), (0.0042, "4.2 ms")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    """Three figures are enough."""
    assert duration(seconds) == text


def test_steps_say_what_could_be_gained():
    """Longest first, with its share."""
    lines = steps(critical_path(trees(spans(shop()))[0]))

    assert lines[1].split()[:3] == ["2.15", "s", "65.2%"]
