"""Services that misbehave."""

from __future__ import annotations

from support.command_harness import Project
from support.faults.suite import CommandResult, fault, run

SERVICE = "a service"

# Answers each connection; what it does before it answers the first one is up to its text.
SERVER = """
import os, signal, socket, sys, time
listening = socket.create_server(("127.0.0.1", 9100))
while True:
    connection, _ = listening.accept()
    if connection.recv(1) == b"x":
        {deed}
    connection.sendall(b"hi")
    connection.close()
"""
CLIENT = (
    'import socket; end = socket.create_connection(("odd", 9100)); end.sendall(b"x"); '
    "print(end.recv(2))"
)


def with_service(
    project: Project,
    command: str,
    *,
    test: str = "true",
    ready: str = "tcp = 9100",
    more: str = "",
    **settings: str,
) -> None:
    project.write({"test": test}, containers='["odd"]', **settings)
    project.add(f"[cleanroom.services.odd]\ncommand = {command}\nready = {{ {ready} }}\n{more}\n")


def python(project: Project, text: str) -> str:
    (project.root / "server.py").write_text(text)
    return f'["/usr/bin/python3", "{project.root}/server.py"]'


@fault(
    SERVICE,
    "never becomes ready",
    (
        "each start is given its time; after the restarts it is given up, and the phase that "
        "needs it does not run"
    ),
    code=5,
    says="not ready after 0.3 s",
)
def never(project: Project) -> CommandResult:
    with_service(
        project, '["sleep", "100"]', ready='tcp = 9100, timeout = "300ms"', more="restarts_max = 1"
    )
    return run(project)


@fault(
    SERVICE,
    "ends before it is ready, each time",
    "the same, and its last words are told",
    code=5,
    says="no such option",
)
def ends(project: Project) -> CommandResult:
    with_service(
        project, '["sh", "-c", "echo no such option >&2; exit 2"]', more="restarts_max = 1"
    )
    return run(project)


@fault(
    SERVICE,
    "dies of what a phase asks it, each time",
    (
        "it is started again as often as allowed, then given up; the phase that uses it is "
        "ended, since it would wait for ever"
    ),
    code=5,
    says="service 'odd' was given up",
)
def dies(project: Project) -> CommandResult:
    again = "while true; do /usr/bin/python3 client.py; sleep 0.1; done"
    with_service(
        project,
        python(project, SERVER.format(deed="os._exit(3)")),
        test=again,
        more="restarts_max = 1",
    )
    (project.root / "client.py").write_text(CLIENT)
    return run(project)


@fault(
    SERVICE,
    "hangs while a phase waits for its answer",
    "the phase's timeout ends it, and the run the service",
    code=124,
    says="still running after 1 s",
)
def hangs(project: Project) -> CommandResult:
    deed = "os.kill(os.getpid(), signal.SIGSTOP)"
    with_service(
        project,
        python(project, SERVER.format(deed=deed)),
        test="/usr/bin/python3 client.py",
        timeout='"1s"',
    )
    (project.root / "client.py").write_text(CLIENT)
    return run(project)


@fault(
    SERVICE,
    "eats its memory",
    "it is killed for it, which is a violation of the run's limits although it is started again",
    code=1,
    says="resource.memory",
    groups=True,
)
def eats(project: Project) -> CommandResult:
    again = (
        "for n in 1 2 3 4 5 6 7 8 9; do /usr/bin/python3 client.py && exit 0; sleep 0.2; done; true"
    )
    with_service(
        project,
        python(project, SERVER.format(deed="held = [bytearray(1 << 20) for _ in range(600)]")),
        test=again,
    )
    project.add('[cleanroom]\nlimits = { memory = "256MiB" }\n')
    (project.root / "client.py").write_text(CLIENT)
    return run(project)
