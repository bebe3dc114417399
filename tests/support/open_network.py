"""An environment without a network namespace of its own, on a network where a connection to an
address outside works: prints the canaries that failed, as JSON.

`python -m support.open_network FOLDER`, as root; the network is one of this process's own.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

from cleanroom.backends.base import EnvironmentSpec
from cleanroom.backends.embedded import keeper_process
from cleanroom.backends.embedded.backend import EmbeddedBackend
from cleanroom.core.beneath import Folder
from cleanroom.model.policy import Level, default_policy
from cleanroom.sandbox.journal import Journal
from cleanroom.sandbox.kernel import constants, syscalls
from cleanroom.sandbox.network import dns
from support import sabotage


async def failed_canaries(folder: Path) -> dict[str, str]:
    spec = EnvironmentSpec(
        id="open",
        run_id=f"n{os.getpid()}",
        role="phase",
        policy=default_policy(Level.MEDIUM),
        variables={"PATH": "/usr/bin:/bin"},
    )
    journal = partial(Journal.at, Folder.at(folder))
    async with (
        EmbeddedBackend(spec.run_id, folder / "scratch", journal) as backend,
        backend.environment(spec) as environment,
    ):
        proof = await environment.prove()
    return {canary.name: canary.found for canary in proof if canary.result == "failed"}


def main() -> None:
    syscalls.unshare(constants.CLONE_NEWNET | (constants.CLONE_NEWUSER if os.geteuid() else 0))
    dns.raise_link("lo")
    subprocess.run(["ip", "route", "add", "local", "192.0.2.0/24", "dev", "lo"], check=True)
    with socket.create_server(("0.0.0.0", 9)):
        before = sabotage.code(sabotage.no_network_namespace)
        keeper_process.PROGRAM = keeper_process.PROGRAM.replace("main()", f"{before}; main()")
        print(json.dumps(asyncio.run(failed_canaries(Path(sys.argv[1])))))


if __name__ == "__main__":
    main()
