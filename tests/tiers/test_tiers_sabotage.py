"""Controls of environments without namespaces, switched off one by one:
a canary has to notice each.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from cleanroom.backends.embedded import keeper_process, tier_hostns
from support import sabotage
from support.tiers_harness import hostns_environment

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
KEEPER = {
    "no scopes": sabotage.no_scopes,
    "the host's loopback open": sabotage.host_loopback_open,
    "nothing of /proc withheld": sabotage.proc_not_withheld,
    "metadata not looked at": sabotage.metadata_not_judged,
    "others not looked at": sabotage.other_processes_not_judged,
    "nothing recorded": sabotage.nothing_recorded,
}


@pytest.mark.parametrize("name", NOTICED)
async def test_a_control_that_is_switched_off_is_noticed(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    """The canaries of just that control fail; without sabotage none does."""
    if name:
        program = keeper_process.PROGRAM.replace("main()", f"{sabotage.code(KEEPER[name])}; main()")
        monkeypatch.setattr(keeper_process, "PROGRAM", program)
    async with hostns_environment(project, tmp_path) as place:
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
    honest = tier_hostns.spec_hostns.describe
    monkeypatch.setattr(
        tier_hostns.spec_hostns, "describe", lambda *given, **_: honest(*given, landlock=False)
    )
    async with hostns_environment(project, tmp_path) as place:
        failed = {
            canary.name for canary in await place.environment.prove() if canary.result == "failed"
        }
    assert {"secret of the home folder"} <= failed
