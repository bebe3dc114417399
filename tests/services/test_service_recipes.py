"""What recipes contain: versions, ports, variables, and what a project may not ask for.

Nothing is started here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.model.errors import CleanroomError, ProjectError
from cleanroom.model.plan import Origin, Ready, ServiceSpec
from cleanroom.services import phase_variables, resolve
from cleanroom.services.base import PRIVATE, Recipe
from cleanroom.services.postgres_leases import lease_variables
from cleanroom.services.templates import TemplateCache

CALLER = {"PATH": "/usr/bin:/bin"}
Resolve = Callable[..., tuple[Recipe, ...]]


def postgres(name: str = "postgres", **changes: Any) -> ServiceSpec:
    return ServiceSpec(name=name, kind="postgres", origin=Origin("make.toml", 3), **changes)


def redis(name: str = "redis", **changes: Any) -> ServiceSpec:
    return ServiceSpec(name=name, kind="redis", origin=Origin("make.toml", 5), **changes)


def generic(name: str = "mail", **changes: Any) -> ServiceSpec:
    values = {"command": ("sleep", "9"), "ready": Ready(tcp=1025), **changes}
    return ServiceSpec(name=name, kind="generic", origin=Origin("make.toml", 7), **values)


@pytest.fixture
def resolved(shared_cache: TemplateCache) -> Resolve:
    numbers = itertools.count()

    def call(*specs: ServiceSpec) -> tuple[Recipe, ...]:
        return resolve(
            specs,
            caller=CALLER,
            root="/",
            cache=shared_cache,
            tools=("/opt/tools",),
            secrets=lambda: f"secret-{next(numbers)}",
        )

    return call


NAMED = {
    "DB_HOST": "{host}",
    "DB_PORT": "{port}",
    "DB_USER": "{user}",
    "DB_PASSWORD": "{password}",
    "DB_NAME": "{database}",
    "DSN": "{url}?sslmode=disable",
    "JSON": '{"a": {b}}',
}


def test_env_names_what_a_phase_gets_of_a_built_in_service(resolved: Resolve):
    """Host, port, user, password, database and URL come under the project's own names too."""
    pg, kv = resolved(postgres(env=NAMED), redis(env=NAMED))
    password = pg.phase_variables["PGPASSWORD"]
    assert {name: pg.phase_variables[name] for name in NAMED} == {
        "DB_HOST": "127.0.0.1",
        "DB_PORT": "5432",
        "DB_USER": "app",
        "DB_PASSWORD": password,
        "DB_NAME": "app",
        "DSN": f"{pg.phase_variables['DATABASE_URL']}?sslmode=disable",
        "JSON": '{"a": {b}}',
    }
    assert kv.phase_variables["DB_PASSWORD"] in kv.secrets
    assert kv.phase_variables["DSN"].startswith("redis://:")
    assert (kv.phase_variables["DB_USER"], kv.phase_variables["DB_NAME"]) == ("default", "0")


def test_env_names_the_leased_database_of_a_shared_server(resolved: Resolve):
    """A run with a database of its own gets that one's name and password."""
    (recipe,) = resolved(postgres(env=NAMED))
    found = lease_variables(recipe, "lease_7", "other")
    assert (found["DB_USER"], found["DB_NAME"], found["DB_PASSWORD"]) == (
        "lease_7",
        "lease_7",
        "other",
    )


def test_phases_get_the_documented_variables(resolved: Resolve):
    """The names of the design are there, and lead to the address in the phase's own network."""
    pg, kv = (recipe.phase_variables for recipe in resolved(postgres(), redis()))
    assert (
        pg["DATABASE_URL"]
        == pg["CLEANROOM_POSTGRES_URL"]
        == f"postgresql://app:{pg['PGPASSWORD']}@127.0.0.1:5432/app"
    )
    assert {name: pg[name] for name in pg if name.startswith("PG")} == {
        "PGHOST": "127.0.0.1",
        "PGPORT": "5432",
        "PGUSER": "app",
        "PGPASSWORD": "secret-0",
        "PGDATABASE": "app",
    }
    assert kv == {
        "REDIS_URL": "redis://:secret-1@127.0.0.1:6379/0",
        "CLEANROOM_REDIS_HOST": "127.0.0.1",
        "CLEANROOM_REDIS_PORT": "6379",
        "CLEANROOM_REDIS_URL": "redis://:secret-1@127.0.0.1:6379/0",
    }


def test_other_instances_get_names_and_ports_of_their_own(resolved: Resolve):
    """Two services of a kind can be named by one phase: the next free port,
    and a prefix from the name.
    """
    first, second = resolved(postgres(), postgres("orders-db"))
    assert (first.port, second.port) == (5432, 5433)
    assert second.phase_variables["CLEANROOM_ORDERS_DB_PORT"] == "5433"
    assert second.to == "unix:/run/cleanroom/orders-db/.s.PGSQL.5432"


def test_the_first_named_service_wins_a_shared_variable(resolved: Resolve):
    """DATABASE_URL is that of the service a phase names first; the others have their own names."""
    first, second = resolved(postgres(), postgres("second"))
    assert (
        phase_variables((second, first))["DATABASE_URL"] == second.phase_variables["DATABASE_URL"]
    )
    assert "CLEANROOM_POSTGRES_URL" in phase_variables((second, first))


def test_two_services_on_one_port_are_refused(resolved: Resolve):
    """A port asked for twice is an error that names both services."""
    with pytest.raises(ProjectError, match=r"make.toml:5:1.*redis.*'postgres'") as caught:
        resolved(postgres(port=7000), redis(port=7000))
    assert caught.value.code == "CR-SERVICE-007"


@given(ports=st.lists(st.sampled_from([0, 5432, 5433, 6379]), min_size=1, max_size=6))
def test_every_service_has_a_port_of_its_own(
    ports: list[int], tmp_path_factory: pytest.TempPathFactory
):
    """However ports are asked for, the result has no two alike, or is refused."""
    from cleanroom.services.recipes import _ports

    specs = [postgres(f"p{number}", port=port) for number, port in enumerate(ports)]
    asked = [port for port in ports if port]
    if len(set(asked)) < len(asked):
        with pytest.raises(ProjectError):
            _ports(specs)
        return
    found = _ports(specs)
    assert len(set(found.values())) == len(specs)
    assert all(found[spec.name] == spec.port for spec in specs if spec.port)


def test_a_version_that_is_not_there_names_the_one_found(resolved: Resolve):
    """version = "16" with another server installed is an error that says which, and where."""
    found = resolved(postgres())[0].version
    with pytest.raises(ProjectError, match=f"expected 1, found {found}") as caught:
        resolved(postgres(version="1"))
    assert caught.value.code == "CR-SERVICE-003"
    assert "CLEANROOM_POSTGRES_BIN" in caught.value.hint


@pytest.mark.parametrize(
    "settings",
    [
        {"databases": ("Shop",)},
        {"databases": ('a"b',)},
        {"databases": ("app",)},
        {"databases": ("template1",)},
        {"databases": ("run_7",)},
        {"users": {"pg_admin": ""}},
        {"users": {"reader": "SUPERUSER"}},
        {"initdb": ("--pgdata=/tmp/x",)},
        {"initdb": ("-Atrust",)},
        {"initdb": ("--auth-local=trust",)},
        {"initdb": ("--locale=C\n",)},
    ],
)
def test_what_the_engine_decides_is_no_setting(resolved: Resolve, settings: dict[str, Any]):
    """Names that need quoting or are the server's own, rights beyond the role's, the cluster's
    place and who may enter.
    """
    with pytest.raises(ProjectError) as caught:
        resolved(postgres(**settings))
    assert caught.value.code == "CR-SERVICE-005"
    assert next(iter(settings)) in caught.value.message


@pytest.mark.parametrize(
    "settings",
    [
        {"options": {"loadmodule": "/usr/lib/json.so"}},
        {"options": {"user": "x on nopass"}},
        {"users": {"default": "+@all"}},
        {"users": {"a b": "+@all"}},
        {"users": {"reader": "nopass +@all"}},
        {"users": {"reader": ">known +@all"}},
        {"users": {"reader": "+@all\nuser x on nopass"}},
    ],
)
def test_what_the_engine_decides_is_no_setting_of_valkey(
    resolved: Resolve, settings: dict[str, Any]
):
    """Modules, the user of the engine, passwords, and further lines of its configuration."""
    with pytest.raises(ProjectError) as caught:
        resolved(redis(**settings))
    assert caught.value.code == "CR-SERVICE-005"
    assert next(iter(next(iter(settings.values())))) in caught.value.message


def test_a_second_server_stands_beside_the_first(resolved: Resolve):
    """With a port and variables of its own; REDIS_URL is that of the first named."""
    first, second = resolved(redis(), redis("sessions", env={"SESSIONS_URL": "{url}"}))
    assert (first.port, second.port) == (6379, 6380)
    found = phase_variables((first, second))
    assert ":6379/" in found["REDIS_URL"]
    assert ":6380/" in found["SESSIONS_URL"]
    assert found["CLEANROOM_SESSIONS_PORT"] == "6380"


def test_programs_in_a_folder_of_init_files_are_refused_by_name(resolved: Resolve, tmp_path: Path):
    """The usual images run them; here they would be left out silently."""
    (tmp_path / "1.sh").touch()
    with pytest.raises(ProjectError, match=r"1\.sh"):
        resolved(postgres(init=(str(tmp_path),)))


def test_a_broken_gzip_file_is_named(resolved: Resolve, tmp_path: Path):
    """It is an error of the project."""
    (tmp_path / "1.sql.gz").write_bytes(b"\x1f\x8bnot so")
    with pytest.raises(ProjectError, match="gzip"):
        resolved(postgres(init=(str(tmp_path / "1.sql.gz"),)))


def test_a_version_may_be_a_prefix(resolved: Resolve):
    """The major number of what is installed is accepted, and so is the whole."""
    found = resolved(redis())[0].version
    assert resolved(redis(version=found.partition(".")[0]))[0].version == found
    assert resolved(redis(version=found))[0].version == found


def test_a_renewed_recipe_has_other_credentials_for_the_same_data(resolved: Resolve):
    """A run's passwords change, the one that the prepared data has does not."""
    made = resolved(postgres())[0]
    renewed = made.renewed(lambda: "another")
    assert renewed.template_secret == made.template_secret
    assert renewed.phase_variables["PGPASSWORD"] == "another"
    assert made.phase_variables["PGPASSWORD"] not in str(renewed)
    assert renewed.template_key == made.template_key


def test_every_secret_is_listed_for_redaction(resolved: Resolve):
    """No password stands in a recipe's files or variables that is not in `secrets`;
    none is in a command line.
    """
    for recipe in resolved(postgres(), redis()):
        assert len(recipe.secrets) >= 1
        text = " ".join(
            [
                *recipe.main,
                *recipe.variables.values(),
                *recipe.probe.argv,
                *itertools.chain(*recipe.prepare),
            ]
        )
        assert not any(secret in text for secret in recipe.secrets)
    assert resolved(postgres())[0].template_secret in resolved(postgres())[0].secrets


def test_the_template_depends_on_what_went_into_it(resolved: Resolve, tmp_path: Path):
    """Another run has the same key; one changed byte of SQL,
    an option or the superuser has another.
    """
    sql = tmp_path / "schema.sql"
    sql.write_text("CREATE TABLE a ();")

    def key(**changes: Any) -> str:
        return resolved(postgres(**changes))[0].template_key

    before = key(init=(str(sql),))
    assert before == key(init=(str(sql),))
    others = [
        key(),
        key(init=(str(sql),), options={"work_mem": "8MB"}),
        key(init=(str(sql),), superuser=True),
    ]
    sql.write_text("CREATE TABLE b ();")
    assert len({before, key(init=(str(sql),)), *others}) == 5


def test_the_template_does_not_depend_on_the_services_name(resolved: Resolve):
    """Two instances share one template: the name is in no path that is kept."""
    assert len({recipe.template_key for recipe in resolved(postgres(), postgres("other"))}) == 1


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_init_sql_that_cannot_be_read_is_the_projects_error(
    resolved: Resolve, tmp_path: Path, content: bytes | None
):
    """A missing file, or one that is not UTF-8, is named with the service and the line of
    make.toml.
    """
    path = tmp_path / "schema.sql"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ProjectError, match=r"make.toml:3:1: .*postgres.init.*schema.sql") as caught:
        resolved(postgres(init=(str(path),)))
    assert caught.value.code == "CR-SERVICE-004"


@pytest.mark.parametrize(
    "spec",
    [
        postgres(options={"listen_addresses": "*"}),
        postgres(options={"HBA_FILE": "/tmp/x"}),
        postgres(options={"a b": "1"}),
        postgres(options={"work_mem": "1MB\nport = 1"}),
        redis(options={"requirepass": ""}),
        redis(options={"port": "6379"}),
        redis(options={"maxmemory 1\nport": "1"}),
    ],
)
def test_settings_that_are_the_engines_are_refused(resolved: Resolve, spec: ServiceSpec):
    """Where a server listens and who may enter cannot be set, also not by smuggling a line."""
    with pytest.raises(ProjectError, match="options") as caught:
        resolved(spec)
    assert caught.value.code == "CR-SERVICE-005"


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        (generic(command=()), "CR-SERVICE-006"),
        (generic(command=("no-such-program",)), "CR-SERVICE-006"),
        (generic(ready=None), "CR-SERVICE-006"),
        (generic(ready=Ready(log="(")), "CR-SERVICE-006"),
        (generic(ready=Ready(http="/health")), "CR-SERVICE-006"),
    ],
)
def test_a_generic_service_that_makes_no_sense_is_refused(
    resolved: Resolve, spec: ServiceSpec, code: str
):
    """No command, no such program, no readiness, a pattern that is none,
    a health path without a port: each is an error at the service's line.
    """
    with pytest.raises(CleanroomError, match=r"make.toml:7:1") as caught:
        resolved(spec)
    assert caught.value.code == code


def test_a_generic_service_fills_in_its_variables(resolved: Resolve):
    """{host} and {port} become what a phase connects to; other braces stay."""
    (recipe,) = resolved(
        generic(env={"MAIL_URL": "smtp://{host}:{port}/{x}"}, variables={"MODE": "test"})
    )
    assert recipe.phase_variables["MAIL_URL"] == "smtp://127.0.0.1:1025/{x}"
    assert recipe.phase_variables["CLEANROOM_MAIL_PORT"] == "1025"
    assert recipe.variables["MODE"] == "test"
    assert (recipe.to, recipe.probe.kind) == ("tcp:1025", "tcp")


def test_a_generic_service_may_be_found_on_another_port(resolved: Resolve):
    """`port` is what phases use; inside the service listens where `ready` says."""
    (recipe,) = resolved(generic(port=25))
    assert (recipe.port, recipe.to) == (25, "tcp:1025")


def test_a_log_line_is_no_sign_of_health(resolved: Resolve):
    """A service that is ready by its log is not asked again:
    the line may long have left the kept output.
    """
    assert [
        recipe.health_seconds
        for recipe in resolved(generic(ready=Ready(log="ready")), generic("web"))
    ] == [0.0, 1.0]


@pytest.mark.parametrize("http", [":8080/health", "8080/health", "http://127.0.0.1:8080/health"])
def test_an_http_readiness_names_port_and_path(resolved: Resolve, http: str):
    """The three ways to write it mean the same."""
    (recipe,) = resolved(generic(ready=Ready(http=http)))
    assert (recipe.probe.to, recipe.probe.path, recipe.port) == ("tcp:8080", "/health", 8080)
    assert recipe.phase_variables["CLEANROOM_MAIL_URL"] == "http://127.0.0.1:8080"


def test_private_files_stand_in_private(resolved: Resolve):
    """Every file a command of ours names is among the recipe's files."""
    for recipe in resolved(postgres(), redis()):
        for word in itertools.chain(recipe.main, *recipe.prepare):
            if f"{PRIVATE}/" in word:
                assert word.rpartition("/")[2] in recipe.files
