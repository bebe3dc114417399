"""The collaborators that all environments of one run share."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from cleanroom.backends.embedded.forwards import Forwards, OrderReceiver
from cleanroom.backends.embedded.keeper_client import KeeperClient
from cleanroom.backends.embedded.keeper_process import KeeperProcess
from cleanroom.backends.embedded.ledger import Ledger
from cleanroom.backends.embedded.machine_facts import MachineFacts
from cleanroom.backends.embedded.resources import FolderUser, Resources, RunSettings


class RunningEnvironment(FolderUser, OrderReceiver, Protocol):
    """An environment that was started and not left."""

    async def leave(self) -> None: ...


class Machinery(NamedTuple):
    """One of each, made by `assemble`."""

    run: RunSettings
    ledger: Ledger
    facts: MachineFacts
    keeper: KeeperClient
    # by identity
    environments: dict[str, RunningEnvironment]
    resources: Resources
    forwards: Forwards


def assemble(run: RunSettings, process: KeeperProcess | None) -> Machinery:
    """The collaborators of a run; `process` is a keeper that was started early."""
    ledger, facts = Ledger(), MachineFacts()
    keeper = KeeperClient(process, ledger)
    environments: dict[str, RunningEnvironment] = {}
    return Machinery(
        run=run,
        ledger=ledger,
        facts=facts,
        keeper=keeper,
        environments=environments,
        resources=Resources(run, keeper, ledger, facts, environments),
        forwards=Forwards(keeper, environments),
    )
