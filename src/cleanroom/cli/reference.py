"""The reference page of all commands, made from the commands themselves:
`python -m cleanroom.cli.reference` prints docs/commands.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from cleanroom.cli.app import COMMANDS, EPILOG, app, command_names

_INTRODUCTION = f"""# Commands

Made from the commands themselves by `python -m cleanroom.cli.reference`.
Results go to standard output, progress to standard error.
`--output json` and `jsonl` are the interface for programs: their fields are only ever added.
What people read may change.

{EPILOG} More in [exit-codes.md](exit-codes.md).
"""


VARIABLES = {
    "CLEANROOM_CACHE": (
        "Folder of caches: services' prepared data, what homes keep. Only you may be able to "
        "write to it. Default: the user's cache folder."
    ),
    "CLEANROOM_POSTGRES_BIN": "Folder of PostgreSQL's programs, before those that are found.",
    "CLEANROOM_REDIS_BIN": "A Valkey or Redis server, or its folder, before those that are found.",
    "CLEANROOM_RUN_ID": "Set inside a run. An engine that finds it refuses to start another run.",
    "GGEN_ENV": "The environment, where --env does not name it.",
    "TRACEPARENT": "The trace that a run continues; phases get one too.",
    "OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_...": (
        "Where traces, metrics and logs are sent, by OpenTelemetry's standard; docs/tracing.md."
    ),
    "CLEANROOM_TRACE_URL": (
        "Address of the page that shows a trace, for trace --open and the reports."
    ),
    "GITHUB_STEP_SUMMARY": "Where --output github adds its summary.",
    "CI": "Where it is set, progress is plain lines and nothing is kept unless --keep says so.",
    ("NO_COLOR, FORCE_COLOR, CLICOLOR, CLICOLOR_FORCE, TERM"): (
        "Whether colour is used, where --color does not say it."
    ),
    "BROWSER": "What report --open starts.",
}
FILES = {
    "make.toml": "The project: phases, services, policy. docs/make-toml.md lists every key.",
    ".ggen/cleanroom/reports/": (
        "The newest run's reports: test_results.json, .junit.xml, .html, .sarif, sbom.cdx.json."
    ),
    ".ggen/cleanroom/runs/RUN_ID/": (
        "One run: events, logs, plan, trace, reports, and what was kept."
    ),
    ".ggen/cleanroom/audit/": "The audit log of all runs and its head.",
    ".ggen/cleanroom/cache/": "Phases that need not run again.",
    ".ggen/state.json": "What ran, as ggen reads it.",
    "/etc/cleanroom/config.toml": (
        "An organisation's floor: the least policy, egress and images that are allowed."
    ),
}


def markdown() -> str:
    """The whole page."""
    context = click.Context(app, info_name="cleanroom-engine", help_option_names=["-h", "--help"])
    sections = [_section(command, name, context) for name, command in command_names().items()]
    index = [f"- [`{name}`](#{name}): {text}" for name, (_, text, _) in COMMANDS.items()]
    return (
        "\n".join(
            [
                _INTRODUCTION,
                *index,
                "",
                *sections,
                *_table("Environment", VARIABLES),
                *_table("Files", FILES),
            ]
        ).rstrip()
        + "\n"
    )


def _table(title: str, rows: dict[str, str]) -> list[str]:
    return [
        f"## {title}",
        "",
        "| name | meaning |",
        "| --- | --- |",
        *(f"| `{name}` | {meaning} |" for name, meaning in rows.items()),
        "",
    ]


def _section(command: click.Command, name: str, parent: click.Context) -> str:
    context = click.Context(command, info_name=name, parent=parent)
    lines = [f"## {name}", "", "```text", _help(context), "```", ""]
    for child_name, child in children(command):
        lines += [
            f"### {name} {child_name}",
            "",
            "```text",
            _help(click.Context(child, info_name=child_name, parent=context)),
            "```",
            "",
        ]
    return "\n".join(lines)


def children(command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        yield from command.commands.items()


def _help(context: click.Context) -> str:
    context.terminal_width = 120
    return context.get_help().strip()


if __name__ == "__main__":
    click.echo(markdown(), nl=False)
