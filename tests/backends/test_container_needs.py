"""Which parts of a container backend a machine lacks, from facts that a test owns;
and real looks at this machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from cleanroom.backends.containers.client import EngineName
from cleanroom.backends.containers.requirements import (
    Interpreter,
    Machine,
    inspect_machine,
    missing_parts,
    refusal,
)
from cleanroom.model.errors import BackendUnavailable, PolicyRefused, ProjectError

OURS = Interpreter(program="/opt/a venv/bin/python")
WHOLE = Machine(engine="docker", interpreter=OURS, socket="/run/docker.sock")
BARE = msgspec.structs.replace(
    WHOLE,
    socket="",
    program=False,
    library=False,
    compiler=False,
    builder=False,
    images=("cleanroom/base", "mail:1", "cleanroom/redis"),
)


def changed(machine: Machine, **fields: object) -> Machine:
    return msgspec.structs.replace(machine, **fields)


def hint(machine: Machine) -> list[str]:
    refused = refusal(machine)
    assert refused is not None
    return refused.hint.splitlines()


def test_where_all_is_there_nothing_is_refused():
    """Nor is anything named."""
    assert missing_parts(WHOLE) == ()
    assert refusal(WHOLE) is None


def test_all_that_is_missing_is_named_at_once():
    """Each part, in one error, with lines that bring them in an order in which each can work."""
    refused = refusal(BARE)
    assert isinstance(refused, BackendUnavailable)
    assert refused.code == "CR-CONTAINER-013"
    for part in (
        "docker is not installed",
        "aiodocker",
        "compiler",
        "mmdebstrap",
        "'cleanroom/base', 'cleanroom/redis'",
        "'mail:1'",
    ):
        assert part in str(refused)
    assert refused.hint.splitlines() == [
        "on Debian, as root:",
        "apt-get update && apt-get install --yes docker.io gcc libc6-dev mmdebstrap",
        "setsid dockerd </dev/null >/var/log/dockerd.log 2>&1 &",
        (
            "until [ -S /run/docker.sock ]; do sleep 1; done  # if it takes long, "
            "/var/log/dockerd.log says why"
        ),
        "'/opt/a venv/bin/python' -m pip install '.[docker]'",
        "cleanroom-engine image build base redis --backend docker",
        "docker pull mail:1  # or build or load it; nothing is pulled during a run",
    ]


@pytest.mark.parametrize(
    ("fields", "kind", "code"),
    [
        ({"socket": ""}, BackendUnavailable, "CR-CONTAINER-001"),
        ({"answer": "docker does not answer"}, BackendUnavailable, "CR-CONTAINER-001"),
        ({"library": False}, BackendUnavailable, "CR-CONTAINER-003"),
        ({"images": ("mail:1",)}, ProjectError, "CR-CONTAINER-006"),
        ({"root": False}, PolicyRefused, "CR-CONTAINER-007"),
        ({"compiler": False}, BackendUnavailable, "CR-CONTAINER-008"),
        ({"builder": False}, BackendUnavailable, "CR-CONTAINER-011"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_part_that_is_missing_keeps_its_own_error(
    fields: dict[str, object], kind: type[Exception], code: str
):
    """With its own code and exit status."""
    refused = refusal(changed(WHOLE, **fields))
    assert (type(refused), refused and refused.code) == (kind, code)


def test_debians_own_python_is_not_asked_to_change():
    """Pip refuses there, so the line makes a virtual environment,
    with the package that this takes.
    """
    closed = Interpreter(program="/usr/bin/python3", closed=True, venv=False)
    lines = hint(changed(WHOLE, library=False, interpreter=closed))
    assert lines[1] == "apt-get update && apt-get install --yes python3-venv"
    assert lines[2] == (
        "/usr/bin/python3 -m venv ~/cleanroom && ~/cleanroom/bin/pip install '.[docker]'"
    )


def test_an_environment_without_pip_is_not_asked_for_it():
    """As uv makes them."""
    lines = hint(
        changed(WHOLE, library=False, interpreter=Interpreter(program="/v/bin/python", pip=False))
    )
    assert lines[1:] == ["uv pip install --python /v/bin/python '.[docker]'"]


@pytest.mark.parametrize(("engine", "unit"), [("docker", "docker"), ("podman", "podman.socket")])
def test_the_service_manager_starts_an_engine_where_there_is_one(engine: EngineName, unit: str):
    """And is not named where there is none, as in a container."""
    stopped = changed(WHOLE, engine=engine, socket="")
    assert hint(changed(stopped, systemd=True))[1:] == [f"systemctl enable --now {unit}"]
    assert "systemctl" not in " ".join(hint(stopped))


def test_podman_is_told_of_control_groups_of_both_versions():
    """It would come up, and refuse to start any container."""
    stopped = changed(WHOLE, engine="podman", socket="", unified=False)
    assert any("cgroupfs" in line for line in hint(stopped))
    assert not any("cgroupfs" in line for line in hint(changed(stopped, unified=True)))


@pytest.mark.parametrize("engine", ["docker", "podman"])
@pytest.mark.parametrize("systemd", [True, False])
def test_the_lines_are_shell(engine: EngineName, systemd: bool):
    """They can be pasted as they are."""
    closed = Interpreter(program="/usr/bin/python3", closed=True, venv=False)
    lines = hint(
        changed(BARE, engine=engine, systemd=systemd, unified=False, root=False, interpreter=closed)
    )
    assert lines[0].endswith(":")
    subprocess.run(["sh", "-n"], input="\n".join(lines[1:]), text=True, check=True)


def test_a_look_at_a_machine_without_the_engine(tmp_path: Path):
    """What cannot be asked for is missing; what is there is not named."""
    found = inspect_machine(
        "docker", ["cleanroom/base"], {"DOCKER_HOST": f"unix://{tmp_path}/nothing"}
    )
    assert (found.socket, found.images) == ("", ("cleanroom/base",))
    assert (found.library, found.interpreter.program, found.interpreter.closed) == (
        True,
        sys.executable,
        False,
    )


PROJECT = """\
[project]
name = "p"
[lifecycle.test]
command = "true"
[cleanroom]
image = "cleanroom/base"
"""


@pytest.mark.skipif(sys.platform != "linux", reason="containers run on Linux")
def test_a_run_says_everything_that_is_missing(tmp_path: Path):
    """Engine and image in one refusal, before anything is started."""
    (tmp_path / "make.toml").write_text(PROJECT)
    words = [sys.executable, "-m", "cleanroom", "pipeline", "test", "--backend", "docker"]
    there = {
        **os.environ,
        "DOCKER_HOST": f"unix://{tmp_path}/nothing",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(words, cwd=tmp_path, env=there, capture_output=True, text=True)
    assert done.returncode == 5
    assert "CR-CONTAINER-013" in done.stderr
    assert "image 'cleanroom/base' is not in docker" in done.stderr
    assert "cleanroom-engine image build base --backend docker" in done.stderr
