"""Which extensions SQL creates, and what is said where the server lacks one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.model.errors import ServiceFailed
from cleanroom.model.plan import ServiceSpec
from cleanroom.services import resolve
from cleanroom.services.extensions import created_extensions, missing_extensions
from cleanroom.services.programs import Programs
from cleanroom.services.templates import TemplateCache


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("CREATE EXTENSION citext;", [("citext", 1)]),
        ('\ncreate  extension\nif not exists "uuid-ossp" WITH SCHEMA x;', [("uuid-ossp", 3)]),
        ("CREATE EXTENSION PgCrypto", [("pgcrypto", 1)]),
        ("-- CREATE EXTENSION a\n/* CREATE EXTENSION b */ CREATE EXTENSION c", [("c", 2)]),
        ("SELECT 'CREATE EXTENSION a', E'it\\'s CREATE EXTENSION b', 'it''s';", []),
        ("DO $$ BEGIN CREATE EXTENSION a; END $$; CREATE EXTENSION b", [("b", 1)]),
        ("COPY t (a) FROM stdin;\nCREATE EXTENSION a\n\\.\nCREATE EXTENSION b;", [("b", 4)]),
        ('COMMENT ON TABLE "--" IS NULL; CREATE EXTENSION a;', [("a", 1)]),
        ("CREATE EXTENSION", []),
    ],
)
def test_extensions_are_found_where_the_server_would_create_them(
    sql: str, found: list[tuple[str, int]]
):
    """Not in comments, strings, bodies and rows; names as PostgreSQL folds them."""
    assert [(each.name, each.line) for each in created_extensions("f.sql", sql)] == found


@given(st.text(alphabet="cCrREATEXNSIOextnsio \n'\"$-/*\\;abe", max_size=200))
def test_no_text_is_too_strange(text: str):
    """Whatever a file holds, reading it ends without an error."""
    created_extensions("f.sql", text)


def server(version: str, *extensions: str) -> Programs:
    return Programs(
        server=f"/pg/{version}/postgres",
        folders=(),
        version=version,
        sha256="",
        source="path",
        extensions=("plpgsql", *extensions),
    )


def test_what_lacks_is_said_with_its_place_and_with_the_server_that_has_it():
    """File and line of each, what there is, and the version that takes another server."""
    asked = created_extensions("db/a.sql", "\nCREATE EXTENSION pgcrypto;CREATE EXTENSION citext")
    lacking, having = server("18.6", "citext", "vector"), server("15.18", "citext", "pgcrypto")
    error = missing_extensions("postgres", asked, lacking, [having])
    assert error is not None
    assert "db/a.sql:2: pgcrypto" in error.message
    assert "plpgsql, citext, vector" in error.message
    assert 'version = "15"' in error.hint
    assert missing_extensions("postgres", asked, having, []) is None


def test_where_no_server_has_all_each_says_what_it_has():
    """Nothing is advised that would not work."""
    asked = created_extensions("a.sql", "CREATE EXTENSION pgcrypto; CREATE EXTENSION vector;")
    error = missing_extensions("db", asked, server("18.6", "vector"), [server("15.1", "pgcrypto")])
    assert error is not None
    assert "has pgcrypto, not vector" in error.hint
    assert 'version = "' not in error.hint


def test_a_service_is_not_started_for_an_extension_that_it_lacks(
    tmp_path: Path, shared_cache: TemplateCache
):
    """It is said when recipes are made: before any phase."""
    (tmp_path / "schema.sql").write_text("CREATE EXTENSION IF NOT EXISTS no_such_thing;\n")
    spec = ServiceSpec(name="postgres", kind="postgres", init=(str(tmp_path / "schema.sql"),))
    with pytest.raises(ServiceFailed, match=r"schema\.sql:1: no_such_thing") as caught:
        resolve((spec,), caller={}, root=str(tmp_path), cache=shared_cache)
    assert caught.value.code == "CR-SERVICE-032"
