"""Services of the project's own images on real engines, and what a phase may reach outside:
the real command, whole runs.
"""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cleanroom.backends.containers.client import EngineName
from support.command_harness import Answer, Project, project
from support.container_harness import ENGINES, IMAGE, labelled, require

__all__ = ["project"]
pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(300)]

# Says what it was given, and counts: /health is asked by the engine, / by phases.
SERVER = """
import http.server, os, sys
class Mail(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        said = "|".join([os.getcwd(), os.environ.get("GREETING", ""), os.environ.get("OWN", ""), open(sys.argv[1]).read().strip()])
        self.send_response(200)
        self.end_headers()
        self.wfile.write(said.encode())
    def log_message(self, form, *rest):
        print("asked for", self.path, flush=True)
print("mail is up as", os.getuid(), flush=True)
http.server.HTTPServer(("127.0.0.1", 9100), Mail).serve_forever()
"""  # noqa: E501
DOCKERFILE = f"""
FROM {IMAGE}
COPY server.py /opt/server.py
ENV GREETING=hello
WORKDIR /srv
CMD ["python3", "/opt/server.py", "/etc/debian_version"]
"""
ASK = (
    "import sys, urllib.request; print('told', urllib.request.urlopen(sys.argv[1]).read().decode())"
)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> EngineName:
    require(request.param)
    name: EngineName = request.param
    return name


@pytest.fixture
def mail(engine: EngineName, tmp_path: Path) -> Iterator[str]:
    """An image with a server in it."""
    name, folder = f"cleanroom-tests/mail-{uuid.uuid4().hex[:8]}:1", tmp_path / "mail"
    folder.mkdir()
    (folder / "server.py").write_text(SERVER)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    # no cache: another worker that removes its image takes shared steps along
    made = subprocess.run(
        [engine, "build", "--no-cache", "--tag", name, "."],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    yield name
    subprocess.run([engine, "rmi", "--force", name], capture_output=True, check=True)


def ran(project: Project, engine: EngineName, *before: str) -> Answer:
    words = [*before, *project.argv("run", "test", "--backend", engine, "--output", "json")]
    done = subprocess.run(
        words,
        cwd=project.root,
        env=project.variables(),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )
    return Answer(
        done.returncode, json.loads(done.stdout) if done.stdout.strip() else {}, done.stderr
    )


def log(project: Project, answer: Answer, name: str) -> str:
    return (
        project.root / f".ggen/cleanroom/runs/{answer.result['run_id']}/logs/{name}.log"
    ).read_text()


def with_mail(project: Project, image: str, command: str, settings: dict[str, Any]) -> None:
    """One phase that uses the service, in an image of its own."""
    (project.root / "ask.py").write_text(ASK)
    (project.root / "word.txt").write_text("from the project\n")
    project.write({"test": command}, containers='["mail"]')
    lines = "\n".join(f"{key} = {value}" for key, value in settings.items())
    project.add(
        f'[cleanroom]\nimage = "{IMAGE}"\n[cleanroom.services.mail]\nimage = "{image}"\n{lines}\n'
    )


def test_an_image_is_a_service_as_it_is(engine: EngineName, mail: str, project: Project):
    """Its command, variables and folder are the image's, its port is led to another one,
    phases get their variables, its output is a log of the run, its uid is not root's.
    """
    settings = {
        "ready": '{ http = ":9100/health" }',
        "port": "8100",
        "env": '{ MAIL_URL = "http://{host}:{port}/letter" }',
        "variables": '{ OWN = "mine" }',
    }
    with_mail(
        project,
        mail,
        "python3 ask.py $MAIL_URL && python3 ask.py http://mail:8100/by-name",
        settings,
    )
    answer = ran(project, engine)
    assert answer.code == 0, answer.err
    told = [line for line in log(project, answer, "test").splitlines() if "told" in line]
    assert len(told) == 2
    assert all("/srv|hello|mine|12" in line for line in told), told
    output = log(project, answer, "service-mail")
    assert {"asked for /health", "asked for /letter", "asked for /by-name"} <= set(
        output.splitlines()
    )
    assert "mail is up as 0" not in output
    assert (
        answer.result["ledger"]["left"],
        labelled(engine, answer.result["run_id"]),
        project.settled(),
    ) == ([], [], {})


@pytest.mark.parametrize(
    "ready", ['{ log = "mail is up" }', '{ command = "python3 ask.py http://127.0.0.1:9100/" }']
)
def test_a_command_of_the_project_runs_in_the_image(
    engine: EngineName, mail: str, project: Project, ready: str
):
    """Beside the project's files, which it reads and may not write;
    ready by a line of its output, or by a command in its container.
    """
    command = [
        "sh",
        "-c",
        "touch mine 2>/dev/null && echo written; exec python3 /opt/server.py word.txt",
    ]
    again = (
        "for n in 1 2 3 4 5 6 7 8 9; do python3 ask.py http://mail:9100/ && exit 0; sleep 0.3; "
        "done; exit 1"
    )
    with_mail(
        project, mail, again, {"command": json.dumps(command), "ready": ready, "port": "9100"}
    )
    answer = ran(project, engine)
    assert answer.code == 0, answer.err
    assert f"told {project.root}|hello||from the project" in log(project, answer, "test")
    assert "written" not in log(project, answer, "service-mail")
    assert not (project.root / "mine").exists()


@pytest.mark.parametrize(
    ("phase", "service", "hint"),
    [
        ("registry.invalid/nothing:1", "", "pull registry.invalid/nothing:1"),
        (IMAGE, "registry.invalid/mail:2", "pull registry.invalid/mail:2"),
        (IMAGE, "cleanroom/nothing", "image build"),
    ],
)
def test_a_missing_image_is_said_with_what_brings_it(
    engine: EngineName, project: Project, phase: str, service: str, hint: str
):
    """Exit 2, before anything is started; nothing is pulled,
    neither for a phase nor for a service.
    """
    project.write({"test": "true"}, **({"containers": '["mail"]'} if service else {}))
    project.add(f'[cleanroom]\nimage = "{phase}"\n')
    if service:
        project.add(f'[cleanroom.services.mail]\nimage = "{service}"\nready = {{ tcp = 9100 }}\n')
    answer = ran(project, engine)
    assert (answer.code, "CR-CONTAINER-006" in answer.err, hint in answer.err) == (2, True, True), (
        answer.err
    )
    assert project.settled() == {}


# A world of our own: another machine, which is a network namespace behind a pair of devices,
# has an address that counts as public; a name leads there.
WORLD = """
ip link set lo up
unshare --net sh -ec 'until ip link set there up 2>/dev/null; do sleep 0.05; done; ip address add 93.184.216.34/24 dev there; exec /usr/bin/python3 "$0"' \\
  "$0/outside.py" >/dev/null 2>&1 & echo $! > "$0/outside.pid"
until [ "$(readlink /proc/$!/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.05; done
ip link add here type veth peer name there netns $!
ip address add 93.184.216.1/24 dev here
ip link set here up
printf '127.0.0.1 localhost\\n93.184.216.34 declared.example.org\\n' > "$0/hosts"
mount --bind "$0/hosts" /etc/hosts
exec "$@"
"""  # noqa: E501
OUTSIDE = """
import socket
listening = socket.create_server(("93.184.216.34", 9443))
while True:
    end, _ = listening.accept()
    end.sendall(b"from outside " + end.recv(100))
    end.close()
"""
OUT = """
import socket
with socket.create_connection(("declared.example.org", 9443), 5) as end:
    end.sendall(b"as declared")
    print("told", end.recv(100).decode())
for address in (("declared.example.org", 9444), ("93.184.216.34", 9443)):
    try:
        socket.create_connection(address, 5)
        print("reached", address)
    except OSError as error:
        print("refused", error.errno)
"""


@pytest.mark.parametrize("declared", ["declared.example.org", "*.example.org"])
def test_a_declared_host_is_reached_and_nothing_beside_it(
    engine: EngineName, project: Project, tmp_path: Path, declared: str
):
    """Through the relay outside, by its name and port; another port of it and its bare address are
    refused, named with their process, and fail the phase.
    """
    (tmp_path / "outside.py").write_text(OUTSIDE)
    (project.root / "out.py").write_text(OUT)
    project.write({"test": "python3 out.py"}, egress=f'["{declared}:9443"]')
    project.add(f'[cleanroom]\nimage = "{IMAGE}"\n')
    try:
        answer = ran(
            project,
            engine,
            "unshare",
            "--mount",
            "--net",
            "--propagation",
            "slave",
            "sh",
            "-ec",
            WORLD,
            str(tmp_path),
        )
    finally:
        subprocess.run(["kill", (tmp_path / "outside.pid").read_text().strip()], check=True)
    said = log(project, answer, "test")
    assert "told from outside as declared" in said, answer.err
    assert "reached" not in said
    assert (answer.code, answer.phase("test")["hermetic"]) == (1, False)
    seen = [
        (row["target"].get("host"), row["target"].get("port"), row["process"]["argv"][-1])
        for row in answer.result["violations"]
    ]
    assert ("declared.example.org", 9444, "out.py") in seen, seen
    assert (answer.result["ledger"]["left"], labelled(engine, answer.result["run_id"])) == ([], [])


CLIENTS = (
    "set -e; version=$(psql -XAtc 'SHOW server_version');"
    ' for name in psql pg_dump pg_restore createdb; do $name --version | grep -F "$version"; done;'
    " psql -Xqc 'CREATE TABLE item (id int)'; pg_dump | grep -q 'CREATE TABLE public.item';"
    " createdb second; pg_dump -Fc | pg_restore -d second"
)


def test_a_phase_has_the_clients_of_the_servers_image(engine: EngineName, project: Project):
    """With the libraries that they need, of which the phase's own image has none."""
    require(engine, "cleanroom/postgres")
    project.write({"test": f"! ls /usr/lib/*/libpq.so*; {CLIENTS}"}, containers='["postgres"]')
    project.add(f'[cleanroom]\nimage = "{IMAGE}"\n')
    # the second run has the data that the first one has prepared
    for _ in range(2):
        answer = ran(project, engine)
        assert answer.code == 0, answer.err


def test_clients_of_the_phases_own_image_go_before(engine: EngineName, project: Project):
    """What somebody put into an image is what they want."""
    require(engine, "cleanroom/postgres")
    command = "case $(command -v psql) in /usr/lib/*) ;; *) exit 9 ;; esac"
    project.write({"test": command}, containers='["postgres"]')
    project.add('[cleanroom]\nimage = "cleanroom/postgres"\n')
    answer = ran(project, engine)
    assert answer.code == 0, answer.err


def test_a_link_in_place_of_the_copied_clients_shows_no_folder_of_the_host(
    engine: EngineName, project: Project, tmp_path: Path
):
    """Init files write to the folder in which the clients lie; here a link would be followed."""
    require(engine, "cleanroom/postgres")
    (tmp_path / "psql").write_text("#!/bin/sh\necho of the host\n")
    (tmp_path / "psql").chmod(0o755)
    (project.root / "init.sql").write_text(
        f"\\! rm -rf /var/cleanroom/data/clients; mkdir -p {tmp_path}; "
        f"ln -s {tmp_path} /var/cleanroom/data/clients\n"
    )
    project.write({"test": "psql; ls -R / 2> /dev/null | grep psql"}, containers='["postgres"]')
    project.add(f'[cleanroom]\nimage = "{IMAGE}"\n')
    project.add('[cleanroom.services.postgres]\ninit = ["init.sql"]\n')
    answer = ran(project, engine)
    assert answer.code == 1, answer.err
    assert "of the host" not in log(project, answer, "test")
