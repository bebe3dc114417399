"""Controls switched off one by one: a canary has to notice each.

A proof that cannot fail proves nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cleanroom.backends.embedded import keeper_process, tiers
from cleanroom.model.errors import EnvironmentFailed
from cleanroom.model.policy import Level
from cleanroom.sandbox.filesystem import mount_ops
from cleanroom.sandbox.protocol import SandboxSpec
from support import sabotage
from support.embedded_harness import BARE, Entered, Phase
from support.paths import SOURCE, TESTS

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]


def nothing_held(spec: SandboxSpec) -> None:
    spec["notify"] = False


def writable_etc(spec: SandboxSpec) -> None:
    """/etc as a folder of the environment's own."""
    files = spec["filesystem"]
    kept = [mount for mount in files["mounts"] if not mount["target"].startswith("/etc")]
    files["mounts"] = [*kept, mount_ops.tmpfs("/etc", size=1 << 20, mode=0o1777, exec=True)]
    files["writable"].append("/etc")


def closed_tmp(spec: SandboxSpec) -> None:
    for mount in spec["filesystem"]["mounts"]:
        if mount["kind"] == "tmpfs" and mount["target"] == "/tmp":
            mount["read_only"] = True


def shown_secrets(spec: SandboxSpec) -> None:
    """The engine's own folder, where the secret and the socket are planted,
    is mounted at its path.
    """
    files = spec["filesystem"]
    scratch = str(Path(files["root"]).parents[1])
    os.chmod(scratch, 0o777)
    files["mounts"].append(mount_ops.bind(scratch, scratch, writable=True))
    files["writable"].append(scratch)


def described_wrongly(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[SandboxSpec], None]
) -> None:
    """Let the engine describe every environment with this change."""
    honest = tiers.describe

    def describe(*given: Any, **named: Any) -> SandboxSpec:
        spec = honest(*given, **named)
        change(spec)
        return spec

    monkeypatch.setattr(tiers, "describe", describe)


@pytest.mark.parametrize(
    ("change", "noticed"),
    [
        (nothing_held, {"tcp", "udp", "write outside", "mount"}),
        (
            writable_etc,
            {"write outside", "chmod outside"}
            - ({"chmod outside"} if os.geteuid() == 0 else set()),
        ),
        (closed_tmp, {"control: /tmp is written"}),
        (shown_secrets, {"secret of the home folder", "unix socket outside"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_a_description_without_a_control_is_noticed(
    entered: Entered,
    phase: Phase,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[SandboxSpec], None],
    noticed: set[str],
):
    """What the engine would have to describe wrongly shows as a failed canary of that name."""
    described_wrongly(monkeypatch, change)
    async with entered() as backend, backend.environment(phase(**BARE)) as environment:
        failed = {
            canary.name: canary.found
            for canary in await environment.prove()
            if canary.result == "failed"
        }
    assert noticed <= failed.keys(), failed


KEEPER = {
    "no filter": sabotage.no_filter,
    "capabilities kept": sabotage.capabilities_kept,
    "no process namespace": sabotage.no_process_namespace,
    "nothing recorded": sabotage.nothing_recorded,
}
NOTICED = {
    "no filter": {"mount", "new namespace", "tcp", "vsock"},
    "capabilities kept": {"capabilities"},
    "no process namespace": {"see the engine"},
    "nothing recorded": {"tcp", "udp", "write outside", "mount", "packet socket"},
}


def sabotaged_keeper(monkeypatch: pytest.MonkeyPatch, switched: Callable[[], None]) -> None:
    """Start keepers that carry out this sabotage first."""
    before = sabotage.code(switched)
    monkeypatch.setattr(
        keeper_process, "PROGRAM", keeper_process.PROGRAM.replace("main()", f"{before}; main()")
    )


@pytest.mark.parametrize("name", KEEPER)
async def test_a_keeper_that_leaves_a_step_out_is_noticed(
    entered: Entered, phase: Phase, monkeypatch: pytest.MonkeyPatch, name: str
):
    """What goes wrong in the processes that build the environment shows in the environment."""
    sabotaged_keeper(monkeypatch, KEEPER[name])
    if name == "no process namespace" and os.geteuid() != 0:  # nor can /proc be mounted then
        async with entered() as backend:
            with pytest.raises(EnvironmentFailed):
                await backend.environment(phase(**BARE)).__aenter__()
        return
    async with entered() as backend, backend.environment(phase(**BARE)) as environment:
        failed = {
            canary.name: canary.found
            for canary in await environment.prove()
            if canary.result == "failed"
        }
    assert NOTICED[name] <= failed.keys(), failed


async def test_an_environment_that_cannot_be_made_says_why(
    entered: Entered, phase: Phase, monkeypatch: pytest.MonkeyPatch
):
    """A folder that is to be shown and is not there is named,
    with the code of what could not be made.
    """
    missing = mount_ops.bind("/nothing-like-it", "/opt")
    described_wrongly(monkeypatch, lambda spec: spec["filesystem"]["mounts"].append(missing))
    async with entered() as backend:
        with pytest.raises(EnvironmentFailed, match="nothing-like-it") as failed:
            await backend.environment(phase(**BARE)).__aenter__()
    assert failed.value.code == "CR-SANDBOX-005"


async def test_a_probe_that_breaks_off_is_no_answer(
    entered: Entered, monkeypatch: pytest.MonkeyPatch
):
    """Where the child that asks the kernel may open no file, the machine counts as not probed."""
    sabotaged_keeper(monkeypatch, sabotage.no_files_for_the_probe)
    async with entered() as backend:
        with pytest.raises(EnvironmentFailed) as failed:
            await backend.probe(Level.MEDIUM)
    assert failed.value.code == "CR-SANDBOX-007"


async def test_without_sabotage_every_canary_passes(entered: Entered, phase: Phase):
    """The tests above would be vacuous if they failed anyway."""
    async with entered() as backend, backend.environment(phase(**BARE)) as environment:
        assert [canary for canary in await environment.prove() if canary.result == "failed"] == []


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("ip"),
    reason="needs root and ip to make a network where a connection works and goes nowhere",
)
def test_a_missing_network_namespace_is_noticed(tmp_path: Path):
    """Where a connection to an address outside works (here:
    one of a network of the test's own), the canaries say so.
    """
    done = subprocess.run(
        [sys.executable, "-m", "support.open_network", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(TESTS), str(SOURCE)))},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    failed = json.loads(done.stdout)
    assert failed["tcp"] == "it worked"
    assert "mptcp" in failed
