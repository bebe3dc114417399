"""Extensions that a project's migrations create, and what is said where the server lacks one."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.services import migrations
from cleanroom.services.base import Probe, Recipe
from cleanroom.services.migrations import (
    created_in_file,
    created_in_project,
    migration_warnings,
)


@pytest.mark.parametrize(
    ("file", "text", "found"),
    [
        ("a.py", 'op.execute("CREATE EXTENSION IF NOT EXISTS pgcrypto")', [("pgcrypto", 1)]),
        ("a.py", "\nop.execute('CREATE EXTENSION \"uuid-ossp\"')", [("uuid-ossp", 2)]),
        ("a.py", 'sql = """\ncreate extension citext;\n"""', [("citext", 2)]),
        ("a.py", 'ops = [CreateExtension("postgis"), HStoreExtension()]', ["postgis", "hstore"]),
        ("a.py", "CreateExtension(name='ltree')\nCryptoExtension()", ["ltree", "pgcrypto"]),
        ("a.rb", 'enable_extension "pgcrypto"\nenable_extension :citext', ["pgcrypto", "citext"]),
        ("a.ts", 'q.query(`CREATE EXTENSION IF NOT EXISTS "uuid-ossp"`)', ["uuid-ossp"]),
        ("a.js", "raw('create extension if not exists \\'unaccent\\'')", ["unaccent"]),
        ("a.js", "pgm.createExtension(['cube', 'isn'], {})", ["cube", "isn"]),
        ("a.exs", 'execute "CREATE EXTENSION citext", ""', ["citext"]),
        ("a.cs", '.Annotation("Npgsql:PostgresExtension:uuid-ossp", ",,")', ["uuid-ossp"]),
        ("a.xml", "<sql>CREATE EXTENSION Cube</sql>", ["cube"]),
        ("a.yml", "sql: CREATE EXTENSION hstore", ["hstore"]),
        (
            "a.prisma",
            'x\n  extensions = [vector, uuid_ossp(map: "uuid-ossp", schema: "s")]',
            [("vector", 2), ("uuid-ossp", 2)],
        ),
        ("up.sql", 'CREATE EXTENSION "uuid-ossp";\n-- CREATE EXTENSION a', ["uuid-ossp"]),
    ],
)
def test_extensions_of_the_usual_tools_are_found(
    file: str, text: str, found: list[str | tuple[str, int]]
):
    """Statements in text, operations of frameworks and declarations, each with its line."""
    created = created_in_file(file, text)
    names = [each if isinstance(each, str) else each[0] for each in found]
    assert [each.name for each in created] == names
    lines = [each[1] for each in found if isinstance(each, tuple)]
    assert not lines or [each.line for each in created] == lines


@pytest.mark.parametrize(
    "text",
    [
        '# op.execute("CREATE EXTENSION a")',
        "  // CREATE EXTENSION a;",
        " * CREATE EXTENSION a;",
        'op.execute("DROP EXTENSION a")',
        'op.execute(f"CREATE EXTENSION {name}")',
        'op.execute("CREATE EXTENSION %s")',
        '"""The next CREATE EXTENSION statement in this file is that of the other branch."""',
        "MyExtension('a'); createExtensions",
    ],
)
def test_what_creates_nothing_is_no_extension(text: str):
    """Comments, other statements, names that are made when it runs, and prose."""
    assert created_in_file("a.py", text) == ()


@given(st.text(alphabet="cCrREATEXNSIOextnsio \n'\"$-/*\\;#:[]()", max_size=200))
@pytest.mark.parametrize("file", ["a.py", "a.prisma", "a.sql"])
def test_no_file_is_too_strange(file: str, text: str):
    """Whatever a file holds, reading it ends without an error."""
    created_in_file(file, text)


@pytest.mark.parametrize(
    ("start", "part"),
    [
        *(("", part) for part in ("/*", "$a$ $b$", "e'", "COPY a ", "COPY FROM STDIN ", "\n ")),
        *(("", part) for part in ("\nextensions = [", "'", "a(map:", "CREATE EXTENSION ")),
        *((start, " ") for start in ("enable_extension", "CREATE EXTENSION a", "CREATE")),
        ("extensions = [a", "("),
        ("extensions = [a(", 'map:"" '),
        ("extensions = [", "a "),
        ("CREATE EXTENSION ", "a"),
    ],
)
@pytest.mark.parametrize("file", ["a.py", "a.prisma", "a.sql"])
def test_a_file_made_to_be_slow_is_read_in_one_pass(file: str, start: str, part: str):
    """What has no end is not looked for again at each place, which would take minutes."""
    created_in_file(file, start + part * (migrations.FILE_BYTES_MAX // len(part)))


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_programs_count_in_folders_of_migrations_and_sql_anywhere(tmp_path: Path):
    """What others wrote, or tools made, is left out."""
    text = 'execute("CREATE EXTENSION pgcrypto;")'
    sql = "CREATE EXTENSION pgcrypto;"
    write(
        tmp_path,
        {
            "app/migrations/0001.py": text,
            "src/notes.py": text,
            "deploy/schema.sql": sql,
            "node_modules/x/migrations/a.sql": sql,
            ".venv/lib/migrations/0001.py": text,
            "db/migrate/readme.txt": text,
        },
    )
    found = [each.file for each in created_in_project(str(tmp_path))]
    assert found == ["app/migrations/0001.py", "deploy/schema.sql"]


def test_nothing_outside_of_the_project_is_read_and_no_open_waits(tmp_path: Path):
    """Links of files and of folders, a FIFO and bytes of no text hold nobody up."""
    write(tmp_path, {"secret/a.sql": "CREATE EXTENSION outside;"})
    project = tmp_path / "project"
    write(project, {"migrations/ok.sql": "CREATE EXTENSION inside;"})
    (project / "linked").symlink_to(tmp_path / "secret")
    (project / "migrations/a.sql").symlink_to(tmp_path / "secret/a.sql")
    os.mkfifo(project / "migrations/b.sql")
    (project / "migrations/c.py").write_bytes(b"\xff\xfe\0 extension \x80")
    assert [each.name for each in created_in_project(str(project))] == ["inside"]


def test_what_is_looked_at_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In entries, in files and in bytes; the upper folders come first."""
    write(tmp_path, {f"migrations/{number}.sql": "CREATE EXTENSION a;" for number in range(9)})
    write(tmp_path, {"migrations/deep/a.sql": "CREATE EXTENSION deep;"})
    monkeypatch.setattr(migrations, "FILES_MAX", 4)
    assert len(created_in_project(str(tmp_path))) == 4
    monkeypatch.setattr(migrations, "FILES_MAX", 100)
    monkeypatch.setattr(migrations, "BYTES_MAX", 40)
    assert len(created_in_project(str(tmp_path))) == 3
    monkeypatch.setattr(migrations, "ENTRIES_MAX", 4)
    monkeypatch.setattr(migrations, "BYTES_MAX", 1000)
    assert {each.name for each in created_in_project(str(tmp_path))} == {"a"}


def recipe(name: str, *extensions: str, known: bool = True) -> Recipe:
    return Recipe(
        name=name,
        kind="postgres",
        version="18.6",
        server="/pg/bin/postgres",
        extensions=("plpgsql", *extensions) if known else None,
        probe=Probe(kind="tcp", to="tcp:1"),
    )


def nothing(files: Collection[str]) -> Collection[str]:
    return ()


def test_a_warning_names_file_line_extension_and_what_there_is(tmp_path: Path):
    """One for each server that lacks some, and none for one that has all."""
    write(tmp_path, {"migrations/1.sql": "CREATE EXTENSION a;\nCREATE EXTENSION b;"})
    found = migration_warnings(
        [recipe("one", "a"), recipe("two", "a", "b")],
        root=str(tmp_path),
        caller={},
        ignored=nothing,
    )
    assert len(found) == 1
    assert "service 'one'" in found[0]
    assert "create: migrations/1.sql:2: b; it has plpgsql, a; " in found[0]


def test_an_extension_that_only_a_superuser_may_create_is_said(tmp_path: Path):
    """As the control files of the server say; a role that is one may create all."""
    (tmp_path / "pg/bin").mkdir(parents=True)
    write(
        tmp_path / "pg/share/postgresql/extension",
        {"free.control": "trusted = true\n", "bound.control": "comment = 'trusted = true'\n"},
    )
    text = "CREATE EXTENSION free;\nCREATE EXTENSION bound;\n"
    write(tmp_path / "project", {"migrations/1.sql": text + 'CREATE EXTENSION "../bound";'})

    def warnings(*, superuser: bool) -> tuple[str, ...]:
        one = msgspec.structs.replace(
            recipe("one", "free", "bound", "../bound"),
            server=str(tmp_path / "pg/bin/postgres"),
            superuser=superuser,
        )
        root = str(tmp_path / "project")
        return migration_warnings([one], root=root, caller={}, ignored=nothing)

    (said,) = warnings(superuser=False)
    assert "only a superuser create: migrations/1.sql:2: bound; superuser = true" in said
    assert warnings(superuser=True) == ()


def test_files_that_are_no_part_of_the_project_are_not_spoken_of(tmp_path: Path):
    """Only those are asked about that create what a server lacks."""
    write(tmp_path, {"out/1.sql": "CREATE EXTENSION a;", "2.sql": "CREATE EXTENSION plpgsql;"})
    asked: list[Collection[str]] = []

    def ignored(files: Collection[str]) -> Collection[str]:
        asked.append(files)
        return files

    found = migration_warnings([recipe("one")], root=str(tmp_path), caller={}, ignored=ignored)
    assert found == ()
    assert asked == [{"out/1.sql"}]


def test_without_a_server_whose_extensions_are_known_nothing_is_looked_at():
    """A project without PostgreSQL pays nothing, nor one whose server is an image."""
    servers = [recipe("image", known=False)]
    assert migration_warnings(servers, root="/nowhere", caller={}, ignored=nothing) == ()
