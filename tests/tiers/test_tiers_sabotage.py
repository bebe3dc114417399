"""Controls of environments without namespaces, switched off one by one:
a canary has to notice each.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from cleanroom.backends.embedded import keeper_process, tiers
from support.tiers_harness import bare

pytestmark = [pytest.mark.lower, pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")]

NOTICED = {
    "": set(),
    # root's environments are other users
    "no scopes": {"abstract socket outside"} | ({"signal the engine"} if os.geteuid() else set()),
    "the host's loopback open": {"port of the host's loopback", "unix socket outside"},
    "nothing of /proc withheld": {"see the engine"},
    "metadata not looked at": {"chmod outside", "mode of an open file outside"},
    "others not looked at": {"limits of the engine"},
    "nothing recorded": {"tcp", "write outside", "packet socket"},
}
BEFORE = {
    "": "",
    "no scopes": (
        "from cleanroom.sandbox.kernel import landlock; landlock._SCOPES = 0; from "
        "cleanroom.sandbox.network import host_network as reach; reach.unix = lambda *a, **k: "
        "reach.Decision(); "
    ),
    "the host's loopback open": (
        "from cleanroom.sandbox.network import host_network as reach; honest = "
        "reach.outgoing; reach.unix = lambda *a, **k: reach.Decision(); "
        "reach.outgoing = lambda w, k, a, p, **o: reach.Decision() if a[:1] == b'\\x7f' and "
        "p != 53 else honest(w, k, a, p, **o); "
    ),
    "nothing of /proc withheld": (
        "from cleanroom.sandbox.kernel import process_tree as tree; tree.within = lambda pid, "
        "root: True; "
    ),
    "metadata not looked at": (
        "from cleanroom.sandbox.seccomp_notify import metadata as m; m.Metadata.judge = "
        "lambda self, call: m.Response(0); "
    ),
    "others not looked at": (
        "from cleanroom.sandbox.seccomp_notify import processes_hostns as b; "
        "b.HostnsProcesses._judge_other = lambda self, call: None; "
    ),
    "nothing recorded": (
        "from cleanroom.sandbox.processes import warden; warden.Warden._report_attempt = "
        "lambda self, attempt: None; "
    ),
}


@pytest.mark.parametrize("name", NOTICED)
async def test_a_control_that_is_switched_off_is_noticed(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    """The canaries of just that control fail; without sabotage none does."""
    monkeypatch.setattr(
        keeper_process, "PROGRAM", keeper_process.PROGRAM.replace("main()", f"{BEFORE[name]}main()")
    )
    async with bare(project, tmp_path) as place:
        failed = {
            canary.name: canary.found
            for canary in await place.environment.prove()
            if canary.result == "failed"
        }
    assert NOTICED[name] <= failed.keys(), failed
    assert name or not failed


async def test_an_environment_without_landlock_is_noticed(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Files outside are then read and written, but for what file modes refuse to its user."""
    honest = tiers.spec_hostns.describe
    monkeypatch.setattr(
        tiers.spec_hostns, "describe", lambda *given, **_: honest(*given, landlock=False)
    )
    async with bare(project, tmp_path) as place:
        failed = {
            canary.name for canary in await place.environment.prove() if canary.result == "failed"
        }
    assert {"secret of the home folder"} <= failed
