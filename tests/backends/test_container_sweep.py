"""Which containers are of dead runs."""

from __future__ import annotations

import os

import msgspec
import pytest

from cleanroom.backends.container_engines import EngineName, find_socket
from cleanroom.backends.container_sweep import dead, sweep_engine
from cleanroom.sandbox import container_ends, journal
from cleanroom.sandbox.container_ends import Container
from container_bench import ENGINES, IMAGE, labelled, require

NOW = 1_000_000.0
OLD = Container("1", "cleanroom-run-x", "run", "4194305:1", "boot", "pid:[1]", int(NOW) - 3600)


def judged(found: Container) -> bool:
    return dead(found, boot_id="boot", namespace="pid:[1]", now_unix=NOW)


def test_a_container_whose_engine_is_gone_is_dead():
    """Its process number belongs to nobody, or to somebody who started at another time."""
    assert judged(OLD)
    assert judged(OLD._replace(owner=f"{os.getpid()}:1"))


@pytest.mark.parametrize(
    "alive",
    [
        OLD._replace(owner=journal.process_name(os.getpid())),
        OLD._replace(made_unix=int(NOW) - 5),  # its run may be just beginning
        OLD._replace(namespace="pid:[2]"),  # its owner has its number elsewhere, such as in a container that has the engine's socket
        OLD._replace(owner="no number"),
        OLD._replace(boot_id=""),  # none of ours, though it bears our label
    ],
)
def test_a_container_of_a_run_that_may_live_is_left_alone(alive: Container):
    """Whatever cannot be known counts as living."""
    assert not judged(alive)


def test_what_was_made_before_the_machine_started_is_dead():
    """No process outlives a boot, in whatever namespace."""
    assert judged(OLD._replace(boot_id="another", namespace="pid:[2]"))


@pytest.mark.sandbox
@pytest.mark.parametrize("engine", ENGINES)
def test_sweeping_removes_dead_containers_and_no_other(engine: EngineName, monkeypatch: pytest.MonkeyPatch):
    """One of a dead run goes; one of a living run and a stranger's stay."""
    require(engine)
    monkeypatch.setattr("cleanroom.backends.container_sweep.MINIMUM_AGE_SECONDS", -1.0)
    socket = find_socket(engine, os.environ)
    run = f"sweep{os.getpid()}"
    dead_labels = {**container_ends.owner_labels(f"{run}-dead"), container_ends.OWNER: "4194305:1"}
    created = {
        f"{run}-dead": dead_labels, f"{run}-alive": container_ends.owner_labels(f"{run}-alive"), f"{run}-stranger": {"app": "of-somebody"},
    }  # fmt: skip
    try:
        for name, labels in created.items():
            body = msgspec.json.encode({"Image": IMAGE, "Cmd": ["true"], "Labels": labels})
            status, said = container_ends.call(socket, "POST", f"/containers/create?name={name}", body)
            assert status == 201, said
        report = sweep_engine(socket)
        assert [left.name for left in report.removed if left.name.startswith(run)] == [f"{run}-dead"]
        assert f"{run}-alive" in report.living
        assert (labelled(engine, f"{run}-dead"), labelled(engine, f"{run}-alive")) == ([], [f"{run}-alive"])
        assert container_ends.call(socket, "GET", f"/containers/{run}-stranger/json")[0] == 200
    finally:
        for name in created:
            container_ends.remove(socket, name)
