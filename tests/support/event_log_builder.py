"""Event logs told by hand: what a run would have published, with times and ids that a test owns."""

from __future__ import annotations

from typing import Any

from cleanroom.model.capability import CapabilityReport, DimensionReport, Process, Target
from cleanroom.model.events import (
    Artifact,
    Assertion,
    Capability,
    Envelope,
    Event,
    Finished,
    Ledger,
    Metric,
    Note,
    Output,
    Recovery,
    Started,
    Subject,
    Violation,
)
from cleanroom.model.policy import DIMENSIONS

ORIGIN_NS = 1_764_000_000_000_000_000
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
RUN = Subject("run", "shop")


class EventLogBuilder:
    """Collects envelopes.

    `at` moves the time, `start` and `finish` open and close spans, `tell` publishes a fact.
    """

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.now = 0.0
        self._parents: dict[str, str] = {}
        self._subjects: dict[str, Subject] = {}
        self._began: dict[str, float] = {}

    def at(self, seconds: float) -> EventLogBuilder:
        assert seconds >= self.now
        self.now = seconds
        return self

    def start(self, subject: Subject, parent: str = "", **attributes: Any) -> str:
        span = f"{len(self._parents) + 1:016x}"
        self._parents[span], self._subjects[span], self._began[span] = parent, subject, self.now
        self._publish(Started(subject=subject, attributes=attributes), span)
        return span

    def finish(self, span: str, result: Any = "passed", **fields: Any) -> None:
        self._publish(
            Finished(
                subject=self._subjects[span],
                result=result,
                duration_seconds=round(self.now - self._began[span], 6),
                **fields,
            ),
            span,
        )

    def tell(self, event: Event, span: str = "") -> None:
        self._publish(event, span)

    def _publish(self, event: Event, span: str) -> None:
        nanoseconds = round(self.now * 1e9)
        self.envelopes.append(
            Envelope(
                seq=len(self.envelopes) + 1,
                run_id="20261124-023501-k3f9x",
                time_unix_ns=ORIGIN_NS + nanoseconds,
                monotonic_ns=5_000_000_000 + nanoseconds,
                trace_id=TRACE,
                span_id=span,
                parent=self._parents.get(span, ""),
                event=event,  # type: ignore[arg-type]
            )
        )


def capability() -> Capability:
    """What an embedded backend says where everything is there."""
    rows = tuple(
        DimensionReport(
            dimension=dimension,
            enforced="yes",
            detected="yes" if dimension != "resource" else "partial",
            attributed="yes" if dimension != "resource" else "partial",
            mechanism=mechanism,
            evidence=f"{dimension}: probed",
            completeness="exact",
        )
        for dimension, mechanism in zip(
            DIMENSIONS,
            ("network namespace, held calls", "overlay, Landlock", "PID namespace", "cgroup"),
            strict=True,
        )
    )
    return Capability(
        subject=RUN, report=CapabilityReport(backend="embedded", tier="E1", dimensions=rows)
    )


def egress(
    phase: str,
    *,
    count: int = 1,
    host: str = "example.org",
    severity: Any = "violation",
    pid: int = 4711,
) -> Violation:
    """A refused connection, attributed."""
    return Violation(
        subject=Subject("phase", phase),
        environment=f"{phase}-1",
        dimension="network",
        rule="network.egress",
        severity=severity,
        outcome="blocked",
        mechanism="seccomp_notify",
        certainty="held_syscall",
        confidence="observed",
        target=Target(host=host, port=443, proto="tcp"),
        process=Process(
            pid=pid, ns_pid=7, exe="/usr/bin/curl", comm="curl", argv=("curl", f"https://{host}/")
        ),
        syscall="connect",
        errno="EPERM",
        count=count,
    )


def canary(
    name: str, dimension: str, rule: str, environment: str, passed: bool = True
) -> Assertion:
    return Assertion(
        subject=Subject("canary", name),
        name=name,
        passed=passed,
        expected="refused",
        found="EPERM, attributed" if passed else "it worked",
        dimension=dimension,
        rule=rule,
        environment=environment,
    )


CANARIES = (
    ("connect-out", "network", "network.egress"),
    ("write-outside", "filesystem", "filesystem.write"),
    ("signal-outside", "process", "process.visibility"),
    ("fork-limit", "resource", "resource.pids"),
)


def metric(environment: str, cpu_seconds: float, memory_bytes: int) -> Metric:
    return Metric(
        subject=Subject("environment", environment),
        environment=environment,
        cpu_seconds=cpu_seconds,
        memory_bytes=memory_bytes,
        disk_bytes=0,
        network_bytes=0,
        processes=1,
        source="cgroup",
    )


def begin(story: EventLogBuilder, **attributes: Any) -> str:
    usual: dict[str, Any] = {
        "version": "0.1.0",
        "backend": "embedded",
        "tier": "E1",
        "policy": "Medium",
        "environment": "",
        "requested": "init,test,validate",
        "slo_seconds": 20.0,
        "seed": 42,
        "root": "/home/dev/shop",
        "degraded": "",
    }
    return story.start(RUN, **{**usual, **attributes})


def phase(
    story: EventLogBuilder, run: str, name: str, workspace: str = "", **attributes: Any
) -> str:
    usual: dict[str, Any] = {
        "hermetic": True,
        "role": "phase",
        "of": "",
        "policy": "Medium",
        "timeout_seconds": 600.0,
        "reaction": "fail",
        "log": f".ggen/cleanroom/runs/20261124-023501-k3f9x/logs/{name}.log",
    }
    return story.start(Subject("phase", name, workspace), run, **{**usual, **attributes})


def shop(*, failing: bool = True) -> list[Envelope]:
    """A whole run of an order service: two services, three phases;
    the second one connects out and fails, unless told otherwise.
    """
    story = EventLogBuilder()
    run = begin(story)
    story.at(0.02).tell(capability(), run)
    services = {
        name: story.at(0.03).start(
            Subject("service", name),
            run,
            version=version,
            kind=name,
            port=port,
            restarts_max=3,
            restart_window_seconds=60.0,
        )
        for name, version, port in (("postgres", "18.1", 5432), ("redis", "9.1", 6379))
    }
    readiness = {
        name: story.start(Subject("readiness", name), span) for name, span in services.items()
    }
    _phase(story, run, "init", 0.05, 0.4, lines=("created 4 tables\n",))
    story.at(0.45).finish(readiness["redis"])
    story.at(0.6).finish(readiness["postgres"])
    _test(story, run, failing)
    _last(story, run, services, failing)
    return story.envelopes


def _phase(
    story: EventLogBuilder,
    run: str,
    name: str,
    begins: float,
    ends: float,
    lines: tuple[str, ...] = (),
) -> None:
    span = phase(story.at(begins), run, name)
    inside = story.start(
        Subject("environment", f"{name}-1"), span, role="phase", of=name, memory_limit_bytes=2 << 30
    )
    for title, dimension, rule in CANARIES:
        story.tell(canary(title, dimension, rule, f"{name}-1"), inside)
    command = story.start(
        Subject("command", f"{name}#1"), inside, command=f"python3 -m shop.{name}"
    )
    for line in lines:
        story.tell(
            Output(subject=Subject("phase", name), stream="stdout", text=line, offset=0), command
        )
    story.at(ends).finish(command, exit_code=0)
    story.finish(inside)
    story.finish(span, exit_code=0)


def _test(story: EventLogBuilder, run: str, failing: bool) -> None:
    span = phase(story.at(0.65), run, "test", budget_seconds=6.0)
    inside = story.start(
        Subject("environment", "test-1"), span, role="phase", of="test", memory_limit_bytes=2 << 30
    )
    for title, dimension, rule in CANARIES:
        story.tell(canary(title, dimension, rule, "test-1"), inside)
    command = story.start(Subject("command", "test#1"), inside, command="pytest -q")
    for step in range(20):
        story.at(0.7 + step * 0.1).tell(
            metric("test-1", step * 0.08, (40 + step * 3) << 20), inside
        )
    if failing:
        story.tell(
            Output(
                subject=Subject("phase", "test"),
                stream="stdout",
                text="..F\nE  assert <b>total</b> == 3 & more\n1 failed\n",
                offset=0,
            ),
            command,
        )
        story.tell(egress("test"), inside)
        story.tell(egress("test", count=2), inside)
        story.tell(
            Recovery(
                subject=Subject("service", "redis"),
                action="restarted",
                cause="exited with status 1",
                attempt=1,
                delay_seconds=0.05,
            ),
            run,
        )
    story.at(2.8).finish(command, "failed" if failing else "passed", exit_code=1 if failing else 0)
    story.finish(inside)
    reason = "3 attempts against the policy, exit status 1" if failing else ""
    story.finish(
        span,
        "failed" if failing else "passed",
        exit_code=1 if failing else 0,
        reason=reason,
        code="CR-PHASE-005" if failing else "",
    )


def _last(story: EventLogBuilder, run: str, services: dict[str, str], failing: bool) -> None:
    if failing:
        story.tell(
            Finished(
                subject=Subject("phase", "validate"),
                result="skipped",
                duration_seconds=0.0,
                reason="test failed before it",
                attributes={"hermetic": True},
            ),
            run,
        )
    else:
        _phase(story, run, "validate", 2.85, 3.1)
    unwind = story.at(3.15).start(Subject("unwind", ""), run)
    for span in reversed(services.values()):
        story.at(round(story.now + 0.03, 3)).finish(span)
    story.finish(unwind)
    story.tell(Artifact(subject=RUN, path="src", role="changes", files=3, bytes=2048), run)
    story.tell(
        Note(subject=RUN, level="info", text="embedded: everything the policy needs is there"), run
    )
    story.tell(Ledger(subject=RUN, created=9, removed=9), run)
    reason = "phase test failed" if failing else ""
    story.at(3.3).finish(
        run, "failed" if failing else "passed", exit_code=1 if failing else 0, reason=reason
    )
