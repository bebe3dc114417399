"""Parts of one PostgreSQL server for several runs: each has a database, and a role that owns it.

Scripts for psql, run as the server's superuser.
A role that may make databases makes them on the same server, and PostgreSQL lets every role connect
to a new database.
An event trigger on login, which a new database has from the one it is copied from, refuses all but
the owner: it needs PostgreSQL 17.
It is made a member of plpgsql, so that pg_dump leaves it out and nobody but the superuser can
remove it.
"""

from __future__ import annotations

from cleanroom.services.base import Recipe
from cleanroom.services.postgres import DATABASE, ROLE, quoted, role_variables

# A terminated connection is gone in milliseconds, unless it copies a large database.
TERMINATE_MS = 10_000

_OWNER_ONLY = """\
CREATE FUNCTION pg_catalog.cleanroom_owner_only() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = session_user AND rolsuper)
    AND NOT EXISTS (
      SELECT FROM pg_database
      WHERE datname = current_database() AND pg_get_userbyid(datdba) = session_user)
  THEN
    RAISE EXCEPTION 'database "%" belongs to another run', current_database()
      USING ERRCODE = 'insufficient_privilege';
  END IF;
END $$;
CREATE EVENT TRIGGER cleanroom_owner_only ON login
EXECUTE FUNCTION pg_catalog.cleanroom_owner_only();
ALTER EVENT TRIGGER cleanroom_owner_only ENABLE ALWAYS;
ALTER EXTENSION plpgsql ADD FUNCTION pg_catalog.cleanroom_owner_only();
ALTER EXTENSION plpgsql ADD EVENT TRIGGER cleanroom_owner_only;
"""

_LEASE_ENDS = """\
SELECT 'ALTER ROLE $NAME NOLOGIN NOCREATEDB' FROM pg_roles WHERE rolname = '$NAME' \\gexec
SELECT pg_terminate_backend(pid, $WAIT_MS) FROM pg_stat_activity WHERE usename = '$NAME';
SELECT format('ALTER DATABASE %I IS_TEMPLATE false', datname)
FROM pg_database WHERE pg_get_userbyid(datdba) = '$NAME' AND datistemplate \\gexec
SELECT format('DROP DATABASE IF EXISTS %I WITH (FORCE)', datname)
FROM pg_database WHERE pg_get_userbyid(datdba) = '$NAME' \\gexec
DROP DATABASE IF EXISTS $NAME WITH (FORCE);
SELECT 'DROP OWNED BY $NAME' FROM pg_roles WHERE rolname = '$NAME' \\gexec
DROP ROLE IF EXISTS $NAME;
"""


def divisible(recipe: Recipe) -> bool:
    """Whether several runs can use the server at once without seeing each other's databases."""
    return recipe.kind == "postgres" and not recipe.undivided


def sharing_begins(recipe: Recipe) -> str:
    """A script that makes the server fit for several runs. It runs once."""
    script = f"REVOKE CONNECT ON DATABASE {DATABASE}, postgres, template1 FROM PUBLIC;\n"
    if not recipe.createdb:
        return script
    parts = [script, "ALTER DATABASE template0 ALLOW_CONNECTIONS true;\n"]
    parts += [f"\\connect {name}\n{_OWNER_ONLY}" for name in ("template0", "template1", DATABASE)]
    parts.append("\\connect postgres\nALTER DATABASE template0 ALLOW_CONNECTIONS false;\n")
    return "".join(parts)


def lease_begins(recipe: Recipe, name: str, password: str) -> str:
    """A script that makes a database `name`, a copy of the prepared one, and the role `name`,
    which owns it and everything in it.

    REASSIGN OWNED also takes other databases of the role, so the prepared one is given back.
    Nobody but its owner may connect to a database.
    A role that may make databases may also connect to `postgres`, as programs do that make one.
    """
    privilege = ""
    maintenance = ""
    if recipe.createdb:
        privilege = " CREATEDB"
        maintenance = f"GRANT CONNECT ON DATABASE postgres TO {name};\n"
    return f"""\
CREATE ROLE {name} LOGIN{privilege} PASSWORD {quoted(password)};
{maintenance}\
CREATE DATABASE {name} TEMPLATE {DATABASE} OWNER {name};
REVOKE CONNECT ON DATABASE {name} FROM PUBLIC;
\\connect {name}
REASSIGN OWNED BY {ROLE} TO {name};
ALTER DATABASE {DATABASE} OWNER TO {ROLE};
"""


def lease_ends(name: str) -> str:
    """A script that removes the role with all of its databases, whoever is connected.

    The role may be gone already, or never have been made.
    """
    return _LEASE_ENDS.replace("$NAME", name).replace("$WAIT_MS", str(TERMINATE_MS))


def lease_variables(recipe: Recipe, name: str, password: str) -> dict[str, str]:
    """The environment variables of a run's phases, where the run leases the database `name`."""
    return role_variables(recipe.name, recipe.env, recipe.port, password, role=name, database=name)
