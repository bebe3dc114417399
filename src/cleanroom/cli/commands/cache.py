"""`cache`: what runs of all projects share on this machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from cleanroom.cli.options import Duration, general_options, output_option

if TYPE_CHECKING:
    from cleanroom.engine import CacheReport

GIB = 1 << 30
GIB_MAX = 1 << 30  # an EiB: more than any file system holds


class Gibibytes(click.FloatRange):
    """A size that is a number of bytes: neither infinite nor `nan`, which is in every range."""

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Raises click.BadParameter for what is no size."""
        found = float(super().convert(value, param, ctx))
        if not found <= GIB_MAX:
            self.fail(f"{value!r} is no size in GiB.", param, ctx)
        return found


@click.group()
def cache() -> None:
    """Show and prune the user's cache: packages, prepared data of services, homes' caches.

    \b
    cleanroom-engine cache show
    cleanroom-engine cache prune --unused 720h --keep 5
    """


@cache.command(short_help="Show what the cache has.")
@output_option("human", "json")
@general_options
def show(form: str, colour: str, root: str) -> None:
    """Show what the cache has, and where it lies. Looks at every file.

    \b
    cleanroom-engine cache show --output json
    """
    from cleanroom import engine

    _show(engine.show_cache(caller=os.environ), form, colour)


@cache.command(short_help="Remove packages that were not used for long.")
@click.option(
    "--unused",
    type=Duration(),
    help="Those that no run used for so long; default: 90 days.",
)
@click.option(
    "--keep",
    type=Gibibytes(),
    metavar="GIB",
    help="Beyond this size those that were used longest ago; default: 20 GiB.",
)
@output_option("human", "json")
@general_options
def prune(unused: float | None, keep: float | None, form: str, colour: str, root: str) -> None:
    """Remove packages that were not used for long; a run fetches them again.

    Runs that fetch do so at their end. What a run under way uses stays.

    \b
    cleanroom-engine cache prune --keep 0
    """
    from cleanroom import engine

    bytes_max = None if keep is None else int(keep * GIB)
    report = engine.prune_cache(unused_seconds=unused, bytes_max=bytes_max, caller=os.environ)
    _show(report, form, colour, pruned=True)


def _show(report: CacheReport, form: str, colour: str, *, pruned: bool = False) -> None:
    from cleanroom.cli.output import Output, write_lines, write_object
    from cleanroom.cli.views.cache import cache_lines

    output = Output(colour)
    if form == "json":
        write_object(output, report)
    else:
        write_lines(output, cache_lines(report, pruned=pruned))
