"""What pages show beside what test_pages_run runs: README's commands, the samples of the library,
and fragments of make.toml, which are read as part of a project.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cleanroom
from cleanroom.model.errors import CleanroomError
from support.page_runner import BLOCK, call, run
from support.paths import ROOT
from support.project_builder import planned

LIBRARY = (ROOT / "docs/library.md").read_text()
SOURCE = Path(cleanroom.__file__).parent.parent
PAGES = (
    "README.md",
    "docs/tutorial.md",
    "docs/howto.md",
    "docs/library.md",
    "docs/fixtures.md",
    "docs/from-testcontainers.md",
    "docs/from-compose.md",
    "docs/services.md",
)
# In place of a driver: whether somebody listens there is all that the samples need.
PRELUDE = """
import socket
from urllib.parse import urlsplit

def connect(url):
    address = urlsplit(url)
    socket.create_connection((address.hostname, address.port)).close()
"""
# In place of Alembic, where it is not installed: an upgrade makes a table.
ALEMBIC = """
import subprocess

class Config:
    def __init__(self, file):
        self.options = {}

    def set_main_option(self, name, value):
        self.options[name] = value

def upgrade(config, revision):
    url = config.options["sqlalchemy.url"].replace("+psycopg", "")
    subprocess.run(["psql", "-qX", url, "-c", "CREATE TABLE upgraded (n int)"], check=True)
"""


def blocks(page: str, kind: str) -> Iterator[str]:
    for _, found, body in BLOCK.findall((ROOT / page).read_text()):
        if found == kind:
            yield body


def fragments() -> list[tuple[str, str]]:
    return [(page, body) for page in PAGES for body in blocks(page, "toml")]


@pytest.mark.parametrize(
    ("page", "body"), fragments(), ids=[f"{page}-{n}" for n, (page, _) in enumerate(fragments())]
)
def test_a_fragment_of_make_toml_is_read(page: str, body: str, tmp_path: Path) -> None:
    """As it stands, in a project that has the files and phases which it names."""
    for name in re.findall(r'"([\w-]+\.sql)"', body):
        (tmp_path / name).touch()
    for name in re.findall(r'"([\w-]+/[\w-]+)"', "".join(re.findall(r"^init = .*", body, re.M))):
        (tmp_path / name).mkdir(parents=True)
    first = next(line for line in body.splitlines() if line.strip() and not line.startswith("#"))
    if not first.startswith("["):
        body = f'[lifecycle.shown]\ncommand = "true"\n{body}'
    text = body if "[project]" in body else f'[project]\nname = "shown"\n{body}'
    if "[lifecycle." not in text:
        text += '\n[lifecycle.other]\ncommand = "true"\n'
    try:
        planned(tmp_path, text)
    except CleanroomError as error:
        pytest.fail(f"{error}\n{text}")


def test_workflows_are_yaml() -> None:
    """Those of the how-tos have jobs with steps, and each line of the engine's is a command."""
    import yaml

    (workflow, *_) = [body for body in blocks("docs/howto.md", "yaml") if "jobs:" in body]
    steps = yaml.safe_load(workflow)["jobs"]["test"]["steps"]
    lines = [step["run"] for step in steps if "cleanroom-engine pipeline" in step.get("run", "")]
    assert lines == ["cleanroom-engine pipeline test --output github"]


@pytest.mark.sandbox
def test_the_readme_says_what_a_curious_project_comes_to(tmp_path: Path) -> None:
    """What is blocked, by process and target."""
    page = (ROOT / "README.md").read_text()
    section = page.partition("## What is enforced, and how to see it")[2].partition("\n## ")[0]
    assert "`make.toml`:" in section
    run(_folder(tmp_path), section)


@pytest.mark.sandbox
def test_the_readmes_commands_run_in_a_project(tmp_path: Path) -> None:
    """Each line after the installation, as it stands, in a project that never heard of us."""
    page = (ROOT / "README.md").read_text()
    section = page.partition("Then, in your project:")[2].partition("```console\n")[2]
    lines = [line[2:] for line in section.partition("```")[0].splitlines()]
    assert len(lines) == 4
    folder = _folder(tmp_path)
    (folder / "test_one.py").write_text(
        "import unittest\n\nclass Test(unittest.TestCase):\n    def test_one(self): pass\n"
    )
    for line in lines:
        printed = call(folder, f"{line.partition('  #')[0]}; echo status $?", tmp_path / "cache")
        assert printed.splitlines()[-1] == "status 0", f"$ {line}\n{printed}"


def samples(after: str) -> list[str]:
    """The Python blocks of a section of the library's page."""
    section = LIBRARY.partition(f"\n## {after}\n")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def python(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": f"{SOURCE}:{folder}",
            "CLEANROOM_CACHE": str(folder.parent / "cache"),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.sandbox
def test_the_samples_of_servers_run(tmp_path: Path) -> None:
    """One after the other, as a reader types them; what they connect to is there."""
    folder = _folder(tmp_path)
    (folder / "schema.sql").write_text("CREATE TABLE item (n int);")
    fake = folder / "alembic"
    fake.mkdir()
    (fake / "__init__.py").write_text("")
    for name in ("config", "command"):
        (fake / f"{name}.py").write_text(ALEMBIC)
    servers, notebook, migrations = samples("A server of your own")
    assert "with server.database(template=migrate)" in migrations
    in_server = "\n".join(f"    {line}" for line in migrations.splitlines())
    program = "\n".join(
        [
            PRELUDE.replace("urlsplit(url)", 'urlsplit(url.replace("+psycopg", ""))'),
            servers,
            notebook,
            "import alembic.command, alembic.config",
            "with servers.postgres() as server:",
            in_server,
        ]
    )
    (folder / "program.py").write_text(program)
    assert "ready to accept connections" in python(folder, "program.py")


@pytest.mark.sandbox
def test_the_samples_of_fixtures_run(tmp_path: Path) -> None:
    """The template and the database of a module, in a conftest.py; with the settings shown."""
    folder = _folder(tmp_path)
    section = LIBRARY.partition("\n## In pytest\n")[2]
    ini = re.search(r"```ini\n(.*?)```", section, re.DOTALL)
    assert ini is not None
    (folder / "pytest.ini").write_text(ini[1])
    for name in ("schema.sql", "seed.sql"):
        (folder / name).write_text(f"CREATE TABLE {name[:-4]} (n int);")
    shown = [sample for sample in samples("In pytest") if "fixture(scope=" in sample]
    assert len(shown) == 2
    migrate = (
        "import pytest\n\ncalls = []\n\ndef migrate(database):\n    calls.append(database)\n\n"
    )
    (folder / "conftest.py").write_text(migrate + "\n\n".join(shown))
    (folder / "test_shop.py").write_text(
        "import conftest\n\n"
        "def test_they_are_there(shop, cleanroom_postgres):\n"
        "    assert shop.database != cleanroom_postgres.database\n"
        "    assert len(conftest.calls) == 1\n"
    )
    printed = python(
        folder, "-m", "pytest", "-q", "-p", "cleanroom.pytest_plugin", "-p", "no:cacheprovider"
    )
    assert "1 passed" in printed


def test_every_block_of_a_page_is_of_a_kind_that_is_tried() -> None:
    """A language that no test reads would be shown and never tried."""
    tried = {"console", "toml", "python", "yaml", "ini", "sql", "text", "sh", "json"}
    for page in PAGES:
        assert {kind for _, kind, _ in BLOCK.findall((ROOT / page).read_text())} <= tried, page
    for page in PAGES:
        for body in blocks(page, "python"):
            compile(body, page, "exec", flags=0x2000)  # with await at its top, as in a notebook


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder
