"""Whether the evidence of an earlier run is complete and confirms that a phase passed.

Everything blocks.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, NamedTuple

import msgspec

from cleanroom.core.beneath import Folder
from cleanroom.engine.own_folder import AUDIT, RUNS
from cleanroom.evidence.audit.chain import verify
from cleanroom.evidence.audit.log import records
from cleanroom.evidence.reports.render import FILES
from cleanroom.evidence.reports.result import RunResult
from cleanroom.model.events import Event, Finished, Subject, decode
from cleanroom.subscribers.reporter import EVENTS_FILE

KEY, OUTPUTS = "cache_key", "cache_outputs"  # attributes of a phase's end
_CLOSE = "close"
_TRUSTED_OUTCOMES = (
    "passed",
    "failed",
    "timeout",
)  # outcomes of a run whose own machinery held to its end


class _AuditRecord(msgspec.Struct):
    """The fields of an audit record that are needed here."""

    seq: int
    hash: str
    kind: str
    run_id: str
    subject: Subject
    body: dict[str, Any]


class Claim(NamedTuple):
    """A claim: this phase passed in this run, with these attributes at its end."""

    run_id: str
    phase: str
    workspace: str
    attributes: dict[str, str]

    def matches(self, event: Finished) -> bool:
        passed = (event.subject.kind, event.subject.name, event.subject.workspace, event.result)
        return (
            passed == ("phase", self.phase, self.workspace, "passed")
            and self.attributes.items() <= event.attributes.items()
        )


class Evidence:
    """The evidence that a project keeps. The audit log is read once."""

    def __init__(self, root: Folder) -> None:
        """`root` is the project's folder."""
        self._root = root
        self._audit_fault: str | None = None
        self._records: dict[str, list[_AuditRecord]] = {}

    def missing(self, claim: Claim) -> str:
        """The evidence that is missing for the claim, as text; empty where it is confirmed."""
        run_id = claim.run_id
        result = self._result(run_id)
        if result is None:
            return f"the report of run {run_id} is gone"
        if result.degraded or result.outcome not in _TRUSTED_OUTCOMES or result.ledger.left:
            return f"run {run_id} ended in {'degradation' if result.degraded else result.outcome}"
        if not any(
            (row.name, row.workspace, row.result) == (claim.phase, claim.workspace, "passed")
            for row in result.phases
        ):
            return f"the report of run {run_id} does not say that it passed"
        if fault := self._check_audit():
            return fault
        records_of_run = self._records.get(run_id, [])
        if not any(
            claim.matches(_finished(record)) for record in records_of_run if record.kind != _CLOSE
        ):
            return f"the audit log has no record of run {run_id} for it"
        head = result.audit_head
        if not any(
            (record.seq, record.hash) == (head.get("seq"), head.get("hash"))
            for record in records_of_run
            if record.kind == _CLOSE
        ):
            return f"the report of run {run_id} is not what the audit log closed with"
        return (
            "" if self._events_confirm(claim) else f"the events of run {run_id} are gone or changed"
        )

    def _result(self, run_id: str) -> RunResult | None:
        try:
            with self._root.reading(_path(run_id, FILES["json"])) as file:
                return msgspec.json.decode(file.read(), type=RunResult)
        except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
            return None

    def _check_audit(self) -> str:
        """A fault of the audit log, as text; empty where it has none.

        Every byte is checked, once.
        """
        if self._audit_fault is None:
            try:
                with self._root.folder(AUDIT) as folder:
                    self._audit_fault = self._read(folder)
            except OSError as error:
                self._audit_fault = f"the audit log cannot be read: {error.strerror}"
            except (msgspec.MsgspecError, AttributeError, KeyError, RecursionError):
                self._audit_fault = "the audit log has records that are not ours"
        return self._audit_fault

    def _read(self, folder: Folder) -> str:
        found = verify(folder)
        if not (found.valid and found.records):
            return "the audit log does not verify"
        for record in records(folder):
            of_phase = (
                record.get("kind") == "finished"
                and record.get("subject", {}).get("kind") == "phase"
            )
            if record.get("kind") == _CLOSE or of_phase:
                self._records.setdefault(record["run_id"], []).append(
                    msgspec.convert(record, _AuditRecord)
                )
        return ""

    def _events_confirm(self, claim: Claim) -> bool:
        """Whether the run's events have the phase's end. Only lines with the key are decoded."""
        key = claim.attributes[KEY].encode()
        try:
            with self._root.reading(_path(claim.run_id, EVENTS_FILE)) as file:
                found: list[Event] = [decode(line).event for line in file if key in line]
        except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
            return False
        return any(isinstance(event, Finished) and claim.matches(event) for event in found)


def _path(run_id: str, name: str) -> str:
    return f"{RUNS}/{PurePath(run_id).name}/{name}"


def _finished(record: _AuditRecord) -> Finished:
    """The event of a record.

    Raises:
        msgspec.ValidationError: it is no record of a Finished.
    """
    return msgspec.convert(
        {**record.body, "kind": "finished", "subject": msgspec.to_builtins(record.subject)},
        Finished,
    )
