"""What a container backend needs on a machine; all missing parts are named in one error.

`inspect_machine` reads the machine's state, `missing_parts` and `refusal` decide.
Nothing is installed or started: the commands in the hint are for the user to run, on Debian.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from cleanroom.backends.containers.client import VARIABLES, EngineName, find_socket, inspect_image
from cleanroom.backends.containers.images import PLANS
from cleanroom.core import host_programs
from cleanroom.core.installation import (
    Interpreter,
    line_for,
    origin,
    requirement,
    this_interpreter,
)
from cleanroom.model.errors import BackendUnavailable, CleanroomError, PolicyRefused, ProjectError
from cleanroom.sandbox.shim.build import program_in

PROGRAMS: dict[EngineName, str] = {"docker": "dockerd", "podman": "podman"}
PACKAGES: dict[EngineName, tuple[str, ...]] = {
    "docker": ("docker.io",),
    "podman": ("podman", "runc"),
}
UNITS: dict[EngineName, str] = {"docker": "docker", "podman": "podman.socket"}
COMPILERS = ("gcc", "cc", "clang")  # musl-gcc is a way to call the first
# Without a service manager, and until somebody listens.
STARTS: dict[EngineName, tuple[str, ...]] = {
    "docker": (
        "setsid dockerd </dev/null >/var/log/dockerd.log 2>&1 &",
        (
            "until [ -S /run/docker.sock ]; do sleep 1; done  # if it takes long, "
            "/var/log/dockerd.log says why"
        ),
    ),
    "podman": (
        "mkdir -p /run/podman",
        (
            "setsid podman system service --time=0 unix:///run/podman/podman.sock </dev/null "
            ">/var/log/podman.log 2>&1 &"
        ),
        (
            "until [ -S /run/podman/podman.sock ]; do sleep 1; done  # if it takes long, "
            "/var/log/podman.log says why"
        ),
    ),
}
# Debian 12's crun refuses control groups of both versions,
# and without systemd nobody answers for its manager.
PODMAN_SETTINGS = (
    "mkdir -p /etc/containers/containers.conf.d",
    (
        "printf '%s\\n' '[engine]' 'runtime = \"runc\"' 'cgroup_manager = \"cgroupfs\"' > "
        "/etc/containers/containers.conf.d/cleanroom.conf"
    ),
)


class MissingPart(NamedTuple):
    """A missing part, and how to install it."""

    error: type[CleanroomError]
    code: str
    message: str
    packages: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()  # shell lines, once the packages are there


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Which parts a machine has. Made by `inspect_machine`."""

    engine: EngineName
    interpreter: Interpreter
    # the engine with its client library, as pip reads it, quoted for a shell
    package: str = "'.[docker]'"
    root: bool = True
    socket: str = ""  # of the engine; empty: there is none
    answer: str = ""  # why the engine does not answer there; empty: it does
    elsewhere: CleanroomError | None = None  # the environment names an engine of another machine
    program: bool = True  # the engine is installed
    library: bool = True
    compiler: bool = True
    builder: bool = True  # mmdebstrap
    # that are wanted and not there, as far as the engine can be asked; else all that are wanted
    images: tuple[str, ...] = ()
    systemd: bool = False
    unified: bool = True  # control groups are of version 2 alone


def inspect_machine(
    engine: EngineName,
    images: Iterable[str],
    caller: Mapping[str, str],
    *,
    shim: Path | None = None,
    builds: bool = False,
) -> Machine:
    """Which parts this machine has for `engine`, and which of `images` are in it.

    Blocks for some ms.

    `shim` is the folder of the built pid 1, for callers that start containers.
    `builds`: the caller builds images and starts no container.
    """
    socket, elsewhere = _socket(engine, caller)
    wanted, answer = list(dict.fromkeys(images)), ""
    try:
        if socket:
            wanted = [name for name in wanted if not _has_image(engine, socket, name)]
    except CleanroomError as error:
        answer = error.message
    own = any(map(_is_ours, wanted))
    return Machine(
        engine=engine,
        interpreter=this_interpreter(),
        package=requirement("docker", origin()),
        root=builds or os.geteuid() == 0,
        socket=socket,
        answer=answer,
        elsewhere=elsewhere,
        program=host_programs.find(PROGRAMS[engine]) is not None,
        library=importlib.util.find_spec("aiodocker") is not None,
        compiler=shim is None
        or program_in(shim).exists()
        or any(map(host_programs.find, COMPILERS)),
        builder=not (builds or own) or host_programs.find("mmdebstrap") is not None,
        images=tuple(wanted),
        systemd=Path("/run/systemd/system").is_dir(),
        unified=Path("/sys/fs/cgroup/cgroup.controllers").exists(),
    )


def missing_parts(machine: Machine) -> tuple[MissingPart, ...]:
    """The missing parts, in an order in which they can be installed."""
    found = _engine(machine)
    if not machine.library:
        found.append(_library(machine.interpreter, machine.package))
    if not machine.compiler:
        message = "pid 1 of containers is built once from C, and there is no compiler"
        found.append(
            MissingPart(BackendUnavailable, "CR-CONTAINER-008", message, ("gcc", "libc6-dev"))
        )
    if not machine.builder:
        message = "mmdebstrap, which makes images from Debian's packages, is not installed"
        found.append(MissingPart(BackendUnavailable, "CR-CONTAINER-011", message, ("mmdebstrap",)))
    found += _images(machine)
    return (*found, *(() if machine.root else (_root(machine.engine),)))


def refusal(machine: Machine) -> CleanroomError | None:
    """One error for all missing parts, with the commands that install them, or None.

    A single missing part has its own error code.
    """
    parts = missing_parts(machine)
    if not parts:
        return None
    hint = "\n".join(install_commands(parts))
    if len(parts) == 1:
        return parts[0].error(parts[0].code, parts[0].message, hint=hint)
    named = "; ".join(part.message for part in parts)
    return BackendUnavailable(
        "CR-CONTAINER-013",
        f"backend {machine.engine!r} lacks {len(parts)} parts here: {named}",
        hint=hint,
    )


def install_commands(parts: Sequence[MissingPart]) -> tuple[str, ...]:
    """Shell commands that install all of these parts."""
    packages = dict.fromkeys(package for part in parts for package in part.packages)
    installing = (
        [f"apt-get update && apt-get install --yes {' '.join(packages)}"] if packages else []
    )
    return ("on Debian, as root:", *installing, *(step for part in parts for step in part.steps))


def _root(engine: EngineName) -> MissingPart:
    message = (
        f"backend {engine!r} runs as root only: nobody else can see what is tried in a container"
    )
    other = (
        '# then run cleanroom-engine as root too; or take backend = "embedded", which needs no root'
    )
    return MissingPart(PolicyRefused, "CR-CONTAINER-007", message, steps=(other,))


def _engine(machine: Machine) -> list[MissingPart]:
    name = machine.engine
    if machine.elsewhere is not None:
        return [
            MissingPart(
                type(machine.elsewhere),
                machine.elsewhere.code,
                machine.elsewhere.message,
                steps=(f"unset {VARIABLES[name]}",),
            )
        ]
    if machine.socket and not machine.answer:
        return []
    starting = (f"systemctl enable --now {UNITS[name]}",) if machine.systemd else STARTS[name]
    settings = PODMAN_SETTINGS if name == "podman" and not machine.unified else ()
    if not machine.program:
        return [
            MissingPart(
                BackendUnavailable,
                "CR-CONTAINER-001",
                f"{name} is not installed",
                PACKAGES[name],
                (*settings, *starting),
            )
        ]
    message = machine.answer or f"{name} is installed, and was not found running"
    return [
        MissingPart(BackendUnavailable, "CR-CONTAINER-001", message, steps=(*settings, *starting))
    ]


def _library(interpreter: Interpreter, package: str) -> MissingPart:
    message = f"the Python package aiodocker is not there for {interpreter.program}"
    packages: tuple[str, ...] = ()
    steps = [line_for(package, interpreter)]
    if interpreter.closed:  # Debian's own Python lets pip change nothing
        packages = () if interpreter.venv else ("python3-venv",)
        steps.append(
            "PATH=~/cleanroom/bin:$PATH  # so that this cleanroom-engine is the one that runs"
        )
    return MissingPart(BackendUnavailable, "CR-CONTAINER-003", message, packages, tuple(steps))


def _images(machine: Machine) -> list[MissingPart]:
    """Missing images: one part for all of ours, which one command builds; one for each other."""
    name = machine.engine
    own = [image for image in machine.images if _is_ours(image)]
    found = []
    if own:
        short_names = set(map(_short_name, own))
        made = [short for short, plan in PLANS.items() if plan.name in short_names]
        build = " ".join(("cleanroom-engine image build", *made, f"--backend {name}"))
        found.append(
            MissingPart(
                ProjectError,
                "CR-CONTAINER-006",
                f"{_image_list(own)} not in {name}",
                steps=(build,),
            )
        )
    for image in machine.images:
        if not _is_ours(image):
            pull = (
                f"{name} pull {shlex.quote(image)}  # or build or load it; nothing is pulled "
                "during a run"
            )
            found.append(
                MissingPart(
                    ProjectError,
                    "CR-CONTAINER-006",
                    f"{_image_list([image])} not in {name}",
                    steps=(pull,),
                )
            )
    return found


def _image_list(images: Collection[str]) -> str:
    listed = ", ".join(map(repr, images))
    return f"image {listed} is" if len(images) == 1 else f"images {listed} are"


def _socket(engine: EngineName, caller: Mapping[str, str]) -> tuple[str, CleanroomError | None]:
    try:
        return find_socket(engine, caller), None
    except BackendUnavailable as error:
        return "", error if error.code == "CR-CONTAINER-002" else None


def _has_image(engine: EngineName, socket: str, image: str) -> bool:
    """Whether the engine has this image.

    Raises:
        BackendUnavailable: the engine does not answer.
    """
    try:
        inspect_image(engine, socket, image)
    except ProjectError:
        return False
    return True


def _is_ours(image: str) -> bool:
    """Whether `image build` builds an image of this name."""
    return _short_name(image).startswith("cleanroom/")


def _short_name(image: str) -> str:
    return image.removeprefix("docker.io/").removeprefix("localhost/").removesuffix(":latest")
