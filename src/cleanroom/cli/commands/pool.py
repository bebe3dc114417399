"""`pool`: the project's servers, kept running between runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from cleanroom.cli.options import Duration, general_options, output_option

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from cleanroom.engine import Engine, PoolStatus
    from cleanroom.model.plan import BackendName


backend_option = click.option(
    "--backend",
    type=click.Choice(["embedded", "docker", "podman"]),
    help="Where its servers run; default: as make.toml says.",
)


@click.group()
def pool() -> None:
    """Keep the project's PostgreSQL and key-value servers running between runs.

    Each run gets a database and a role of its own, and a key-value server that is new.

    \b
    cleanroom-engine pool start
    cleanroom-engine pipeline test      as ever, only sooner
    cleanroom-engine pool stop
    """


@pool.command(short_help="Start the project's pool.")
@click.option(
    "--idle",
    type=Duration(),
    default="30m",
    show_default=True,
    help="End it when no run has used it for so long; 0: never.",
)
@backend_option
@output_option("human", "json")
@general_options
def start(idle: float, backend: BackendName | None, form: str, colour: str, root: str) -> None:
    """Start the project's pool and wait until its servers are ready.

    A pool that runs already stays as it is.

    \b
    cleanroom-engine pool start --idle 2h
    """
    _show(_call_engine(root, backend, lambda engine: engine.start_pool(idle)), form, colour)


@pool.command(short_help="Show the project's pool.")
@backend_option
@output_option("human", "json")
@general_options
def status(backend: BackendName | None, form: str, colour: str, root: str) -> None:
    """Show the project's pool: its servers, and how many runs use it.

    \b
    cleanroom-engine pool status --output json
    """
    _show(_call_engine(root, backend, lambda engine: engine.pool_status()), form, colour)


@pool.command(short_help="End the project's pool and remove everything of it.")
@backend_option
@output_option("human", "json")
@general_options
def stop(backend: BackendName | None, form: str, colour: str, root: str) -> None:
    """End the project's pool and remove everything of it. Runs that use it fail.

    \b
    cleanroom-engine pool stop
    """
    _show(
        _call_engine(root, backend, lambda engine: engine.stop_pool()), form, colour, word="stopped"
    )


def _call_engine(
    root: str,
    backend: BackendName | None,
    call: Callable[[Engine], Coroutine[Any, Any, PoolStatus]],
) -> PoolStatus:
    import anyio

    from cleanroom import engine

    async def called() -> PoolStatus:
        async with engine.open(root, caller=os.environ, backend=backend) as opened:
            return await call(opened)

    return anyio.run(called)


def _show(found: PoolStatus, form: str, colour: str, word: str = "runs") -> None:
    from cleanroom.cli.output import Output, write_lines, write_object
    from cleanroom.cli.views.pool import pool_lines

    output = Output(colour)
    if form == "json":
        write_object(output, found)
    else:
        write_lines(output, pool_lines(found, word))
