"""`config`: the settings in force and where each comes from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from cleanroom.cli.options import general_options, output_option, plan_options

if TYPE_CHECKING:
    from cleanroom.plan import Plan


@click.group()
def config() -> None:
    """Show the settings in force.

    \b
    cleanroom-engine config show
    cleanroom-engine config show --env prod --output json
    """


@config.command()
@plan_options
@output_option("human", "json")
@general_options
def show(form: str, colour: str, root: str, **options: Any) -> None:
    """Show the project's settings and limits, each with its origin: command line, environment, file or default."""
    from cleanroom.cli.output import Output, say, say_object
    from cleanroom.cli.plan import load
    from cleanroom.cli.text import safe, table

    loaded = load(root, (), options)
    rows = settings(loaded, {name: value for name, value in options.items() if value not in (None, ())}, os.environ)
    output = Output(colour)
    if form == "json":
        say_object(output, {"file": loaded.file, "settings": [dict(zip(("name", "value", "origin"), row, strict=True)) for row in rows]})
    else:
        say(output, table([(safe(name), safe(str(value)), origin) for name, value, origin in rows]))


def settings(loaded: Plan, said: Mapping[str, Any], caller: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    """Name, value and origin of every setting of the whole project."""
    import msgspec

    tables = _tables(loaded)
    rows: list[tuple[str, Any, str]] = [
        ("env", loaded.environment, "command line" if "env" in said else "GGEN_ENV" if caller.get("GGEN_ENV") else "default")
    ]
    values = {
        "backend": loaded.backend,
        "policy": loaded.policy.level.value,
        "slo": loaded.slo_seconds,
        "strict_slo": loaded.strict_slo,
        "seed": loaded.seed,
        "allow_degraded": list(loaded.allow_degraded),
        "on_violation": loaded.policy.reaction,
        "egress": list(loaded.policy.egress),
    }
    rows += [(name, value, "command line" if name in said else _origin(tables, (name,))) for name, value in values.items()]
    limits = msgspec.to_builtins(loaded.policy.limits)
    for name, value in limits.items():
        key = name.removesuffix("_bytes").removesuffix("_seconds")
        origin = _origin(tables, ("limits", key))
        rows.append((f"limits.{name}", value, f"default of {loaded.policy.level.value}" if origin == "default" else origin))
    return rows


def _tables(loaded: Plan) -> list[tuple[str, Mapping[str, Any]]]:
    """The file's tables that set project-wide keys, the one that wins first."""
    import tomllib
    from pathlib import Path

    whole = tomllib.loads(Path(loaded.file).read_text()).get("cleanroom", {})
    overlays = whole.get("env", {})
    names = [
        name for name in (loaded.environment, {"production": "prod", "prod": "production"}.get(loaded.environment, "")) if name in overlays
    ]
    return [(f"make.toml [cleanroom.env.{name}]", overlays[name]) for name in names] + [("make.toml [cleanroom]", whole)]


def _origin(tables: list[tuple[str, Mapping[str, Any]]], path: tuple[str, ...]) -> str:
    for title, values in tables:
        found: Any = values
        for key in path:
            found = found.get(key) if isinstance(found, Mapping) else None
        if found is not None:
            return title
    return "default"
