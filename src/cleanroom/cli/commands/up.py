"""`up` and `down`: the project's services for programs on the host."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from cleanroom.cli.options import general_options, output_option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cleanroom.cli.output import Output
    from cleanroom.engine import EndedServices, HostServices, Options

_backend_option = click.option(
    "--backend",
    type=click.Choice(["embedded", "docker", "podman"]),
    help="Where the servers run; default: as make.toml says.",
)
_env_option = click.option(
    "-e", "--env", metavar="NAME", help="Overlay [cleanroom.env.NAME]; default: $GGEN_ENV."
)
_quiet_option = click.option("-q", "--quiet", is_flag=True, help="Only the result and errors.")


@click.command()
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@click.option(
    "-f",
    "--foreground",
    is_flag=True,
    help="Stay until Ctrl-C, and end the services then; changes of their states are told.",
)
@click.option(
    "--output",
    "form",
    type=click.Choice(["shell", "dotenv", "json"]),
    default="shell",
    show_default=True,
    help="Form of the variables on stdout.",
)
@_backend_option
@_env_option
@_quiet_option
@general_options
def up(
    services: tuple[str, ...],
    foreground: bool,
    form: str,
    backend: str | None,
    env: str | None,
    quiet: bool,
    colour: str,
    root: str,
) -> None:
    """Start the project's services for work outside of runs, and print the variables that lead to
    them; without SERVICE all that make.toml declares or its phases name.

    They listen on ports of 127.0.0.1, and keep their data until `down`. Those that are up already
    stay as they are. No run uses them: each begins with new data.

    \b
    eval "$(cleanroom-engine up)"
    cleanroom-engine up postgres --output dotenv > .env
    cleanroom-engine down
    """
    from cleanroom import engine
    from cleanroom.cli.output import Output
    from cleanroom.cli.session import stop_signals_raise

    output = Output(colour)
    with (
        stop_signals_raise(),
        engine.services_up(
            root,
            services,
            caller=os.environ,
            options=_options(backend, env),
            foreground=foreground,
            progress=_progress(output, quiet),
        ) as running,
    ):
        _print_variables(running.services, form, output)
        if foreground:
            _follow(running.changes(), output)
        elif not quiet:
            output.err("up until `cleanroom-engine down`\n")


@click.command()
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@output_option("human", "json")
@_backend_option
@_env_option
@general_options
def down(
    services: tuple[str, ...],
    form: str,
    backend: str | None,
    env: str | None,
    colour: str,
    root: str,
) -> None:
    """End services that `up` has started, with their replicas and those that depend on them, and
    remove their data; without SERVICE all. Exits 1 when something is left, and 0 also when nothing
    was up.

    \b
    cleanroom-engine down
    cleanroom-engine down postgres
    """
    from cleanroom import engine
    from cleanroom.cli.output import Output, write_lines, write_object

    output = Output(colour)
    ended = engine.services_down(
        root,
        services,
        caller=os.environ,
        options=_options(backend, env),
        progress=_progress(output, quiet=False),
    )
    if form == "json":
        write_object(output, ended)
    else:
        write_lines(output, _ended_lines(ended))
    click.get_current_context().exit(1 if ended.left else 0)


def _options(backend: str | None, env: str | None) -> Options:
    from cleanroom.engine import Options

    return Options(backend=backend, env=env)


def _progress(output: Output, quiet: bool) -> Callable[[str], None]:
    """What writes a line of progress to standard error."""
    from cleanroom.cli.views.text import safe

    def write(line: str) -> None:
        if not quiet:
            output.err(f"{safe(line)}\n")

    return write


def _print_variables(services: HostServices, form: str, output: Output) -> None:
    from cleanroom.cli.output import write_lines, write_object
    from cleanroom.cli.views.exports import dotenv_lines, is_offered, shell_lines
    from cleanroom.cli.views.text import safe

    if form == "json":
        write_object(output, services)
        return
    offered = {name: value for name, value in services.variables.items() if is_offered(name)}
    for name in services.variables:
        if name not in offered:
            said = f"left out {name}: it decides how programs of yours run, or is no name"
            output.err(f"{safe(said)}\n")
    write_lines(output, dotenv_lines(offered) if form == "dotenv" else shell_lines(offered))


def _follow(changes: Iterable[str], output: Output) -> None:
    """Tell what changes until the terminal, or whoever started this, ends it."""
    from cleanroom.cli.views.failure import Stopped
    from cleanroom.cli.views.text import safe

    output.err("Ctrl-C ends them\n")
    try:
        for line in changes:
            output.err(f"{safe(line)}\n")
    except (KeyboardInterrupt, Stopped):
        output.err("ending\n")


def _ended_lines(ended: EndedServices) -> list[str]:
    from cleanroom.cli.views.text import safe

    if not ended.id:
        return ["nothing was up for this project"]
    lines = [safe(f"{name} ended, its data is removed") for name in ended.ended]
    if not ended.ended:
        return [*lines, "nothing was ended"]
    if ended.left:
        return [*lines, *(safe(f"left {each.kind} {each.name}") for each in ended.left)]
    if ended.whole:
        lines.append(f"nothing of {ended.id} is left")
    return lines
