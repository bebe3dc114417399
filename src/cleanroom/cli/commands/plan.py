"""`plan`: what would run, and nothing runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from cleanroom.cli.options import general_options, output_option, phase_names, plan_options

if TYPE_CHECKING:
    from typing import Unpack

    from cleanroom.cli.options import PlanOptions
    from cleanroom.engine import Decision
    from cleanroom.model.plan import Plan


@click.command()
@click.argument("phases", nargs=-1, metavar="[PHASE]...", shell_complete=phase_names)
@plan_options
@output_option("human", "json")
@general_options
def plan(
    phases: tuple[str, ...], form: str, colour: str, root: str, **options: Unpack[PlanOptions]
) -> None:
    """Show what would run, in order, with hooks and prerequisites unfolded;
    without PHASE everything in file order.

    \b
    cleanroom-engine plan
    cleanroom-engine plan test --env prod --output json
    """
    from cleanroom.cli.output import Output, write_lines, write_object
    from cleanroom.cli.views.plan import plan_lines, plan_object
    from cleanroom.engine import forecast_dependencies

    loaded = load(root, phases, options)
    decisions = (
        forecast(root, phases, options)
        if any(phase.cache_inputs for phase in loaded.phases)
        else None
    )
    dependencies = forecast_dependencies(loaded, os.environ)
    output = Output(colour)
    if form == "json":
        write_object(output, plan_object(loaded, decisions, dependencies))
    else:
        write_lines(output, plan_lines(loaded, decisions, dependencies))


def load(root: str, phases: tuple[str, ...], options: PlanOptions) -> Plan:
    """The plan that a run with these options would follow.

    Raises:
        CleanroomError: the project's files do not make one.
    """
    from pathlib import Path

    from cleanroom.model.policy import Level
    from cleanroom.project import Overrides
    from cleanroom.project import load as load_project

    overrides = Overrides(
        backend=options["backend"],
        policy=Level(options["policy"]) if options["policy"] else None,
        env=options["env"],
        seed=options["seed"],
        slo_seconds=options["slo"],
        strict_slo=options["strict_slo"],
        allow_degraded=options["allow_degraded"],
    )
    return load_project(Path(root), phases, overrides=overrides, caller=os.environ)


def forecast(root: str, phases: tuple[str, ...], options: PlanOptions) -> list[Decision]:
    """For each phase: whether the cache would skip it, if no phase before it changed anything."""
    from cleanroom.cli.options import engine_options
    from cleanroom.engine import Engine, Options

    folder = os.path.abspath(root)  # noqa: PTH100
    return Engine(folder, os.environ, Options(**engine_options(options))).forecast(*phases)
