"""Canaries in a cage, and that each missing control is noticed."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from cleanroom.sandbox.kernel import cgroups
from cleanroom.sandbox.protocol import AllowlistExpectations, CanaryResult, Expectations
from cleanroom.sandbox.selftest import canaries, limit_canaries
from cleanroom.sandbox.selftest.canary import judge, verdict
from support.sandbox_harness import attack

pytestmark = pytest.mark.sandbox


@pytest.fixture
def expectations(tmp_path: Path) -> Iterator[Expectations]:
    """Decoys in a folder that the cage hides."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "secret").write_text("x")
    with socket.socket(socket.AF_UNIX) as by_path, socket.socket(socket.AF_UNIX) as abstract:
        folder = os.open(hidden, os.O_PATH)
        by_path.bind(f"/proc/self/fd/{folder}/s")
        os.close(folder)
        by_path.listen()
        abstract.bind(f"\0cage-{os.getpid()}")
        abstract.listen()
        start = int(Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()[19])
        yield {
            "unix": f"{hidden}/s",
            "unix_private": True,
            "abstract": f"cage-{os.getpid()}",
            "secret": f"{hidden}/secret",
            "outside": ["/usr", "/etc"],
            "pid": os.getpid(),
            "start": start,
            "name": "unknown.canary.example",
            "temporary": "/tmp",
            "port": 0,
            "bare": False,
            "outer_filter": False,
            "allowlist": None,
            "host_network": None,
        }


def failures(judged: list[CanaryResult]) -> list[str]:
    return [row["name"] for row in judged if row["result"] == "failed"]


@pytest.mark.parametrize("proving", [True, False])
def test_all_pass_in_a_whole_cage(workspace: str, expectations: Expectations, proving: bool):
    """Every canary is refused and every claimed one recorded,
    by the kernel alone as by the recorder.
    """
    hidden = ("/root", "/run", str(Path(expectations["secret"]).parent))
    caught = attack(lambda _: canaries.run(expectations), workspace, hidden=hidden, proving=proving)
    judged = judge(caught.result, caught.attempts)
    assert failures(judged) == []
    assert len(judged) == len(canaries.CANARIES)
    assert set(judged[0]) == {"name", "dimension", "rule", "expected", "found", "result"}


def test_a_refusal_that_nobody_recorded_fails(workspace: str, expectations: Expectations):
    """Sabotage: without the recorder's evidence every canary that claims detection fails."""
    hidden = ("/root", "/run", str(Path(expectations["secret"]).parent))
    caught = attack(lambda _: canaries.run(expectations), workspace, hidden=hidden)
    claimed = [row["name"] for row in caught.result if row["seen"]]
    assert len(claimed) >= 12
    assert failures(judge(caught.result, [])) == claimed


def test_a_secret_that_is_there_fails(workspace: str, expectations: Expectations):
    """Sabotage: with the home folder visible the canary finds the secret and the socket outside is
    reachable.
    """
    for path in (Path(expectations["secret"]).parent, Path(expectations["secret"])):
        path.chmod(0o755)
    Path(expectations["unix"]).chmod(0o777)
    caught = attack(lambda _: canaries.run(expectations), workspace)
    assert "secret of the home folder" in failures(judge(caught.result, caught.attempts))


def test_a_folder_that_may_be_written_fails(workspace: str, expectations: Expectations):
    """Sabotage: a writable folder among those outside outweighs the refusals of the others,
    and nothing stays behind.
    """
    hidden = ("/root", "/run", str(Path(expectations["secret"]).parent))
    caught = attack(
        lambda _: canaries.run({**expectations, "outside": ["/usr", workspace]}),
        workspace,
        hidden=hidden,
    )
    assert "write outside" in failures(judge(caught.result, caught.attempts))
    assert not (Path(workspace) / "cleanroom-canary").exists()


def test_outside_a_cage_nearly_everything_fails(expectations: Expectations):
    """Sabotage of all: a child without any isolation passes none of the network and process
    canaries that need one.
    """
    import json

    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            harmless = [
                one
                for one in canaries.CANARIES
                if one.name
                in (
                    "abstract socket outside",
                    "secret of the home folder",
                    "see the engine",
                    "signal the engine",
                )
            ]
            os.write(
                write_end,
                json.dumps(
                    [
                        verdict(one, expectations, partial(one.attempt, expectations))
                        for one in harmless
                    ]
                ).encode(),
            )
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as file:
        results = json.loads(file.read())
    os.waitpid(pid, 0)
    assert failures(judge(results, [])) == [
        "abstract socket outside",
        "secret of the home folder",
        "see the engine",
        "signal the engine",
    ]


@pytest.fixture
def listed() -> Iterator[AllowlistExpectations]:
    """The allowlist's expectations, with a folder for what is written of this test alone."""
    with tempfile.TemporaryDirectory(dir="/tmp") as written:
        os.chmod(written, 0o777)  # the canaries may be another user
        yield {"unread": "/var/lib", "port": 47_800, "program": "/bin/sh", "written": written}


@pytest.mark.parametrize("proving", [True, False])
def test_those_of_high_pass_where_high_is_held(
    workspace: str,
    expectations: Expectations,
    listed: AllowlistExpectations,
    proving: bool,
):
    """Reads, programs and ports outside the list are refused and recorded,
    and what is listed works.
    """
    hidden = ("/root", "/run", "/var", str(Path(expectations["secret"]).parent))
    caught = attack(
        lambda _: canaries.run({**expectations, "allowlist": listed}),
        workspace,
        hidden=hidden,
        proving=proving,
        listed=True,
    )
    judged = judge(caught.result, caught.attempts)
    assert failures(judged) == []
    assert len(judged) == len(canaries.CANARIES) + len(canaries.ALLOWLIST)


def test_those_of_high_fail_where_only_medium_is_held(
    workspace: str, expectations: Expectations, listed: AllowlistExpectations
):
    """Sabotage: without the list each of them notices, and only the controls pass."""
    caught = attack(
        lambda _: canaries.run({**expectations, "allowlist": {**listed, "unread": "/usr/lib"}}),
        workspace,
    )
    failed = failures(judge(caught.result, caught.attempts))
    assert [one.name for one in canaries.ALLOWLIST if one.name not in failed] == [
        one.name for one in canaries.ALLOWLIST if not one.expected
    ]


def test_a_port_that_nobody_recorded_fails(
    workspace: str, expectations: Expectations, listed: AllowlistExpectations
):
    """Sabotage: a refusal at High without its record proves no detection."""
    hidden = ("/root", "/run", "/var", str(Path(expectations["secret"]).parent))
    caught = attack(
        lambda _: canaries.run({**expectations, "allowlist": listed}),
        workspace,
        hidden=hidden,
        listed=True,
    )
    assert {one.name for one in canaries.ALLOWLIST if one.expected} <= set(
        failures(judge(caught.result, []))
    )


def test_a_proof_of_the_limits_that_comes_to_no_end_has_proven_nothing(monkeypatch):
    """Its process is killed: the result is a failure, and not an empty list that nobody misses."""
    monkeypatch.setattr(
        limit_canaries, "prove_group", lambda group: os.kill(os.getpid(), signal.SIGKILL)
    )

    (only,) = limit_canaries.GroupProof(cgroups.Group(0, {})).results()

    assert only["result"] == "failed"
