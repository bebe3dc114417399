"""`config`: the settings in force and where each comes from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from cleanroom.cli.options import general_options, output_option, plan_options

if TYPE_CHECKING:
    from typing import Unpack

    from cleanroom.cli.options import PlanOptions
    from cleanroom.model.plan import Plan
    from cleanroom.project.source import Node


@click.group()
def config() -> None:
    """Show the settings in force.

    \b
    cleanroom-engine config show --origin
    cleanroom-engine config show --env prod --output json
    """


@config.command(short_help="Show settings and limits, each with its origin.")
@click.option(
    "--origin",
    "positions",
    is_flag=True,
    help="Say the line and column in the file, in place of the table.",
)
@plan_options
@output_option("human", "json")
@general_options
def show(
    positions: bool, form: str, colour: str, root: str, **options: Unpack[PlanOptions]
) -> None:
    """Show the project's settings and limits, each with its origin:
    command line, environment, file or default.

    \b
    cleanroom-engine config show --origin
    cleanroom-engine config show --env prod --output json
    """
    from cleanroom.cli.commands.plan import load
    from cleanroom.cli.output import Output, write_lines, write_object
    from cleanroom.cli.views.text import safe, table

    loaded = load(root, (), options)
    given = {name: value for name, value in options.items() if value not in (None, ())}
    rows = [*settings(loaded, given, os.environ, positions=positions), *telemetry(os.environ)]
    output = Output(colour)
    if form == "json":
        write_object(
            output,
            {
                "file": loaded.file,
                "settings": [
                    dict(zip(("name", "value", "origin"), row, strict=True)) for row in rows
                ],
            },
        )
    else:
        write_lines(
            output, table([(safe(name), safe(str(value)), origin) for name, value, origin in rows])
        )


def settings(
    loaded: Plan, given: Mapping[str, Any], caller: Mapping[str, str], *, positions: bool = False
) -> list[tuple[str, Any, str]]:
    """Name, value and origin of every setting of the whole project.

    What the file sets has its table as origin, or its position there.
    """
    import msgspec

    tables = _tables(loaded)

    def origin(*path: str) -> str:
        return _origin(tables, path, positions)

    place = "GGEN_ENV" if caller.get("GGEN_ENV") else "default"
    if "env" in given:
        place = "command line"
    rows: list[tuple[str, Any, str]] = [("env", loaded.environment, place)]
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
    rows += [
        (name, value, "command line" if name in given else origin(name))
        for name, value in values.items()
    ]
    limits = msgspec.to_builtins(loaded.policy.limits)
    for name, value in limits.items():
        found = origin("limits", name.removesuffix("_bytes").removesuffix("_seconds"))
        rows.append(
            (
                f"limits.{name}",
                value,
                f"default of {loaded.policy.level.value}" if found == "default" else found,
            )
        )
    return rows


def telemetry(caller: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    """Where spans, metrics and log records are sent, and every `OTEL_*` variable that is set and
    not honoured.
    """
    from cleanroom.evidence.tracing.settings import SIGNALS, read_settings

    found = read_settings(caller)
    rows: list[tuple[str, Any, str]] = []
    for signal in SIGNALS:
        to = found.destinations.get(signal)
        rows.append(
            (
                f"telemetry.{signal}",
                f"{to.shown} by {to.protocol}" if to else "only in the run's files",
                "OTEL_*" if to else "default",
            )
        )
    rows.append(
        (
            "telemetry.sampler",
            found.sampler,
            "OTEL_*" if caller.get("OTEL_TRACES_SAMPLER") else "default",
        )
    )
    return rows + [
        (name, f"not supported: {why}", "environment") for name, why in found.unsupported
    ]


def _tables(loaded: Plan) -> list[tuple[str, Node]]:
    """The file's tables that set project-wide keys, the one that wins first."""
    from pathlib import Path

    from cleanroom.project.project_file import settings_node
    from cleanroom.project.source import read_source

    file = Path(loaded.file)
    whole = settings_node(read_source(file, file.name))
    if whole is None:
        return []
    overlays = whole.get("env")
    names = (
        loaded.environment,
        {"production": "prod", "prod": "production"}.get(loaded.environment, ""),
    )
    found = [
        (name, table)
        for name in names
        if overlays is not None and name and (table := overlays.get(name)) is not None
    ]
    title = f"{file.name} [{whole.key}"
    return [(f"{title}.env.{name}]", table) for name, table in found] + [(f"{title}]", whole)]


def _origin(tables: list[tuple[str, Node]], path: tuple[str, ...], positions: bool) -> str:
    for title, table in tables:
        found: Node | None = table
        for key in path:
            found = found.get(key) if found is not None else None
        if found is not None:
            return str(found.origin) if positions else title
    return "default"
