"""`image build`: make the images that container backends run phases and services in."""

from __future__ import annotations

import os
from typing import Any

import click

from cleanroom.cli.options import color_option, debug_option, output_option


@click.group()
def image() -> None:
    """Make images for container backends from Debian's packages; no registry is asked.

    \b
    cleanroom-engine image build
    """


@image.command(short_help="Make all of them, or those that are named.")
@click.argument("names", nargs=-1, metavar="[base|postgres|redis]...")
@click.option(
    "--backend",
    type=click.Choice(("docker", "podman")),
    default="docker",
    show_default=True,
    help="Where to load them.",
)
@click.option(
    "--mirror", default="", help="Debian mirror; this machine's own sources if not given."
)
@output_option("human", "json")
@color_option
@debug_option
def build(names: tuple[str, ...], backend: str, mirror: str, form: str, colour: str) -> None:
    """Make cleanroom/base, cleanroom/postgres and cleanroom/redis, or those that are named,
    and load them.

    The same packages give the same digest on every machine and in every engine.

    \b
    cleanroom-engine image build
    cleanroom-engine image build base --backend podman
    """
    import anyio

    from cleanroom import engine
    from cleanroom.cli.output import Output, write_lines, write_object

    output = Output(colour)

    async def work() -> list[Any]:
        return await engine.build_images(
            names,
            backend,
            caller=os.environ,
            mirror=mirror,
            say=lambda line: output.err(f"{line}\n"),
        )

    made = anyio.run(work)
    if form == "json":
        write_object(output, made)
    else:
        write_lines(
            output, [f"{one.name}  {one.digest}  {len(one.packages)} packages" for one in made]
        )
