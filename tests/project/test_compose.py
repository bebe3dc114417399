"""What `init --from compose.yaml` takes over."""

from __future__ import annotations

import contextlib
import json
import tempfile
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cleanroom.cli.app import app
from cleanroom.model.errors import ProjectError
from cleanroom.project import load
from cleanroom.project.init import write_make_toml
from support.golden_files import golden
from support.project_builder import NO_FLOOR, phase
from support.stranger_projects import STRANGERS, lay_out

WEB = """\
x-environment: &environment
  DB_HOST: db
  DB_PORT: 5432
  DB_USER: ${POSTGRES_USER:-shop}
  DB_PASSWORD: ${POSTGRES_PASSWORD}
  DB_NAME: shop
  DATABASE_URL: postgres://shop:secret@db:5432/shop?sslmode=disable
  REDIS_HOST: cache
  CELERY_BROKER: redis://cache:6379/0
  SEARCH: search:9200
  CACHE_BACKEND: redis
  DEBUG: on
  STATIC_ROOT: /srv/static
  HOME_PAGE: ${UNSET}
services:
  web:
    build: { context: . }
    environment: *environment
    depends_on: { db: { condition: service_healthy }, cache: {} }
  db:
    image: postgres:16-alpine
    environment: [POSTGRES_USER=shop, "POSTGRES_PASSWORD=${POSTGRES_PASSWORD}", POSTGRES_DB=shop]
    volumes: ["./db:/docker-entrypoint-initdb.d:ro", "data:/var/lib/postgresql/data"]
  cache: { image: "docker.io/valkey/valkey:8" }
  search: { image: "elasticsearch:8", environment: { discovery.type: single, ES_OPTS: "-m" } }
  adminer: { image: adminer, ports: ["8080:8080"] }
  worker: { image: "me/worker" }
"""
INFRA = """\
services:
  postgres: { image: "postgis/postgis:16-3.4", ports: ["127.0.0.1:5433:5432"] }
  redis: { image: redis, ports: [{ target: 6379, published: "6379" }] }
  tools: { image: mailpit, expose: [1025], profiles: [tools] }
"""
BROKER = """\
services:
  api: { build: ./backend, environment: ["AMQP_URL=amqp://guest:guest@mq:5672/"] }
  mq:
    image: rabbitmq:3
    command: [rabbitmq-server, --quiet]
    expose: ["5672"]
"""
PROJECTS = {
    "compose-web": {
        **STRANGERS["python-django"],
        ".env": "# x\nexport POSTGRES_PASSWORD='secret'\n",
        "db/2.sql": "",
        "db/1.sql": "",
        "compose.yaml": WEB,
    },
    "compose-infrastructure": {**STRANGERS["node-npm"], "compose.yaml": INFRA},
    "compose-monorepo": {
        **STRANGERS["monorepo"],
        "backend/tests/test_x.py": "def test_x(): pass\n",
        "compose.yaml": BROKER,
    },
}


@pytest.mark.parametrize("name", PROJECTS)
def test_services_and_names_of_variables_are_taken_over(tmp_path: Path, name: str):
    """The golden file has the services, and in their env the names that applications read."""
    root = lay_out(tmp_path / "project", PROJECTS[name])
    written = write_make_toml(root, root / "compose.yaml")
    files = [path for path in (written.path, *written.others) if path.name == "make.toml"]
    text = "\n".join(f"# == {file.relative_to(root)}\n{file.read_text()}" for file in files)
    assert text.encode() == golden(f"init/{name}.toml", text.encode())
    assert not load(root, caller={}, floor=NO_FLOOR).ignored


def loaded(root: Path, compose: str, **files: str):
    lay_out(root, {**STRANGERS["python-files"], "compose.yml": compose, **files})
    write_make_toml(root, root / "compose.yml")
    return load(root, caller={}, floor=NO_FLOOR)


def test_the_tests_name_what_the_application_uses(tmp_path: Path):
    """By depends_on or by a variable; what nobody uses is declared and not started."""
    plan = loaded(tmp_path, WEB)
    assert phase(plan, "test").services == ("db", "cache", "search")
    assert phase(plan, "build").services == ()
    assert plan.backend == "docker"
    assert phase(plan, "test").variables["DEBUG"] == "on"


def test_without_images_alone_the_backend_is_left_to_the_machine(tmp_path: Path):
    """The servers that the engine has run on every backend."""
    plan = loaded(tmp_path, "services: {db: {image: postgres}}")
    assert (plan.backend, plan.services[0].kind) == ("auto", "postgres")


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("REDIS_URL", "redis://:old@r:6379/1", "redis://:{password}@{host}:{port}/1"),
        ("REDIS_ADDR", "r:6379", "{host}:{port}"),
        ("REDIS_HOST", "r", "{host}"),
        ("REDIS_PORT", "6379", "{port}"),
    ],
)
def test_a_variable_that_holds_an_address_is_filled_in(
    tmp_path: Path, variable: str, value: str, expected: str
):
    """URL, address, host and port of a service, by the application's own name."""
    application = f"app: {{build: ., environment: {{{variable}: '{value}'}}}}"
    loaded(tmp_path, f"services: {{{application}, r: {{image: redis}}}}")
    services = tomllib.loads((tmp_path / "make.toml").read_text())["cleanroom"]["services"]
    assert services["r"]["env"][variable] == expected


def test_a_word_that_is_a_services_name_is_no_address_by_itself(tmp_path: Path):
    """`CACHE_BACKEND: redis` stays as it is."""
    plan = loaded(
        tmp_path,
        "services: {app: {build: ., environment: {CACHE_BACKEND: redis}}, redis: {image: redis}}",
    )
    assert phase(plan, "test").variables["CACHE_BACKEND"] == "redis"


def test_an_env_file_outside_of_the_project_is_not_read(tmp_path: Path):
    """Nothing from elsewhere comes into a make.toml."""
    (tmp_path / "outside.env").write_text("TOKEN=x\n")
    plan = loaded(tmp_path / "project", "services: {app: {build: ., env_file: ../outside.env}}")
    assert "TOKEN" not in phase(plan, "test").variables


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("version: 3\n", "compose.yml:1:1"),
        ("services: [a]\n", "compose.yml:1:11"),
        ("services: {\n", "compose.yml:2:1"),
    ],
)
def test_what_is_no_compose_file_is_refused_with_its_place(tmp_path: Path, text: str, where: str):
    """And nothing is written."""
    with pytest.raises(ProjectError) as caught:
        loaded(tmp_path, text)
    assert caught.value.where == where
    assert not (tmp_path / "make.toml").exists()


VALUES = st.recursive(
    st.text(alphabet="ab:/$@{}=0", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
KEYS = "image build environment env_file ports expose command healthcheck depends_on volumes"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(["db", "web", "a.b"]),
        st.dictionaries(st.sampled_from(KEYS.split()), VALUES),
        max_size=3,
    )
)
def test_any_services_give_a_file_that_loads_or_an_error_with_its_place(tmp_path, services):
    """Nothing that stands in a compose file is a fault of ours."""
    root = Path(tempfile.mkdtemp(dir=tmp_path))
    lay_out(root, {**STRANGERS["python-files"], "compose.yml": json.dumps({"services": services})})
    with contextlib.suppress(ProjectError):
        write_make_toml(root, root / "compose.yml")
    if (root / "make.toml").exists():
        assert load(root, caller={}, floor=NO_FLOOR).phases


@pytest.mark.parametrize(
    "text",
    [
        "services: {a: , b: x, c: {image: [1], ports: x, environment: 7, depends_on: y}}",
        "services: {a: {build: {context: {}}, volumes: {}, env_file: [{}], command: []}}",
        'services: {"a\\nb": {image: redis}, "": {image: redis}}',
        "services: {a: {build: ., environment: {U: 'http://[', 'x y': 1, P: 'a:b:c'}}}",
        "services: {a: {image: postgres, volumes: ['../x:/docker-entrypoint-initdb.d']}}",
        "services: {a: {image: x, ports: ['99999:99999', '80-90:80-90', ':']}}",
        "services: {a: {image: x, healthcheck: {test: [CMD-SHELL, 'curl x']}}}",
    ],
)
def test_odd_files_give_a_file_that_loads(tmp_path: Path, text: str):
    """What is not understood is left out."""
    loaded(tmp_path, text)


def test_a_command_of_a_service_of_ours_is_named_as_not_taken_over(tmp_path: Path):
    text = "services:\n  cache: {image: redis, command: redis-server --maxmemory 64mb}\n"
    (tmp_path / "compose.yaml").write_text(text)
    write_make_toml(tmp_path, tmp_path / "compose.yaml")
    assert "# cache: its `command` is not taken over" in (tmp_path / "make.toml").read_text()


def test_a_compose_file_is_told_of_where_it_was_not_asked_for(tmp_path: Path):
    """On the terminal too; a second `init` says that the first one's file is in the way."""
    (tmp_path / "compose.yaml").write_text("services: {cache: {image: redis}}\n")
    shown = CliRunner().invoke(app, ["init", "--root", str(tmp_path)])
    assert "added .ggen/ to .gitignore" in shown.output
    assert "`cleanroom-engine init --from compose.yaml` writes it" in shown.output
    with pytest.raises(ProjectError) as caught:
        write_make_toml(tmp_path, tmp_path / "compose.yaml")
    assert "move it away and run the same command again" in str(caught.value.hint)
