"""Container engines that misbehave.

Each is carried out on the engines where it can be, with a way of ours in front of the engine,
or an engine of our own.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cleanroom.backends.containers.client import EngineName, find_socket
from cleanroom.sandbox.processes import container_cleanup
from support.command_harness import Project
from support.container_harness import ENGINES, IMAGE
from support.disposable_engine import IMAGE as TINY
from support.disposable_engine import OwnEngine, own_engine
from support.engine_proxy import EngineProxy, proxied
from support.faults.suite import CommandResult, fault, run

ENGINE = "a container engine"
LONG = "echo begun; sleep 100"
SECONDS = 180.0

# A server that answers with the name of its life, and what waits in a phase until the answer is
# that of another life.
SERVER = """
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
life = os.urandom(8).hex().encode()
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(life)
HTTPServer(("127.0.0.1", 9100), Handler).serve_forever()
"""
CLIENT = """
import time, urllib.request
def life():
    try:
        with urllib.request.urlopen("http://odd:9100/", timeout=1) as answer:
            return answer.read()
    except OSError:
        return b""
first = life()
print("begun", flush=True)
while life() in (b"", first):
    time.sleep(0.1)
"""


def contained(
    project: Project, commands: Mapping[str, str], image: str = IMAGE, **settings: str
) -> None:
    project.write(dict(commands), **settings)
    project.add(f'[cleanroom]\nimage = "{image}"\n')


def called(
    project: Project, engine: EngineName, caller: Mapping[str, str], *words: str, before: str = ""
) -> CommandResult:
    """Run the command to its end."""
    return run(
        project,
        *(words or ("run", "test")),
        backend=engine,
        caller=caller,
        before=before,
        timeout_seconds=SECONDS,
    )


def during(
    project: Project, engine: EngineName, caller: Mapping[str, str], deed: Callable[[], object]
) -> CommandResult:
    """The same, and do something as soon as its phase has begun."""
    words = project.argv("run", "test", "--backend", engine)
    with subprocess.Popen(
        words,
        cwd=project.root,
        env={**project.variables(), **caller},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as child:
        wait_begun(project, child)
        deed()
        said, _ = child.communicate(timeout=SECONDS)
    return CommandResult(child.returncode, said.decode(errors="replace"))


def wait_begun(project: Project, child: subprocess.Popen[bytes]) -> None:
    """Until the phase has said so."""
    until = time.monotonic() + SECONDS
    while not any(
        "begun" in log.read_text()
        for log in project.root.glob(".ggen/cleanroom/runs/*/logs/*test*")
    ):
        assert child.poll() is None, "the run has ended"
        assert time.monotonic() < until, "the phase did not begin"
        time.sleep(0.01)  # polling for what other processes do


def of_the_runs(project: Project, socket: str) -> list[str]:
    """The containers of the project's runs that are left."""
    runs = [folder.name for folder in project.root.glob(".ggen/cleanroom/runs/*")]
    return [found.name for run_id in runs for found in container_cleanup.labelled(socket, run_id)]


@contextlib.contextmanager
def a_way(engine: EngineName, project: Project, **options: object) -> Iterator[EngineProxy]:
    """One to the shared engine. Nothing of the project's runs is left behind it."""
    with proxied(engine, project.root.parent, **options) as way:  # type: ignore[arg-type]
        yield way
    # A removal that had been asked for goes on behind the cut.
    until = time.monotonic() + SECONDS
    while left := of_the_runs(project, find_socket(engine, os.environ)):
        assert time.monotonic() < until, left
        time.sleep(0.01)  # polling for what the engine does


@contextlib.contextmanager
def one_of_our_own(engine: EngineName, disk: str = "") -> Iterator[OwnEngine]:
    """One whose socket's path is short enough to be an address. No container is left in it."""
    with (
        tempfile.TemporaryDirectory(prefix="own-engine-", ignore_cleanup_errors=True) as folder,
        own_engine(engine, Path(folder) / "its", disk=disk) as made,
    ):
        yield made
        assert made.containers() == []


@fault(
    ENGINE,
    "is not there",
    "the run does not begin",
    code=5,
    says="CR-CONTAINER-013",
    engines=ENGINES,
)
def absent(project: Project, engine: EngineName) -> CommandResult:
    contained(project, {"test": "true"})
    nowhere = dict.fromkeys(
        ("DOCKER_HOST", "CONTAINER_HOST"), f"unix://{project.root}/nothing.sock"
    )
    return called(project, engine, nowhere)


@fault(
    ENGINE,
    "takes 5 s for every call",
    "it is waited for; the phase itself asks it nothing",
    code=0,
    says="PASSED",
    engines=ENGINES,
)
def slow(project: Project, engine: EngineName) -> CommandResult:
    contained(project, {"test": "true"})
    with a_way(engine, project, delay_seconds=5.0) as way:
        return called(project, engine, way.caller)


@fault(
    ENGINE,
    "disappears while a phase runs",
    (
        "the phase goes on to its end; that its container could not be removed is an error, and "
        "`sweep` removes it once the engine is back"
    ),
    code=5,
    says="did not remove it",
    engines=ENGINES,
)
def disappears(project: Project, engine: EngineName) -> CommandResult:
    contained(project, {"test": "echo begun; sleep 1; echo on > on"})
    with a_way(engine, project) as way:
        told = during(project, engine, way.caller, way.cut)
        assert (project.root / "on").exists(), told.text
        (left,) = of_the_runs(project, find_socket(engine, os.environ))
        assert left in told.text
        swept = run(project, "sweep")
        # Unless somebody else's sweep was there first: whoever comes by takes a dead run's.
        gone = left not in of_the_runs(project, find_socket(engine, os.environ))
        assert (swept.code, gone) == (0, True), swept.text
    return told


@fault(
    ENGINE,
    "disappears between two phases",
    "the second one cannot be made",
    code=5,
    says="CR-CONTAINER-004",
    engines=ENGINES,
)
def between_phases(project: Project, engine: EngineName) -> CommandResult:
    contained(project, {"init": "true", "test": "true"})
    made: list[bytes] = []

    def second(data: bytes) -> None:
        made.extend([data] if b"/containers/create" in data else [])
        if len(made) == 2:
            way.cut()

    with a_way(engine, project, watch=second) as way:
        return called(project, engine, way.caller, "pipeline", "init", "test")


@fault(
    ENGINE,
    "restarts while a phase runs",
    (
        "its containers end with it, so the phase does not pass; what is left of them is removed "
        "when it is back"
    ),
    code=5,
    says="ended",
    engines=("docker",),
)
def restarts(project: Project, engine: EngineName) -> CommandResult:
    contained(project, {"test": LONG}, TINY)
    with one_of_our_own(engine) as own:

        def restart() -> None:
            own.stop()
            own.start()

        return during(project, engine, own.caller, restart)


@fault(
    ENGINE,
    "restarts while a phase runs, and its containers live on",
    "nothing was asked of it meanwhile, so nothing comes of it",
    code=0,
    says="PASSED",
    engines=("podman",),
)
def restarts_aside(project: Project, engine: EngineName) -> CommandResult:
    contained(project, {"test": "echo begun; sleep 2"}, TINY)
    with one_of_our_own(engine) as own:
        return during(project, engine, own.caller, lambda: (own.stop(), own.start()))


@fault(
    ENGINE,
    "loses the image between plan and start",
    "said by its name, with what brings it back",
    code=5,
    says="during the run",
    engines=ENGINES,
)
def vanishes(project: Project, engine: EngineName) -> CommandResult:
    contained(project, {"test": "true"}, TINY)
    with one_of_our_own(engine) as own:

        def lose(data: bytes) -> None:
            if b"/containers/create" in data:
                assert own.ask("rmi", "--force", TINY).returncode == 0

        with proxied(engine, own.folder, watch=lose, caller=own.caller) as way:
            return called(project, engine, way.caller)


@fault(
    ENGINE,
    "has no address left for a network",
    "none is asked for: containers have no network of the engine's, and no port is published",
    code=0,
    says="PASSED",
    engines=("docker",),
)
def addresses(project: Project, engine: EngineName) -> CommandResult:
    contained(project, {"test": "true"}, TINY)
    with one_of_our_own(engine) as own:
        refused = own.ask("network", "create", "one-more")
        assert b"address pool" in refused.stderr, refused
        return called(project, engine, own.caller)


@fault(
    ENGINE,
    "has a full disk",
    "its refusal is told in its own words",
    code=5,
    says="no space left on device",
    engines=ENGINES,
)
def full(project: Project, engine: EngineName) -> CommandResult:
    contained(project, {"test": "true"}, TINY)
    with one_of_our_own(engine, "64m") as own:
        filled = own.inside("sh", "-c", f"cat /dev/zero > {own.folder}/data/filled")
        assert "No space left" in filled.stderr, filled
        told = called(project, engine, own.caller)
        own.inside("rm", f"{own.folder}/data/filled")
        return told


@fault(
    ENGINE,
    "runs a phase out of memory",
    "by the container's group: killed, and the limit is named",
    code=1,
    says="resource.memory",
    engines=ENGINES,
    groups=True,
)
def memory(project: Project, engine: EngineName) -> CommandResult:
    contained(project, {"test": "python3 -c 'bytearray(200 << 20)'"}, limits='{ memory = "64MiB" }')
    with a_way(engine, project) as way:
        return called(project, engine, way.caller)


def meddled(
    project: Project, engine: EngineName, which: str, method: str, what: str
) -> CommandResult:
    """Run while somebody else does something to a container of the run,
    once its phase has begun.
    """
    socket = find_socket(engine, os.environ)

    def meddle() -> None:
        (name,) = (name for name in of_the_runs(project, socket) if which in name)
        status, said = container_cleanup.call(socket, method, f"/containers/{name}{what}")
        assert status in (200, 204), said

    with a_way(engine, project) as way:
        return during(project, engine, way.caller, meddle)


def with_service(project: Project) -> None:
    """Its phase waits for the service's next life."""
    contained(project, {"test": "python3 client.py"}, containers='["odd"]', timeout='"1m"')
    (project.root / "client.py").write_text(CLIENT)
    command = json.dumps(["python3", "-c", SERVER])
    project.add(
        f'[cleanroom.services.odd]\nimage = "{IMAGE}"\ncommand = {command}\n'
        f'ready = {{ http = ":9100/" }}\n'
    )


@fault(
    ENGINE,
    "is told by somebody to pause a phase's container",
    "nobody inside can act: the timeout ends it from outside",
    code=124,
    says="still running after 4 s",
    engines=ENGINES,
)
def pauses(project: Project, engine: EngineName) -> CommandResult:
    contained(project, {"test": LONG}, timeout='"4s"')
    return meddled(project, engine, "test", "POST", "/pause")


@fault(
    ENGINE,
    "is told by somebody to kill a phase's container",
    "the phase does not pass, and its container is removed",
    code=5,
    says="ended",
    engines=ENGINES,
)
def kills(project: Project, engine: EngineName) -> CommandResult:
    contained(project, {"test": LONG})
    return meddled(project, engine, "test", "POST", "/kill")


@fault(
    ENGINE,
    "is told by somebody to pause a service's container",
    "its probes are not answered: it is started again in a new one",
    code=0,
    says="stopped answering",
    engines=ENGINES,
)
def pauses_service(project: Project, engine: EngineName) -> CommandResult:
    with_service(project)
    return meddled(project, engine, "odd", "POST", "/pause")


@fault(
    ENGINE,
    "is told by somebody to remove a service's container",
    "it is started again in a new one",
    code=0,
    says="restarted: service odd",
    engines=ENGINES,
)
def removes_service(project: Project, engine: EngineName) -> CommandResult:
    with_service(project)
    return meddled(project, engine, "odd", "DELETE", "?force=true")


@fault(
    ENGINE,
    "serves two runs of one project at once",
    "both pass; each has its own containers",
    code=0,
    says="PASSED",
    engines=ENGINES,
)
def two(project: Project, engine: EngineName) -> CommandResult:
    contained(project, {"test": "echo begun; sleep 1; echo a > a", "other": "echo b > b"})
    others: list[CommandResult] = []
    with a_way(engine, project) as way:
        other = threading.Thread(
            target=lambda: others.append(called(project, engine, way.caller, "run", "other"))
        )
        told = during(project, engine, way.caller, other.start)
        other.join()
    assert [one.code for one in others] == [0], others
    assert ((project.root / "a").read_text(), (project.root / "b").read_text()) == ("a\n", "b\n")
    return told
