"""Fixtures: the engine and real servers for the tests of any project.

Loaded by every pytest run of an environment that has this package,
so nothing but pytest is imported before a fixture is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import pytest

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

    from cleanroom.engine import RunOptions
    from cleanroom.evidence.reports.result import RunResult
    from cleanroom.servers import Database, KeyValue, PostgresServer, RedisServer


def pytest_addoption(parser: pytest.Parser) -> None:
    """The settings, for pytest.ini or [tool.pytest.ini_options], and one option."""
    parser.addini(
        "cleanroom_postgres_init",
        "SQL files that fill the database which every test's own one begins as",
        type="paths",
        default=[],
    )
    parser.addini(
        "cleanroom_postgres_superuser",
        "whether the role that owns the databases is a superuser",
        type="bool",
        default=False,
    )
    for kind, server in (("postgres", "PostgreSQL"), ("redis", "Valkey or Redis")):
        parser.addini(
            f"cleanroom_{kind}_version",
            f"the version that {server} has to have, such as 18",
            type="string",
            default="",
        )
        parser.addini(
            f"cleanroom_{kind}_options",
            f"settings of {server}, one a line: NAME = VALUE",
            type="linelist",
            default=[],
        )
    parser.getgroup("cleanroom").addoption(
        "--cleanroom-spans",
        action="store_true",
        help=(
            "make each test a span, sent where the OTEL_* variables say (needs opentelemetry-sdk "
            "and its OTLP exporter)"
        ),
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the spans of tests where `--cleanroom-spans` asks for them, but for the process of
    pytest-xdist that only distributes tests.

    Raises:
        pytest.UsageError: OpenTelemetry's packages are not installed.
    """
    if not config.getoption("cleanroom_spans") or getattr(config.option, "numprocesses", None):
        return
    try:
        from cleanroom.evidence.tracing.testing import TestSpans

        config.pluginmanager.register(TestSpans(), "cleanroom-spans")
    except ImportError as error:
        from cleanroom.core.installation import install_line

        needed = f"--cleanroom-spans needs {error.name}: {install_line('otlp')}"
        raise pytest.UsageError(needed) from error


class Cleanroom:
    """Runs phases of projects from tests that are not async;
    those that are use `cleanroom.open`.
    """

    def __init__(self, portal: BlockingPortal, root: Path) -> None:
        self._portal = portal
        self._root = root

    def pipeline(
        self, *phases: str, project: str | Path | None = None, **options: Unpack[RunOptions]
    ) -> RunResult:
        """As `Engine.pipeline`.

        `project` is pytest's root unless said; `options` are those of `cleanroom.open`.

        Raises:
            CleanroomError: there is no run, because the plan does not stand.
        """
        return self._portal.call(
            partial(_run_phases, project or self._root, phases, single=False, options=options)
        )

    def run(
        self, phase: str, *, project: str | Path | None = None, **options: Unpack[RunOptions]
    ) -> RunResult:
        """As `Engine.run`. Arguments and errors are those of `pipeline`."""
        return self._portal.call(
            partial(_run_phases, project or self._root, (phase,), single=True, options=options)
        )


async def _run_phases(
    project: str | Path, phases: tuple[str, ...], *, single: bool, options: RunOptions
) -> RunResult:
    from cleanroom.engine import open

    async with open(project, **options) as engine:
        return await (engine.run(phases[0]) if single else engine.pipeline(*phases))


@pytest.fixture(scope="session")
def _cleanroom_portal() -> Iterator[BlockingPortal]:
    """An event loop in a thread of its own, so that servers and runs live beside any test,
    async or not.
    """
    from anyio.from_thread import start_blocking_portal

    with start_blocking_portal("asyncio") as portal:
        yield portal


@pytest.fixture(scope="session")
def cleanroom(_cleanroom_portal: BlockingPortal, pytestconfig: pytest.Config) -> Cleanroom:
    """Run a project's phases:
    `cleanroom.pipeline("init", "test", project=...)` gives the result as data.
    """
    return Cleanroom(_cleanroom_portal, pytestconfig.rootpath)


@pytest.fixture(scope="session")
def cleanroom_postgres_server(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PostgresServer]:
    """The PostgreSQL server of this test process, for fixtures of any scope, async or not.

    Its log is in pytest's temporary folder.
    """
    from cleanroom import servers

    opened = servers.postgres(
        init=pytestconfig.getini("cleanroom_postgres_init"),
        version=pytestconfig.getini("cleanroom_postgres_version"),
        superuser=pytestconfig.getini("cleanroom_postgres_superuser"),
        options=_options(pytestconfig, "cleanroom_postgres_options"),
        folder=tmp_path_factory.mktemp("cleanroom-postgres"),
    )
    with _with_short_errors(opened) as server:
        yield server


@pytest.fixture(scope="session")
def cleanroom_postgres_template() -> Callable[[Database], object] | None:
    """Override it to make what every test's database begins with: return a function that is given
    a database and fills it, such as one that runs migrations.
    """
    return None


@pytest.fixture
def cleanroom_postgres(
    cleanroom_postgres_server: PostgresServer,
    cleanroom_postgres_template: Callable[[Database], object] | None,
) -> Iterator[Database]:
    """A PostgreSQL database of this test's own, as `cleanroom_postgres_init` and
    `cleanroom_postgres_template` filled one: url, host, port, user, password, database, variables.
    """
    opened = cleanroom_postgres_server.database(template=cleanroom_postgres_template)
    with _with_short_errors(opened) as database:
        yield database


@pytest.fixture(scope="session")
def cleanroom_redis_server(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    """The Valkey or Redis server of this test process. Its log is in pytest's temporary folder."""
    from cleanroom import servers

    opened = servers.redis(
        version=pytestconfig.getini("cleanroom_redis_version"),
        options=_options(pytestconfig, "cleanroom_redis_options"),
        folder=tmp_path_factory.mktemp("cleanroom-redis"),
    )
    with _with_short_errors(opened) as server:
        yield server


@pytest.fixture
def cleanroom_redis(cleanroom_redis_server: RedisServer) -> KeyValue:
    """An empty Valkey or Redis: url, host, port, password, database, variables.

    Whatever an earlier test left was removed, connections too.
    """
    with _short_errors():
        cleanroom_redis_server.clear()
    return cleanroom_redis_server.keyvalue


def _options(config: pytest.Config, setting: str) -> dict[str, str]:
    pairs = [line.partition("=") for line in config.getini(setting)]
    return {name.strip(): value.strip() for name, _, value in pairs}


@contextmanager
def _with_short_errors(manager: AbstractContextManager[Any]) -> Iterator[Any]:
    """Entered and left so that an error of ours is shown as its message and not as our call
    stack.
    """
    with _short_errors():
        value = manager.__enter__()
    yield value
    with _short_errors():
        manager.__exit__(None, None, None)


@contextmanager
def _short_errors() -> Iterator[None]:
    from cleanroom.model.errors import CleanroomError

    try:
        yield
    except CleanroomError as error:
        hint = f"; hint: {error.hint}" if error.hint else ""
        pytest.fail(
            f"error[{error.code}]: {error}{hint}; explain: cleanroom-engine explain {error.code}",
            pytrace=False,
        )
