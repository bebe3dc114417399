"""The audit log: nothing of it can change unnoticed, and a killed engine leaves a log that
continues.
"""

from __future__ import annotations

import json
import threading
from hashlib import sha256
from pathlib import Path
from typing import get_args

import anyio
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cleanroom.core.bus import Bus
from cleanroom.core.clock import SystemClock
from cleanroom.core.locks import locked
from cleanroom.evidence.audit import log as audit_log
from cleanroom.evidence.audit.chain import Head, decode_head, encode_head, read_link
from cleanroom.model.capability import CapabilityReport, Process, Target
from cleanroom.model.errors import ArtifactError
from cleanroom.model.events import (
    AnyEvent,
    Artifact,
    Assertion,
    Attached,
    Capability,
    Envelope,
    Finished,
    Ledger,
    Metric,
    Note,
    Output,
    Recovery,
    Spans,
    Started,
    Subject,
    Violation,
)
from cleanroom.subscribers import audit
from support.open_folders import open_folder

GENESIS = audit_log.Genesis(plan_sha256="a" * 64, policy_sha256="b" * 64, engine_version="0.1.0")
PHASE = Subject("phase", "test")
EVENTS = (
    Started(subject=PHASE, attributes={"role": "phase"}),
    Output(subject=PHASE, stream="stdout", text="hällo\n", offset=0),
    Metric(
        subject=Subject("environment", "e"),
        environment="e",
        cpu_seconds=1.5,
        memory_bytes=1,
        disk_bytes=2,
        network_bytes=3,
        processes=4,
        source="m",
    ),
    Note(subject=Subject("run", "shop", "é"), level="info", text='quote " and \\ back'),
    Violation(
        subject=PHASE,
        environment="e",
        dimension="network",
        rule="network.egress",
        severity="violation",
        outcome="blocked",
        mechanism="m",
        certainty="packet",
        confidence="kernel",
        target=Target(host="example.org", port=443),
        process=Process(pid=1, argv=("a", "b")),
    ),
    Assertion(subject=Subject("canary", "connect"), name="connect", passed=True),
    Recovery(subject=Subject("service", "db"), action="restarted", cause="exit 1"),
    Artifact(subject=Subject("run", ""), path="a", role="log"),
    Capability(
        subject=Subject("run", ""),
        report=CapabilityReport(backend="memory", tier="M", dimensions=()),
    ),
    Attached(
        subject=Subject("service", "postgres"),
        holder="session",
        holder_id="session-1-2",
        version="18.6",
        trace_id="a" * 32,
        span_id="b" * 16,
    ),
    Ledger(subject=Subject("run", ""), created=1, removed=1),
    Spans(subject=PHASE, count=1, resource_spans=({"scopeSpans": []},)),
    Finished(subject=PHASE, result="passed", duration_seconds=0.5),
)


def envelopes(events=EVENTS, run_id: str = "run-1"):
    return [
        Envelope(seq, run_id, 1_800_000_000_000_000_000 + seq, seq, "", "", "", event)
        for seq, event in enumerate(events, 1)
    ]


def write(folder: Path, run_id: str = "run-1", *, close: bool = True) -> audit_log.AuditLog:
    log = audit_log.AuditLog(open_folder(folder), run_id, GENESIS, SystemClock())
    log.open()
    log.append(envelopes(run_id=run_id))
    if close:
        log.close()
    return log


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> tuple[bytes, bytes]:
    """The bytes of the log and head of two whole runs."""
    folder = tmp_path_factory.mktemp("audit")
    write(folder, "run-1")
    write(folder, "run-2")
    return (folder / "audit.jsonl").read_bytes(), (folder / "audit.head").read_bytes()


def laid_out(folder: Path, log: bytes, head: bytes | None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "audit.jsonl").write_bytes(log)
    if head is None:
        (folder / "audit.head").unlink(missing_ok=True)
    else:
        (folder / "audit.head").write_bytes(head)
    return folder


def kinds(folder: Path) -> list[str]:
    return [record["kind"] for record in audit_log.records(open_folder(folder))]


def test_one_chain_goes_through_all_runs(tmp_path, good):
    """Records are numbered from 1 across runs, and both runs verify as one log whose head is at its
    end.
    """
    found = audit_log.verify(open_folder(laid_out(tmp_path / "a", *good)))

    assert (found.valid, found.problems, found.torn) == (True, (), False)
    assert [record["seq"] for record in audit_log.records(open_folder(tmp_path / "a"))] == list(
        range(1, found.records + 1)
    )
    assert found.head is not None
    assert (found.head.bytes, found.head.seq) == (len(good[0]), found.records)


def test_a_run_is_framed_by_genesis_checkpoints_and_close(tmp_path):
    """The first record binds the digests, a checkpoint follows the phase's end,
    the last tells the count.
    """
    log = write(tmp_path)
    written = list(audit_log.records(open_folder(tmp_path)))

    assert [record["kind"] for record in written] == [
        "genesis",
        *(str(type(event).__struct_config__.tag) for event in EVENTS),
        "checkpoint",
        "checkpoint",
        "close",
    ]
    assert written[0]["body"] == msgspec.structs.asdict(GENESIS)
    assert written[-3]["body"] == {"phase": "test", "count": len(EVENTS) + 1}
    assert written[-1]["body"] == {"count": len(EVENTS) + 3}
    assert log.head.hash == written[-1]["hash"]


def test_bodies_are_the_events_and_output_is_a_digest(tmp_path):
    """For every kind a body has every field of its event but kind and subject;
    what a phase's programs fill (output, spans) is a digest.
    """
    write(tmp_path)
    written = list(audit_log.records(open_folder(tmp_path)))[1:-3]

    assert {type(event) for event in EVENTS} == set(get_args(AnyEvent))
    for record, event in zip(written, EVENTS, strict=True):
        expected = msgspec.to_builtins(event)
        assert record["kind"] == expected.pop("kind")
        assert record["subject"] == expected.pop("subject")
        if isinstance(event, Output):
            text = event.text.encode()
            expected = {
                "stream": "stdout",
                "offset": 0,
                "cut": False,
                "bytes": len(text),
                "sha256": sha256(text).hexdigest(),
            }
        if isinstance(event, Spans):
            data = msgspec.json.encode(event.resource_spans)
            expected = {"count": 1, "bytes": len(data), "sha256": sha256(data).hexdigest()}
        assert record["body"] == json.loads(json.dumps(expected))


def test_a_record_can_be_checked_by_hand(tmp_path):
    """The hash is the SHA-256 of the line without its last 76 bytes,
    and prev is the hash of the line before.
    """
    write(tmp_path)
    lines = (tmp_path / "audit.jsonl").read_bytes().splitlines(keepends=True)

    assert all(json.loads(line)["hash"] == sha256(line[:-76]).hexdigest() for line in lines)
    assert [json.loads(line)["prev"] for line in lines] == [
        "0" * 64,
        *(json.loads(line)["hash"] for line in lines[:-1]),
    ]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_every_change_of_the_log_is_found(tmp_path, good, data):
    """A flipped bit, a dropped, swapped, doubled or inserted line and a cut tail are each found and
    named, and nothing is repaired.
    """
    log, head = good
    lines = log.splitlines(keepends=True)
    how = data.draw(
        st.sampled_from(("flip", "drop", "swap", "double", "insert", "cut", "cut_bytes"))
    )
    at = data.draw(st.integers(0, len(lines) - 1))
    byte = data.draw(st.integers(0, len(log) - 1))
    changed = {
        "flip": log[:byte]
        + bytes([log[byte] ^ (1 << data.draw(st.integers(0, 7)))])
        + log[byte + 1 :],
        "drop": b"".join(lines[:at] + lines[at + 1 :]),
        "swap": b"".join([*lines[:at], *reversed(lines[at : at + 2]), *lines[at + 2 :]]),
        "double": b"".join([*lines[: at + 1], *lines[at:]]),
        "insert": b"".join([*lines[:at], b'{"seq": 1, "kind": "output"}\n', *lines[at:]]),
        "cut": b"".join(lines[:at]),
        "cut_bytes": log[:byte],
    }[how]
    if changed == log:
        return
    found = audit_log.verify(open_folder(laid_out(tmp_path / "a", changed, head)))

    assert not found.valid
    assert found.problems
    assert (tmp_path / "a" / "audit.jsonl").read_bytes() == changed


def test_a_line_added_at_the_end_is_found(tmp_path, good):
    """A whole line beyond the head that is not chained is a problem, not a torn tail."""
    found = audit_log.verify(
        open_folder(laid_out(tmp_path / "a", good[0] + b'{"seq": 1}\n', good[1]))
    )

    assert not found.valid


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at=st.integers(0), bit=st.integers(0, 7))
def test_every_change_of_the_head_is_found(tmp_path, good, at, bit):
    """No bit of the head can flip unnoticed, and the head may be neither missing nor empty."""
    log, head = good
    at %= len(head)
    flipped = head[:at] + bytes([head[at] ^ (1 << bit)]) + head[at + 1 :]

    assert not audit_log.verify(open_folder(laid_out(tmp_path / "a", log, flipped))).valid
    assert not audit_log.verify(open_folder(laid_out(tmp_path / "a", log, b""))).valid
    assert not audit_log.verify(open_folder(laid_out(tmp_path / "a", log, None))).valid


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda lines: [*lines[:3], *lines[4:]], [(5, 4)]),
        (lambda lines: [*lines[:3], lines[3].replace(b"metric", b"motric"), *lines[4:]], [(4, 4)]),
        (lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]], [(5, 4), (4, 5)]),
        (lambda lines: [*lines[:4], lines[3], *lines[4:]], [(4, 5)]),
        (lambda lines: [*lines[:4], b"{}\n", *lines[4:]], [(5, 5)]),
    ],
    ids=["missing", "changed", "reordered", "duplicated", "inserted"],
)
def test_the_changed_record_is_named(tmp_path, good, edit, named):
    """The problems name record and line of the change, and none of the sound records after it."""
    lines = good[0].splitlines(keepends=True)
    found = audit_log.verify(open_folder(laid_out(tmp_path / "a", b"".join(edit(lines)), good[1])))

    assert [(problem.seq, problem.line) for problem in found.problems if problem.line] == named


def test_records_chained_beyond_the_head_are_valid_and_adopted(tmp_path, good):
    """After a kill between log and head the log verifies, and the next run continues it without
    loss.
    """
    log, _ = good
    lines = log.splitlines(keepends=True)
    behind = read_link(lines[3])
    assert behind is not None
    head = Head(sum(map(len, lines[:4])), behind.seq, behind.hash)
    laid_out(tmp_path / "a", log, encode_head(head))

    assert audit_log.verify(open_folder(tmp_path / "a")).valid
    write(tmp_path / "a", "run-3")
    assert audit_log.verify(open_folder(tmp_path / "a")).valid
    assert (tmp_path / "a" / "audit.jsonl").read_bytes().startswith(log)
    assert "recovered" not in kinds(tmp_path / "a")


@pytest.mark.parametrize("torn", [b"{", b'{"seq":99,"run_id"', b"\0\0\0", b'{"seq": 1}\n'])
def test_a_torn_tail_is_cut_off_and_recorded(tmp_path, good, torn):
    """What a killed engine left beyond the head is cut off when the log is opened,
    and a record tells how many bytes were lost.
    """
    laid_out(tmp_path / "a", good[0] + torn, good[1])
    if not torn.endswith(b"\n"):
        found = audit_log.verify(open_folder(tmp_path / "a"))
        assert (found.valid, found.torn) == (True, True)
    write(tmp_path / "a", "run-3")
    recovered = [
        record
        for record in audit_log.records(open_folder(tmp_path / "a"))
        if record["kind"] == "recovered"
    ]

    assert audit_log.verify(open_folder(tmp_path / "a")).valid
    assert [record["body"]["bytes_lost"] for record in recovered] == [len(torn)]


@pytest.mark.parametrize("change", ["cut", "head_gone", "head_changed", "last_record"])
def test_a_log_that_does_not_match_its_head_is_not_written(tmp_path, good, change):
    """Opening such a log is refused, and neither file is touched."""
    log, head = good
    changed = {
        "cut": (log[:-10], head),
        "head_gone": (log, None),
        "head_changed": (log, head.replace(b'"seq":', b'"seq": ')),
        "last_record": (log[:-80] + b"x" + log[-79:], head),
    }[change]
    laid_out(tmp_path / "a", *changed)

    with pytest.raises(ArtifactError) as refused:
        audit_log.AuditLog(open_folder(tmp_path / "a"), "run-3", GENESIS, SystemClock()).open()
    assert refused.value.code == "CR-AUDIT-001"
    assert (tmp_path / "a" / "audit.jsonl").read_bytes() == changed[0]


def test_a_log_that_another_process_keeps_locked_is_not_waited_for_forever(tmp_path, monkeypatch):
    """A stopped engine holds it: the run that needs it says so, and writes nothing."""
    monkeypatch.setattr(audit_log, "LOCK_SECONDS", 0.01)
    log = audit_log.AuditLog(open_folder(tmp_path / "a"), "run-3", GENESIS, SystemClock())
    with (
        locked(open_folder(tmp_path / "a"), audit_log.LOCK_NAME, seconds=1),
        pytest.raises(ArtifactError) as refused,
    ):
        log.open()
    assert refused.value.code == "CR-AUDIT-002"
    assert not (tmp_path / "a" / "audit.jsonl").exists()


def test_engines_that_run_at_once_share_one_chain(tmp_path):
    """Batches of several writers interleave into one valid chain in which each run finds all its
    records.
    """

    def one(number: int) -> None:
        log = audit_log.AuditLog(open_folder(tmp_path), f"run-{number}", GENESIS, SystemClock())
        log.open()
        for _ in range(5):
            log.append(envelopes(run_id=f"run-{number}"))
        log.close()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert audit_log.verify(open_folder(tmp_path)).valid
    assert [
        len(list(audit_log.records(open_folder(tmp_path), f"run-{number}"))) for number in range(4)
    ] == [1 + 5 * (len(EVENTS) + 1) + 2] * 4


@given(
    st.integers(0, 1 << 60),
    st.integers(0, 1 << 60),
    st.text("0123456789abcdef", min_size=64, max_size=64),
)
def test_the_head_decodes_to_what_was_encoded(size, seq, digest):
    """`decode_head` is the inverse of `encode_head`."""
    assert decode_head(encode_head(Head(size, seq, digest))) == Head(size, seq, digest)


async def test_the_loop_writes_all_that_was_published(tmp_path):
    """Everything published before the bus closed is in the log when the task has ended,
    and the log is closed.
    """
    bus = Bus("run-1", SystemClock())
    log = audit_log.AuditLog(open_folder(tmp_path), bus.run_id, GENESIS, bus.clock)
    log.open()
    inbox = bus.subscribe("audit", limit=audit.LIMIT)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(audit.run, inbox, log)
        for event in EVENTS * 3:
            bus.publish(event)
        bus.close()

    assert audit_log.verify(open_folder(tmp_path)).head == log.head
    assert kinds(tmp_path)[-1] == "close"
    assert (
        sum("event" in record for record in audit_log.records(open_folder(tmp_path)))
        == len(EVENTS) * 3
    )
