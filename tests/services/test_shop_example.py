"""The example project, as far as it can be checked without its own virtual environment."""

from __future__ import annotations

import re
import tomllib

import pytest

from cleanroom.model.plan import ServiceSpec
from cleanroom.services import TemplateCache, resolve
from support.paths import ROOT
from support.service_harness import namespaces_work, running

SHOP = ROOT / "examples/shop"


def test_every_requirement_is_pinned_by_hash_and_names_no_address():
    """What `make demo` installs is fixed to the byte, and comes from whatever index the user
    has.
    """
    text = (SHOP / "requirements.txt").read_text()
    names = re.findall(r"^([a-z0-9-]+)==", text, flags=re.MULTILINE)
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert len(names) == len(blocks) > 5
    assert all("--hash=sha256:" in block for block in blocks)
    assert "//" not in text
    assert set((SHOP / "requirements.in").read_text().replace("[binary]", "").split()) <= set(names)


def test_every_command_uses_the_examples_own_python():
    """No phase borrows a program from the engine's environment."""
    lifecycle = tomllib.loads((SHOP / "make.toml").read_text())["lifecycle"]
    commands = [
        command
        for phase in lifecycle.values()
        for command in phase.get("commands", [phase.get("command")])
    ]
    assert all(
        re.match(r"(cd build && sha256sum|\.venv/bin/python) ", command) for command in commands
    )


@pytest.mark.sandbox
@pytest.mark.skipif(not namespaces_work(), reason="user and mount namespaces cannot be made here")
async def test_the_shops_schema_and_migrations_are_what_an_ordinary_role_may_do(
    shared_cache: TemplateCache,
):
    """Schema and migrations apply in order on the real server, as the database's owner."""
    files = (SHOP / "database/schema.sql", *sorted((SHOP / "shop/migrations").glob("*.sql")))
    spec = ServiceSpec(name="postgres", kind="postgres", init=tuple(map(str, files)))
    (recipe,) = resolve((spec,), caller={}, root=str(SHOP), cache=shared_cache)
    async with running(recipe, shared_cache) as plain:
        code, output = await plain.run(
            [
                *recipe.administer[:-2],
                "app",
                "-c",
                "SELECT viewowner FROM pg_views WHERE viewname = 'order_total'",
            ]
        )
        assert (code, output) == (0, "app\n")
