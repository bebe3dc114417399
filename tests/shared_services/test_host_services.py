"""`up` and `down` with real processes: what is reached, what is kept, and that nothing stays."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from cleanroom import engine
from cleanroom.engine import HostServices, Options
from cleanroom.engine.shared_services.discovery import OWNER_FILE
from cleanroom.model.errors import CleanroomError, UsageError
from support.command_harness import reap
from support.host_inventory import descendants

NEEDS = pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux")
pytestmark = [pytest.mark.sandbox, NEEDS]

# It counts its starts in its data, and ends when it is asked to.
PROGRAM = """
import http.server, os, pathlib
starts = pathlib.Path(os.environ["HOME"], "starts")
with starts.open("a") as file:
    file.write("x")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/die":
            os._exit(9)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(starts.read_bytes())
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", 8123), Handler).serve_forever()
"""
FILE = """
[project]
name = "shop"

[cleanroom.services.web]
command = ["python3", "web.py"]
ready = { http = ":8123/" }
port = PORT
env = { APP = "{url}/app" }
restarts_max = RESTARTS

[cleanroom.services.redis]
env = { KV = "{url}" }
"""
SECONDS = 20.0


class Project:
    """A project with services, and a cache of its own."""

    def __init__(self, root: Path, cache: Path) -> None:
        self.root, self.cache = root, cache
        self.said: list[str] = []
        root.mkdir()
        (root / "web.py").write_text(PROGRAM)
        self.write()

    def write(self, port: int = 8123, restarts: int = 3) -> None:
        text = FILE.replace("PORT", str(port)).replace("RESTARTS", str(restarts))
        (self.root / "make.toml").write_text(text)

    @property
    def caller(self) -> dict[str, str]:
        return {**os.environ, "CLEANROOM_CACHE": str(self.cache)}

    def up(self, *names: str) -> HostServices:
        with engine.services_up(
            self.root,
            names,
            caller=self.caller,
            options=Options(),
            foreground=False,
            progress=self.said.append,
        ) as running:
            return running.services

    def down(self, *names: str) -> engine.EndedServices:
        return engine.services_down(
            self.root,
            names,
            caller=self.caller,
            options=Options(),
            progress=self.said.append,
        )

    def command(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "cleanroom", *words],
            cwd=self.root,
            env=self.caller,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def folders(self) -> list[Path]:
        return list((self.cache / "runs").iterdir())

    @property
    def server(self) -> int:
        (folder,) = self.folders
        return int((folder / OWNER_FILE).read_text().partition(":")[0])


@pytest.fixture
def make_project(tmp_path: Path) -> Iterator[Callable[..., Project]]:
    projects: list[Project] = []

    def make(name: str = "project") -> Project:
        projects.append(Project(tmp_path / name, tmp_path / "cache"))
        return projects[-1]

    yield make
    for project in projects:
        project.down()


@pytest.fixture
def project(make_project: Callable[..., Project]) -> Project:
    return make_project()


def answer(url: str, path: str = "/") -> str:
    with urllib.request.urlopen(f"{url}{path}", timeout=SECONDS) as response:
        return response.read().decode()


def wait(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.02)


def test_what_is_up_is_reached_on_the_host_and_shown_again(project: Project):
    """The variables are those of phases, with the project's own names; a second `up` shows the same
    services, whose state goes on.
    """
    first = project.up()
    second = project.up()

    assert second == first
    variables = first.variables
    port = variables["CLEANROOM_WEB_PORT"]
    assert variables["APP"] == f"http://127.0.0.1:{port}/app"
    assert variables["KV"] == variables["REDIS_URL"]
    assert answer(variables["CLEANROOM_WEB_URL"]) == "x"


def test_down_leaves_nothing_and_is_content_where_nothing_is_up(project: Project):
    """Processes, folders and ports are gone; a second `down` has nothing to do."""
    variables = project.up().variables
    server = project.server
    below = [server, *descendants(server)]

    ended = project.down()

    assert (sorted(ended.ended), ended.whole, ended.left) == (["redis", "web"], True, ())
    assert project.folders == []
    assert not [pid for pid in below if _lives(pid)]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(variables["CLEANROOM_WEB_PORT"])))
    assert project.down() == engine.EndedServices()


def test_two_projects_have_ports_of_their_own(make_project: Callable[..., Project]):
    """Both declare the same port; whoever comes second has another one."""
    one, other = (make_project(name).up("web").variables for name in ("one", "other"))

    assert one["CLEANROOM_WEB_PORT"] != other["CLEANROOM_WEB_PORT"]
    assert answer(one["APP"].removesuffix("/app")) == "x"
    assert answer(other["APP"].removesuffix("/app")) == "x"


def test_one_service_of_several_is_started_and_ended(project: Project):
    """The others stay; a name that is not up is said, and no error."""
    assert [service.name for service in project.up("web").services] == ["web"]
    kept = project.up("redis").variables

    assert project.down("web", "nosuch").ended == ("web",)

    assert "nosuch is not up" in project.said
    assert project.up("redis").variables == kept


def test_a_service_that_died_is_named_and_has_its_data(project: Project):
    """One that was given up is started again where it was, on the same port."""
    project.write(restarts=0)
    url = project.up("web").variables["CLEANROOM_WEB_URL"]
    with pytest.raises(OSError):  # noqa: PT011 -- the connection ends in one of several ways
        answer(url, "/die")

    def given_up() -> bool:
        log = (project.root / ".ggen/cleanroom/sessions").glob("*/events.jsonl")
        return any('"gave_up"' in path.read_text() for path in log)

    wait(given_up)
    project.said.clear()
    assert project.up("web").variables["CLEANROOM_WEB_URL"] == url

    assert any(line.startswith("web had ended: ") for line in project.said)
    assert answer(url) == "xx"


def test_a_service_with_another_configuration_is_not_replaced(project: Project):
    """Its data is somebody's work: `down` is said, and the service goes on."""
    url = project.up("web").variables["CLEANROOM_WEB_URL"]
    project.write(restarts=2)

    with pytest.raises(UsageError) as raised:
        project.up("web")

    assert raised.value.code == "CR-SESSION-010"
    assert answer(url) == "x"


def test_a_first_up_that_fails_leaves_nothing(project: Project):
    """Services beside the one that cannot start end again."""
    (project.root / "web.py").write_text("raise SystemExit('broken')")
    project.write(restarts=0)

    with pytest.raises(CleanroomError, match="web"):
        project.up()

    assert project.folders == []


@pytest.mark.parametrize("victim", ["server", "keeper"])
def test_a_killed_process_leaves_nothing_and_is_named_by_the_next_up(project: Project, victim: str):
    """kill -9 of any process of ours; the next `up` says that the services were lost."""
    project.up("web")
    server = project.server
    keeper = next(pid for pid in descendants(server) if _name(pid) == "cleanroom-keep")
    before = [server, *descendants(server)]
    os.kill(server if victim == "server" else keeper, signal.SIGKILL)
    wait(lambda: not _living(before))
    engine.sweep(project.root, caller=project.caller)
    assert project.folders == []

    project.said.clear()
    assert answer(project.up("web").variables["CLEANROOM_WEB_URL"]) == "x"

    assert any("ended without `down`" in line for line in project.said)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_services_of_the_foreground_end_with_it(project: Project, number: signal.Signals):
    """Ctrl-C is how it is ended; killed, it leaves nothing either."""
    running = project.command("up", "web", "--foreground")
    assert running.stdout is not None
    lines = iter(running.stdout)
    assert next(line for line in lines if line.startswith("export APP="))
    with pytest.raises(UsageError) as raised, _foreground(project):
        pass
    assert raised.value.code == "CR-SESSION-009"

    running.send_signal(number)
    running.communicate(timeout=SECONDS)

    assert running.returncode == (-9 if number is signal.SIGKILL else 0)
    wait(lambda: project.folders == [])


def test_an_up_that_is_interrupted_while_it_starts_leaves_nothing(project: Project):
    """Ctrl-C before the services are ready ends those that it has begun to start."""
    (project.root / "web.py").write_text("import time\ntime.sleep(60)")
    starting = project.command("up")
    wait(lambda: (project.cache / "runs").is_dir() and bool(project.folders))

    starting.send_signal(signal.SIGINT)
    starting.communicate(timeout=SECONDS)

    assert starting.returncode == 130
    wait(lambda: project.folders == [])


def test_what_other_users_find_is_closed(project: Project):
    """The server's folder is the user's alone, and the key-value server asks for a password."""
    port = int(project.up("redis").variables["CLEANROOM_REDIS_PORT"])

    (folder,) = project.folders
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(100).startswith(b"-NOAUTH")


def test_a_service_ends_with_the_one_that_it_depends_on(tmp_path: Path, project: Project):
    """What depends on a service is started after it, and ended with it."""
    with (project.root / "make.toml").open("a") as file:
        file.write(
            '\n[cleanroom.services.front]\ncommand = ["python3", "-m", "http.server", "8124"]\n'
            'ready = { tcp = 8124 }\ndepends_on = ["web"]\n'
        )

    up = project.up("front")
    ended = project.down("web")

    assert sorted(service.name for service in up.services) == ["front", "web"]
    assert sorted(ended.ended) == ["front", "web"]


def test_a_service_ends_with_its_replicas(project: Project):
    """All of the name that the project has, and nothing else; one of them can end alone."""
    with (project.root / "make.toml").open("a") as file:
        file.write(
            '\n[cleanroom.services.worker]\ncommand = ["python3", "-m", "http.server", "8124"]\n'
            "ready = { tcp = 8124 }\nreplicas = 3\n"
        )

    project.up("worker")
    project.up("redis")

    assert project.down("worker-3").ended == ("worker-3",)
    assert sorted(project.down("worker").ended) == ["worker", "worker-2"]
    assert project.down().ended == ("redis",)


@pytest.mark.parametrize(("name", "hint"), [("wbe", "did you mean 'web'?"), ("zzz", "services: ")])
def test_an_unknown_service_is_refused_before_anything_starts(
    project: Project, name: str, hint: str
):
    """With what was probably meant."""
    with pytest.raises(UsageError) as raised:
        project.up(name)

    assert raised.value.code == "CR-SESSION-008"
    assert raised.value.hint.startswith(hint)
    assert not (project.cache / "runs").exists()


def _foreground(project: Project):
    return engine.services_up(
        project.root,
        (),
        caller=project.caller,
        options=Options(),
        foreground=True,
        progress=project.said.append,
    )


def _living(pids: Iterable[int]) -> list[int]:
    """Those that have not ended, once those that have are waited for.

    These tests may have adopted them, and the first process of a namespace ends last.
    """
    reap()
    return [pid for pid in pids if _lives(pid)]


def _lives(pid: int) -> bool:
    """A zombie does not: the server is a child of these tests, who do not wait for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
