"""What phases do with the services that they are given, through the whole engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cleanroom.services.programs import all_postgres
from support.command_harness import Project
from support.tiers_harness import engine

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]

# The tools of the server's own version, before any other on PATH; nothing else of the server's
# folder.
CLIENTS = (
    "set -e; version=$(psql -XAtc 'SHOW server_version');"
    " for name in psql pg_dump pg_restore createdb; do $name --version | grep -wF $version; done;"
    " psql -Xqc 'CREATE TABLE item (id int)'; pg_dump | grep -q 'CREATE TABLE public.item';"
    " createdb second; pg_dump -Fc | pg_restore -d second;"
    " case $(command -v initdb) in *postgres*) exit 9 ;; esac"
)


@pytest.mark.parametrize("policy", ["Low", "Medium", "High"])
def test_a_phase_has_the_clients_of_the_servers_version(project: Project, policy: str):
    """psql and pg_dump are those of the server, whatever PATH has."""
    project.write({"test": CLIENTS}, containers='["postgres"]', policy=f'"{policy}"')
    result = project.call("run", "test").result
    assert result["outcome"] == "passed", result["phases"][0]["excerpt"]


def test_a_phase_without_namespaces_has_them_too(project: Project, tmp_path: Path):
    """In tier E3, where paths inside are led to others."""
    project.write({"test": CLIENTS}, containers='["postgres"]')
    status, result, said = engine(
        "namespaces", "run", "test", cwd=project.root, cache=tmp_path / "cache"
    )
    assert (status, result["tier"]) == (0, "E3"), said


def test_a_dump_that_a_phase_wrote_is_the_initial_state_of_the_next_run(project: Project):
    """pg_dump's own format, in a folder of init files; the phase that wrote it is no server."""
    (project.root / "db").mkdir()
    (project.root / "db/1.sql").write_text("CREATE TABLE item AS SELECT 7 AS id;\n")
    project.write(
        {
            "dump": "pg_dump -Fc -f 'db/a dump.dump' && rm db/1.sql",
            "look": "psql -XAtc 'SELECT id FROM item' | grep -x 7",
        },
        containers='["postgres"]',
    )
    project.add('[cleanroom.services.postgres]\ninit = ["db"]\n')
    for phase in ("dump", "look"):
        result = project.call("run", phase).result
        assert result["outcome"] == "passed", result["phases"][0]["excerpt"]
    assert [path.name for path in (project.root / "db").iterdir()] == ["a dump.dump"]


def test_what_migrations_create_and_the_server_lacks_is_said_before_any_phase(project: Project):
    """A warning with file and line; of what git ignores nothing, since no phase runs it."""
    project.write({"test": "psql -XAtc 'SELECT 1'"}, containers='["postgres"]')
    for name, extension in (("migrations/1.py", "nosuch"), ("copies/migrations/2.sql", "copied")):
        (project.root / name).parent.mkdir(parents=True)
        (project.root / name).write_text(f'\nx = """CREATE EXTENSION {extension};"""\n')
    subprocess.run(["git", "init", "-q", project.root], check=True)
    (project.root / ".gitignore").write_text("copies/\n")
    answer = project.call("run", "test")
    assert answer.result["outcome"] == "passed", answer.err
    assert "migrations/1.py:2: nosuch" in answer.err
    assert "copied" not in answer.err
    assert answer.err.index("CR-SERVICE-035") < answer.err.index("phase test")


def test_an_extension_for_superusers_only_is_said_before_the_server_refuses_it(project: Project):
    """The warning is true: with what it says, and only so, the migration runs."""
    (project.root / "migrations").mkdir()
    (project.root / "migrations/1.sql").write_text("CREATE EXTENSION pg_stat_statements;\n")
    project.write(
        {"test": "psql -Xqv ON_ERROR_STOP=1 -f migrations/1.sql"}, containers='["postgres"]'
    )
    refused = project.call("run", "test")
    project.add("[cleanroom.services.postgres]\nsuperuser = true\n")
    allowed = project.call("run", "test")

    said = "migrations/1.sql:1: pg_stat_statements"
    assert (refused.result["outcome"], said in refused.err) == ("failed", True), refused.err
    assert (allowed.result["outcome"], said in allowed.err) == ("passed", False), allowed.err


API = """#!/usr/bin/python3
import http.server, os, socket
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        socket.create_connection((os.environ["PGHOST"], int(os.environ["PGPORT"]))).close()
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""


def test_a_service_that_a_phase_built_reaches_the_database(project: Project):
    """It starts when the phase has passed and the database is ready; each replica has a port."""
    (project.root / "api.py").write_text(API)
    (project.root / "make.toml").write_text(
        """
[project]
name = "built"
[cleanroom.services.api]
command = ["./out/api"]
after = "build"
depends_on = ["postgres"]
replicas = 2
ready = { http = ":8000/" }
[lifecycle.build]
command = "sleep 1; mkdir out; cp api.py out/api; chmod +x out/api"
[lifecycle.test]
command = "curl -sSf $CLEANROOM_API_URL && curl -sSf $CLEANROOM_API_2_URL"
cleanroom.containers = ["api"]
"""
    )
    answer = project.call("pipeline", "build", "test")
    assert answer.result["outcome"] == "passed", answer.err
    assert all(service["restarts"] == 0 for service in answer.result["services"])
    (project.root / "out/api").unlink()
    assert project.call("run", "test").result["outcome"] != "passed"


def test_a_phase_verifies_the_certificate_of_its_database(project: Project):
    """With libpq's variables, at its address and at its name; plain connections work too."""
    with_tls = [server for server in all_postgres(os.environ["PATH"]) if server.source == "path"]
    if not with_tls or shutil.which("openssl") is None:
        pytest.skip("no PostgreSQL of the distribution, or no openssl")
    ask = "psql -XAtc 'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()'"
    project.write(
        {
            "test": f"{ask} | grep -x t && PGHOST=localhost {ask} | grep -x t"
            f" && PGSSLMODE=disable {ask} | grep -x f"
        },
        containers='["postgres"]',
    )
    version = with_tls[0].version
    project.add(f'[cleanroom.services.postgres]\ntls = true\nversion = "{version}"\n')
    result = project.call("run", "test").result
    assert result["outcome"] == "passed", result["phases"][0]["excerpt"]
