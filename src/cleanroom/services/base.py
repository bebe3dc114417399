"""Recipes: everything that the supervisor needs to run a service. Values without I/O.

Inside its environment a service has its state in DATA and files that only it may read in PRIVATE.
It puts sockets into `run_folder(name)`, the one folder that phases' environments see too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from cleanroom.model.plan import ServiceKind

DATA = "/var/cleanroom/data"
PRIVATE = "/var/cleanroom/private"


def run_folder(name: str) -> str:
    """The folder of a service's sockets, inside its own environment and inside those of the phases
    that name it.
    """
    return f"/run/cleanroom/{name}"


def clients_folder(name: str) -> str:
    """The folder of a service's client programs, inside the environments of phases."""
    return f"/run/cleanroom/{name}.clients"


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """A request that a ready service answers.

    It is repeated with growing pauses until the service is ready, and then as its health check.
    """

    kind: Literal["exec", "resp", "sql", "tcp", "http", "log"]
    argv: tuple[str, ...] = ()  # exec: exits 0 when ready; run inside the service's environment
    # resp, sql, tcp, http: "unix:/path" or "tcp:PORT" as seen inside the service's environment
    to: str = ""
    password: str = ""  # resp, sql
    user: str = ""  # sql
    database: str = ""  # sql
    statements: tuple[str, ...] = ()  # sql: ready when each was carried out
    path: str = ""  # http: any status below 400 is ready
    pattern: str = ""  # log: regular expression, searched in all output since the start


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How to run one service once.

    Every value is final: made for one run, with that run's credentials.
    """

    name: str
    kind: ServiceKind
    version: str
    image: str = ""
    server: str = ""  # the server's program on the host, for the audit log
    server_sha256: str = ""
    # of PostgreSQL: the names of those that can be created; None where they are not known
    extensions: tuple[str, ...] | None = None
    programs: tuple[str, ...] = ()  # host folders, shown read-only at their own paths
    variables: dict[str, str] = {}  # the environment of the service's processes
    template_key: str = ""  # names the cached data folder; "" where there is no state to prepare
    # kept beside the cached data folder, readable by its owner only; "" where none is needed
    template_secret: str = ""
    # commands that fill DATA once, when the template is not cached; `files` are in PRIVATE
    prepare: tuple[tuple[str, ...], ...] = ()
    files: dict[str, str] = {}  # name -> text, in PRIVATE, mode 0600
    main: tuple[str, ...] = ()
    probe: Probe
    # used in place of `probe` until the service is ready, where the first success also has to make
    # the service this run's own
    first_probe: Probe | None = None
    # a command that runs the SQL statement appended to it, as the server's superuser; () where
    # there is none
    administer: tuple[str, ...] = ()
    working_directory: str = "/"
    # pause between health probes during the run; 0: a probe says nothing about a ready service
    health_seconds: float = 1.0
    start_timeout_seconds: float = 30.0
    stop_signal: int = 15
    port: int = 0  # where phases find it on 127.0.0.1
    ports: tuple[int, ...] = ()  # further ones, the same inside its environment
    # where the relay connects to, inside the service's environment:
    # "unix:/run/cleanroom/NAME/socket" or "tcp:PORT"
    to: str = ""
    phase_variables: dict[str, str] = {}  # environment variables of a phase that names it
    env: dict[str, str] = {}  # the project's own names for them: variable -> text with {facts}
    secrets: tuple[str, ...] = ()  # values to be redacted everywhere
    # a host folder of links to the server's client programs, for phases; "" where there are none
    clients: str = ""
    after: str = ""  # the phase that has to pass before it starts, where the run has it
    depends_on: tuple[
        str, ...
    ] = ()  # services that are ready before it starts, and that it reaches
    replica_of: str = ""  # the declared service that it is a further one of
    superuser: bool = False  # the phases' role is one
    # a pool lends the server to one run at a time: runs could not be kept apart in it
    undivided: bool = False
    # files and folders of the host that `prepare` reads, shown to it at their own paths
    prepare_inputs: tuple[str, ...] = ()
    createdb: bool = False  # the phases' role may make databases on the server
    restarts_max: int = 3
    restart_window_seconds: float = 60.0

    def renewed(self, secrets: Callable[[], str]) -> Recipe:
        """The same recipe for another run, with other credentials from `secrets`.

        That of the template stays: the prepared data has it.
        """
        text = msgspec.json.encode(self)
        for secret in self.secrets:
            if secret == self.template_secret:
                continue
            text = text.replace(secret.encode(), secrets().encode())
        return msgspec.json.decode(text, type=Recipe)
