"""The recipes against real servers: PostgreSQL and Valkey as an unprivileged user,
in folders of their own.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from cleanroom.model.plan import Ready, ServiceSpec
from cleanroom.services import TemplateCache, resolve
from cleanroom.services.base import Recipe
from cleanroom.services.probe import is_ready
from cleanroom.services.resp import ping, send_commands
from support.service_harness import (
    Plain,
    begin_with,
    environment,
    namespaces_work,
    ready,
    running,
    serving,
    template,
)

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(
        not namespaces_work(), reason="user and mount namespaces cannot be made here"
    ),
]

SCHEMA = (
    "CREATE TABLE item (id int PRIMARY KEY, name text);\nINSERT INTO item VALUES (1, 'it''s');\n"
)


@pytest.fixture
def prepared(shared_cache: TemplateCache, tmp_path: Path) -> Callable[..., Recipe]:
    def call(sql: str = SCHEMA, **changes: Any) -> Recipe:
        (tmp_path / "schema.sql").write_text(sql)
        spec = ServiceSpec(
            name="postgres", kind="postgres", init=(str(tmp_path / "schema.sql"),), **changes
        )
        return resolve((spec,), caller={}, root="/", cache=shared_cache)[0]

    return call


async def query(plain: Plain, sql: str, **overrides: str) -> tuple[int, str]:
    """Ask as a phase would: with its variables, over the socket."""
    psql = plain.recipe.administer[0]
    variables = {
        **plain.recipe.phase_variables,
        "PGHOST": "/run/cleanroom/postgres",
        "PGPORT": "5432",
        "PGPASSFILE": "/nowhere",
        **overrides,
    }
    return await plain.run(
        ["env", *(f"{name}={value}" for name, value in variables.items()), psql, "-XAtqc", sql]
    )


async def test_a_phase_finds_its_database_with_the_init_sql_applied(
    prepared: Callable[..., Recipe], shared_cache: TemplateCache
):
    """The role of the run reads what the init SQL wrote and owns what it made."""
    async with running(prepared(), shared_cache) as plain:
        assert await query(plain, "SELECT id, name FROM item") == (0, "1|it's\n")
        assert await query(plain, "ALTER TABLE item ADD price int; SELECT count(*) FROM item") == (
            0,
            "1\n",
        )


async def test_the_role_is_no_superuser_and_knows_no_other_password(
    prepared: Callable[..., Recipe], shared_cache: TemplateCache
):
    """The role can neither run programs nor enter as superuser;
    without a password nobody enters.
    """
    async with running(prepared(), shared_cache) as plain:
        assert await query(plain, "SHOW is_superuser") == (0, "off\n")
        assert (await query(plain, "COPY item FROM PROGRAM 'id'"))[0] == 1
        assert (await query(plain, "SELECT 1", PGUSER="postgres"))[0] == 2
        assert (await query(plain, "SELECT 1", PGPASSWORD=""))[0] == 2


async def test_the_role_makes_databases_unless_it_may_not(
    prepared: Callable[..., Recipe], shared_cache: TemplateCache
):
    """A test runner's database can be made, used and dropped; createdb = false forbids it."""
    async with running(prepared(), shared_cache) as plain:
        assert await query(plain, "CREATE DATABASE test_app TEMPLATE app") == (0, "")
        made = "CREATE EXTENSION citext; SELECT 'A'::citext = 'a', count(*) FROM item"
        assert await query(plain, made, PGDATABASE="test_app") == (0, "t|1\n")
        assert await query(plain, "DROP DATABASE test_app", PGDATABASE="postgres") == (0, "")
    async with running(prepared(createdb=False), shared_cache) as plain:
        assert (await query(plain, "CREATE DATABASE test_app"))[0] == 1


async def test_further_databases_and_users(
    prepared: Callable[..., Recipe], shared_cache: TemplateCache
):
    """The role owns the databases, init files reach them and grant to the users, whose objects it
    may give and take; each user has a password of its own.
    """
    sql = (
        "CREATE TABLE item (id int); CREATE TABLE theirs (id int);"
        'GRANT SELECT ON item TO "read-only"; GRANT CREATE ON SCHEMA public TO "read-only";'
        'ALTER TABLE theirs OWNER TO "read-only";\n'
        "\\connect reports\nCREATE TABLE report (id int);"
    )
    recipe = prepared(
        sql,
        databases=("reports",),
        users={"read-only": ""},
        env={"REPORTS": "{db_reports_url}", "READER": "{user_read_only_password}"},
    )
    assert recipe.undivided
    assert recipe.phase_variables["REPORTS"].endswith("/reports")
    assert recipe.phase_variables["CLEANROOM_POSTGRES_DB_REPORTS_URL"].endswith("/reports")
    reader = {"PGUSER": "read-only", "PGPASSWORD": recipe.phase_variables["READER"]}
    async with running(recipe, shared_cache) as plain:
        assert await query(plain, "SELECT count(*) FROM report", PGDATABASE="reports") == (0, "0\n")
        assert await query(plain, "SELECT count(*) FROM item", **reader) == (0, "0\n")
        assert (await query(plain, "INSERT INTO item VALUES (1)", **reader))[0] == 1
        assert (await query(plain, "DROP TABLE theirs"))[0] == 0
        password = recipe.phase_variables["PGPASSWORD"]
        assert (await query(plain, "SELECT 1", **{**reader, "PGPASSWORD": password}))[0] == 2


async def test_a_cluster_is_made_as_initdb_is_told(
    prepared: Callable[..., Recipe], shared_cache: TemplateCache
):
    """Its locale and its encoding are the project's."""
    recipe = prepared(SCHEMA, initdb=("--locale=C", "--encoding=LATIN1"))
    async with running(recipe, shared_cache) as plain:
        assert await query(plain, "SHOW server_encoding") == (0, "LATIN1\n")


async def test_a_folder_of_sql_and_dumps_is_run_by_name(
    shared_cache: TemplateCache, tmp_path: Path
):
    """SQL, packed SQL, and a dump in pg_dump's own format; other files are left alone."""
    folder = tmp_path / "db"
    folder.mkdir()
    (folder / "1.sql").write_text("CREATE TABLE item (id int);")
    (folder / "2.sql.gz").write_bytes(gzip.compress(b"INSERT INTO item VALUES (7);"))
    (folder / "README.md").write_text("not SQL")

    def spec(*init: Path) -> ServiceSpec:
        return ServiceSpec(name="postgres", kind="postgres", init=tuple(map(str, init)))

    def made(*init: Path) -> Recipe:
        return resolve((spec(*init),), caller={}, root=str(tmp_path), cache=shared_cache)[0]

    async with running(made(folder), shared_cache) as plain:
        assert await query(plain, "SELECT id FROM item") == (0, "7\n")
        dump = f"{Path(plain.recipe.administer[0]).parent}/pg_dump"
        argv = ["-Fc", "-h", "/run/cleanroom/postgres", "-U", "postgres", "-f"]
        for form, name in (("-Fc", "it's 3.dump"), ("-Fd", "3.folder")):
            argv[0] = form
            at = f"{plain.folder}/data/{name}"
            assert (await plain.run([dump, *argv, at, "app"]))[0] == 0
            shutil.move(at, tmp_path / name)
    for name in ("it's 3.dump", "3.folder"):
        recipe = made(tmp_path / name)
        assert recipe.prepare_inputs == (str(tmp_path / name),)
        async with running(recipe, shared_cache) as plain:
            assert await query(plain, "SELECT id FROM item") == (0, "7\n")


async def test_superuser_is_given_when_asked_for(
    prepared: Callable[..., Recipe], shared_cache: TemplateCache
):
    """superuser = true makes the role one."""
    async with running(prepared(superuser=True), shared_cache) as plain:
        assert await query(plain, "SHOW is_superuser") == (0, "on\n")


async def test_another_runs_password_opens_nothing(
    prepared: Callable[..., Recipe], shared_cache: TemplateCache
):
    """Two runs share a template and no credentials, nor state."""
    first, second = prepared(), prepared()
    assert first.template_key == second.template_key
    async with running(first, shared_cache) as plain:
        assert (await query(plain, "DELETE FROM item"))[0] == 0
    async with running(second, shared_cache) as plain:
        assert (await query(plain, "SELECT 1", PGPASSWORD=first.phase_variables["PGPASSWORD"]))[
            0
        ] == 2
        assert (await query(plain, "SELECT 1", PGPASSWORD=second.template_secret))[0] == 2
        assert await query(plain, "SELECT count(*) FROM item") == (0, "1\n")


async def test_options_reach_the_server(
    prepared: Callable[..., Recipe], shared_cache: TemplateCache
):
    """A setting of the project holds, quotes and backslashes included, beside ours for speed."""
    async with running(
        prepared(options={"work_mem": "5MB", "app.name": r"it's a \n"}), shared_cache
    ) as plain:
        assert await query(plain, "SHOW work_mem") == (0, "5MB\n")
        assert await query(plain, "SHOW app.name") == (0, "it's a \\n\n")
        assert await query(plain, "SHOW fsync") == (0, "off\n")


async def test_the_server_listens_on_its_socket_only(
    prepared: Callable[..., Recipe], shared_cache: TemplateCache
):
    """No TCP port is opened, so two runs cannot meet."""
    async with running(prepared(), shared_cache) as plain:
        assert await query(plain, "SHOW listen_addresses") == (0, "\n")
        assert plain.socket(plain.recipe.to).is_socket()


async def test_an_error_in_the_init_sql_names_file_and_line(
    prepared: Callable[..., Recipe], shared_cache: TemplateCache
):
    """The preparation fails with psql's own words, leaves no template and no server behind."""
    recipe = prepared("CREATE TABLE fine ();\n\nCREATE TABEL broken ();\n")
    with pytest.raises(RuntimeError, match=r"1-schema\.sql:3: ERROR:.*TABEL"):
        await template(recipe, shared_cache)
    assert shared_cache.lookup(recipe.template_key) is None


async def test_a_setting_the_server_refuses_ends_the_preparation(
    prepared: Callable[..., Recipe], shared_cache: TemplateCache
):
    """A wrong option is not waited for: the server's end ends the script,
    with the server's words.
    """
    with pytest.raises(RuntimeError, match="no_such_setting"):
        await template(prepared(options={"no_such_setting": "1"}), shared_cache)


async def test_the_probe_says_no_before_the_server_runs(prepared: Callable[..., Recipe]):
    """Nothing listening is not ready, and no error."""
    async with environment(prepared()) as plain:
        assert await is_ready(plain.recipe.probe, plain) is False


async def test_state_survives_a_restart_with_the_same_password(
    prepared: Callable[..., Recipe], shared_cache: TemplateCache
):
    """A server that was killed starts again on its own data,
    and personalising twice does no harm.
    """
    async with running(prepared(), shared_cache) as plain:
        await query(plain, "UPDATE item SET name = 'kept'")
        pid = (plain.folder / "data/cluster/postmaster.pid").read_text().split()[0]
        await plain.run(["kill", "-9", pid])
        with anyio.fail_after(10):
            while await is_ready(plain.recipe.probe, plain):
                await anyio.lowlevel.checkpoint()
        async with serving(plain) as process:
            await ready(plain, process)
            assert await query(plain, "SELECT name FROM item") == (0, "kept\n")


async def test_lock_files_of_a_killed_server_do_not_stop_the_next(
    prepared: Callable[..., Recipe], shared_cache: TemplateCache
):
    """A process id in an old lock file that now belongs to something else is no other server."""
    recipe = prepared()
    await template(recipe, shared_cache)
    async with environment(recipe) as plain:
        begin_with(shared_cache.lookup(recipe.template_key), plain.folder / "data")
        async with await anyio.open_process(["sleep", "60"]) as other:
            for lock in ("data/cluster/postmaster.pid", "run/.s.PGSQL.5432.lock"):
                (plain.folder / lock).write_text(f"{other.pid}\n/elsewhere\n0\n5432\n\n\n")
            try:
                async with serving(plain) as process:
                    await ready(plain, process)
            finally:
                other.kill()


async def test_a_distributions_postgres_works_too(shared_cache: TemplateCache):
    """The recipe holds for another major version, from another source."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not folders:
        pytest.skip("this machine has no PostgreSQL of its own")
    spec = ServiceSpec(name="postgres", kind="postgres")
    (recipe,) = resolve(
        (spec,),
        caller={"CLEANROOM_POSTGRES_BIN": str(folders[-1].parent)},
        root="/",
        cache=shared_cache,
    )
    async with running(recipe, shared_cache) as plain:
        code, answer = await query(plain, "SHOW server_version")
        assert (code, answer.split()[0]) == (0, recipe.version)


async def test_valkey_answers_its_own_password_only(shared_cache: TemplateCache):
    """PING is answered to the run's password, and to none and another it is not."""
    (recipe,) = resolve(
        (ServiceSpec(name="redis", kind="redis"),), caller={}, root="/", cache=shared_cache
    )
    async with running(recipe, shared_cache) as plain:
        for password, expected in ((recipe.secrets[0], True), ("", False), ("wrong", False)):
            async with await plain.dial(recipe.to) as stream:
                assert await ping(stream, password) is expected


async def test_valkey_takes_the_projects_options(shared_cache: TemplateCache):
    """Settings of one word, of several, and of letters that need quoting are all read by the
    server.
    """
    options = {
        "maxmemory": "10mb",
        "client-output-buffer-limit": "normal 0 0 0",
        "proc-title-template": '{title} "x"',
        "save": "3600 1",
    }
    (recipe,) = resolve(
        (ServiceSpec(name="kv", kind="redis", options=options),),
        caller={},
        root="/",
        cache=shared_cache,
    )
    async with running(recipe, shared_cache) as plain, await plain.dial(recipe.to) as stream:
        await stream.send(
            (
                f"AUTH {recipe.secrets[0]}\r\nCONFIG GET maxmemory\r\nCONFIG GET save\r\n"
                "CONFIG GET port\r\n"
            ).encode()
        )
        answer = b""
        while not answer.endswith(b"$1\r\n0\r\n"):
            answer += await stream.receive()
        assert b"10485760" in answer
        assert b"3600 1" in answer


@pytest.mark.parametrize("by", ["http", "log", "command", "tcp"])
async def test_a_generic_server_becomes_ready(
    shared_cache: TemplateCache, free_tcp_port: int, by: str
):
    """A web server of the project is ready by each of the four ways to tell."""
    way = {
        "http": Ready(http=f":{free_tcp_port}/"),
        "tcp": Ready(tcp=free_tcp_port),
        "log": Ready(log="Serving HTTP"),
        "command": Ready(command="test -d /proc/self"),
    }[by]
    command = ("python3", "-u", "-m", "http.server", "--bind", "127.0.0.1", str(free_tcp_port))
    spec = ServiceSpec(name="web", kind="generic", command=command, ready=way, port=free_tcp_port)
    path = str(Path(shutil.which("python3") or "").parent)
    (recipe,) = resolve(
        (spec,), caller={"PATH": f"{path}:/usr/bin:/bin"}, root="/tmp", cache=shared_cache
    )
    async with running(recipe, shared_cache) as plain:
        assert await is_ready(recipe.probe, plain, plain.output)


def test_the_found_server_is_in_the_recipe_for_the_audit(prepared: Callable[..., Recipe]):
    """Path and digest of the binary that will run are told."""
    import hashlib

    recipe = prepared()
    assert hashlib.sha256(Path(recipe.server).read_bytes()).hexdigest() == recipe.server_sha256


async def test_each_user_of_valkey_may_do_what_its_rules_say(shared_cache: TemplateCache):
    """With a password of its own, which the project's own names give to phases."""
    spec = ServiceSpec(
        name="redis",
        kind="redis",
        users={"app.reader": "~app:* +@read +auth"},
        env={"READER": "{user_app_reader_password}"},
    )
    recipe = resolve((spec,), caller={}, root="/", cache=shared_cache)[0]
    word = recipe.phase_variables["READER"]
    assert word in recipe.secrets
    assert word in recipe.phase_variables["CLEANROOM_REDIS_USER_APP_READER_URL"]
    async with running(recipe, shared_cache) as plain:
        async with await plain.dial(recipe.to) as stream:
            login = ("AUTH", "app.reader", word)
            answers = await send_commands(
                stream, "", login, ("GET", "app:1"), ("GET", "b"), ("SET", "app:1", "x")
            )
        assert answers[:2] == ["+OK", "$-1"]
        assert [answer.partition(" ")[0] for answer in answers[2:]] == ["-NOPERM", "-NOPERM"]


async def test_an_append_only_valkey_finds_its_keys_after_a_crash(
    shared_cache: TemplateCache, tmp_path: Path
):
    """A restarted server has what was written before it was killed."""
    spec = ServiceSpec(name="redis", kind="redis", options={"appendonly": "yes"})
    recipe = resolve((spec,), caller={}, root="/", cache=shared_cache)[0]
    password = recipe.phase_variables["REDIS_URL"].split(":")[2].partition("@")[0]
    async with environment(recipe) as plain:
        for words in (("SET", "a", "1"), ("GET", "a")):
            async with serving(plain) as process:
                await ready(plain, process)
                async with await plain.dial(recipe.to) as stream:
                    answers = await send_commands(stream, password, words)
    assert answers[1] == "$1"
