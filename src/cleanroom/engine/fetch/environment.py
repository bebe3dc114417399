"""Environments of the fetch step: a downloader of ours, or a tool of the caller's.

Each has canaries as any other, reaches the named registries and nothing else, and sees no file of
the project.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import msgspec

from cleanroom.backends.base import (
    EgressRule,
    EnvironmentSpec,
    ExecResult,
    Mount,
    Reach,
    Stream,
)
from cleanroom.dependencies import inside
from cleanroom.dependencies.session import WORK, ToolResult
from cleanroom.dependencies.settings import secrets_of
from cleanroom.engine.fetch.find import tools_image
from cleanroom.engine.phases.environment_spec import HOME, inside_path
from cleanroom.engine.phases.prove import prove
from cleanroom.engine.supervision.context import RunContext
from cleanroom.engine.supervision.environments import EnvironmentObserver
from cleanroom.model.errors import EnvironmentFailed
from cleanroom.model.policy import GIB, Level, default_policy

# Inside: the folder with what is served and ordered.
ORDERS = "/var/lib/cleanroom-orders"
WALL_SECONDS = 3600.0
DISK_BYTES = 50 * GIB
OUTPUT_BYTES = 64 << 10
FORBIDDEN = "CR-FETCH-007"  # the code of an environment that tried what is forbidden

# Called with each piece of output, on the event loop.
OnBytes = Callable[[bytes], None]


class Orders(NamedTuple):
    """What one environment of the fetch step is for."""

    argv: Sequence[str]
    work: Path  # a folder of the host that the program may write to
    orders: Path  # a folder of the host that it may read
    egress: Sequence[str] = ()  # "HOST:PORT"
    private: frozenset[str] = frozenset()  # those that the caller's configuration names
    variables: Mapping[str, str] = {}
    folders: Sequence[str] = ()  # further folders, shown read-only at their own paths
    image: str = ""  # that the program is of; "" for the host's


class FetchEnvironments:
    """Makes the environments of one run's fetch step."""

    def __init__(self, context: RunContext, observer: EnvironmentObserver) -> None:
        self._context = context
        self._observer = observer
        self._numbers = itertools.count(1)
        # that phases' tools are of; "" for the host's
        self.image = tools_image(context.plan)
        # of tools that are asked once for a run, by words, files and variables
        self.answers: dict[Hashable, ToolResult] = {}

    def conceal(self, authorizations: Iterable[str]) -> None:
        """Show these values of Authorization headers, and the logins in them, nowhere."""
        names = self._context.plan.shown_names
        secrets = (secret for value in authorizations for secret in secrets_of(value))
        hidden = (one for one in secrets if not any(one in name for name in names))
        self._context.redactor.add(*hidden)

    async def run(self, orders: Orders, on_bytes: OnBytes) -> ExecResult:
        """Run one program in an environment of its own, after its canaries.

        Raises:
            PolicyRefused: a canary was not stopped.
            EnvironmentFailed: it could not be made, or broke, or the program broke a rule.
        """
        spec = self._spec(orders)

        def take(_stream: Stream, data: bytes) -> None:
            on_bytes(data)

        async with self._observer.environment(spec, of="fetch") as observed:
            await prove(self._context, observed)
            result = await observed.environment.exec(
                orders.argv, on_output=take, timeout_seconds=WALL_SECONDS
            )
        if observed.violations:
            raise EnvironmentFailed(
                FORBIDDEN,
                f"{orders.argv[0]}: it tried what the policy of the fetch step forbids",
                hint="the violations are in the report; the files that it fetched are not used",
            )
        return result

    def _spec(self, orders: Orders) -> EnvironmentSpec:
        plan = self._context.plan
        policy = default_policy(Level.MEDIUM)
        limits = msgspec.structs.replace(
            policy.limits, wall_seconds=WALL_SECONDS, disk_bytes=DISK_BYTES
        )
        shown = plan.own_tools if orders.image else (*plan.tools, *plan.own_tools)
        tools = tuple(dict.fromkeys((*shown, *orders.folders)))
        return EnvironmentSpec(
            id=f"fetch-{next(self._numbers)}",
            run_id=self._context.run_id,
            role="phase",
            policy=msgspec.structs.replace(policy, limits=limits, egress=tuple(orders.egress)),
            variables=self._variables(tools, orders),
            working_directory=WORK,
            mounts=(
                *(Mount(source=tool, target=tool) for tool in tools),
                Mount(source=str(orders.work), target=WORK, writable=True),
                # Writable mounts belong to the environment's user: it may read what is ordered.
                Mount(source=str(orders.orders), target=ORDERS, writable=True),
            ),
            egress=tuple(_rule(entry, orders.private) for entry in orders.egress),
            image=orders.image,
            on_host=not orders.image,
            seed=plan.seed,
        )

    def _variables(self, tools: Sequence[str], orders: Orders) -> dict[str, str]:
        plan, caller = self._context.plan, self._context.caller
        path = {} if orders.image else {"PATH": inside_path(caller.get("PATH", ""), tools)}
        return {
            **path,
            "HOME": HOME,
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "TMPDIR": "/tmp",  # noqa: S108 -- the environment's own
            "CLEANROOM": "1",
            **({} if orders.image else plan.tool_variables),
            **orders.variables,
        }


def python_program(name: str) -> tuple[list[str], list[str], dict[str, str]]:
    """How to run the program `name` of `dependencies/inside` with this Python, on the host.

    Nothing of it is loaded here.
    Returns the beginning of its argument list, the folders it needs, and variables.
    """
    program = Path(inside.__file__).parent / f"{name}.py"
    found = find_spec("urllib3")
    assert found is not None, "it is a dependency of ours"
    assert found.origin is not None, "it is a package with a file"
    library = Path(found.origin).parent
    folders = [str(program.parent), str(library)]
    if not sys.base_prefix.startswith("/usr"):
        folders.append(sys.base_prefix)
    executable = str(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}")
    if not Path(executable).exists():
        executable = sys.executable
    # -S: no site-packages but the one library; -P: nothing from the folder it starts in.
    return (
        [executable, "-s", "-S", "-P", str(program)],
        folders,
        {"PYTHONPATH": str(library.parent), "PYTHONDONTWRITEBYTECODE": "1"},
    )


def image_program(name: str) -> tuple[list[str], list[str], dict[str, str]]:
    """As `python_program`, of a program that needs no library, with an image's own Python."""
    program = Path(inside.__file__).parent / f"{name}.py"
    return ["python3", "-I", "-S", str(program)], [str(program.parent)], {}


def _rule(entry: str, private: frozenset[str]) -> EgressRule:
    host, _, port = entry.rpartition(":")
    # A network that gives its registries documentation addresses has decided so itself.
    reach: Reach = "private" if entry in private else "documentation"
    return EgressRule(host=host.strip("[]"), port=int(port), reach=reach)
