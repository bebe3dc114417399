"""Which containers are of dead runs."""

from __future__ import annotations

import os

import msgspec
import pytest

from cleanroom.backends.containers.cleanup import ELSEWHERE, NOBODYS, judge, sweep_engine
from cleanroom.backends.containers.client import EngineName, find_socket
from cleanroom.sandbox import journal
from cleanroom.sandbox.processes import container_cleanup
from cleanroom.sandbox.processes.container_cleanup import Container
from support.container_harness import ENGINES, IMAGE, labelled, require

OURS = Container("1", "cleanroom-run-x", "run", "4194305:1", "boot", "pid:[1]", 0)


def judged(found: Container) -> str:
    return judge(found, boot_id="boot", namespace="pid:[1]")


def test_a_container_whose_engine_is_gone_is_dead_however_young_it_is():
    """Its process number belongs to nobody, or to somebody who started at another time."""
    assert judged(OURS) == "dead"
    assert judged(OURS._replace(owner=f"{os.getpid()}:1")) == "dead"


def test_a_container_whose_engine_lives_is_living():
    """The process that its label names is there, and started then."""
    assert judged(OURS._replace(owner=journal.process_name(os.getpid()))) == "living"


@pytest.mark.parametrize(
    ("found", "why"),
    [
        # its owner has its number elsewhere, such as in a container that has the engine's socket
        (OURS._replace(namespace="pid:[2]"), ELSEWHERE),
        (OURS._replace(owner="no number"), NOBODYS),
        (OURS._replace(boot_id=""), NOBODYS),
    ],
)
def test_of_a_container_of_which_nothing_is_certain_it_is_said_why(found: Container, why: str):
    """It does not count as a run that is under way."""
    assert judged(found) == why


def test_what_was_made_before_the_machine_started_is_dead():
    """No process outlives a boot, in whatever namespace."""
    assert judged(OURS._replace(boot_id="another", namespace="pid:[2]")) == "dead"


@pytest.mark.sandbox
@pytest.mark.parametrize("engine", ENGINES)
def test_sweeping_removes_dead_containers_and_no_other(engine: EngineName):
    """One of a dead run goes; one of a living run and a stranger's stay."""
    require(engine)
    socket = find_socket(engine, os.environ)
    run = f"sweep{os.getpid()}"
    dead_labels = {
        **container_cleanup.owner_labels(f"{run}-dead"),
        container_cleanup.OWNER: "4194305:1",
    }
    created = {
        f"{run}-dead": dead_labels,
        f"{run}-alive": container_cleanup.owner_labels(f"{run}-alive"),
        f"{run}-stranger": {"app": "of-somebody"},
    }
    try:
        for name, labels in created.items():
            body = msgspec.json.encode({"Image": IMAGE, "Cmd": ["true"], "Labels": labels})
            status, said = container_cleanup.call(
                socket, "POST", f"/containers/create?name={name}", body
            )
            assert status == 201, said
        report = sweep_engine(socket)
        assert [left.name for left in report.removed if left.name.startswith(run)] == [
            f"{run}-dead"
        ]
        assert f"{run}-alive" in report.living
        assert (labelled(engine, f"{run}-dead"), labelled(engine, f"{run}-alive")) == (
            [],
            [f"{run}-alive"],
        )
        assert container_cleanup.call(socket, "GET", f"/containers/{run}-stranger/json")[0] == 200
    finally:
        for name in created:
            container_cleanup.remove(socket, name)
