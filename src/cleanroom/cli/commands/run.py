"""`pipeline` and `run`: load, run, show, code."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from cleanroom.cli.options import phase_names, run_options

if TYPE_CHECKING:
    from cleanroom.evidence.reports.result import RunResult
    from cleanroom.evidence.tracing.deliver import Delivered


@click.command()
@click.argument("phases", nargs=-1, required=True, metavar="PHASE...", shell_complete=phase_names)
@run_options
def pipeline(phases: tuple[str, ...], **options: Any) -> None:
    """Run phases in order with their hooks and services, each in its own hermetic environment.

    \b
    cleanroom-engine pipeline init test validate
    cleanroom-engine pipeline test --output json > result.json
    cleanroom-engine pipeline test --env prod --policy High
    """
    _carry_out(phases, single=False, **options)


@click.command()
@click.argument("phase", metavar="PHASE", shell_complete=phase_names)
@run_options
def run(phase: str, **options: Any) -> None:
    """Run one phase with its hooks and services; workspaces are ignored.

    \b
    cleanroom-engine run test
    cleanroom-engine run test -v --keep always
    """
    _carry_out((phase,), single=True, **options)


def _carry_out(
    phases: tuple[str, ...],
    *,
    single: bool,
    form: str,
    quiet: int,
    verbose: int,
    colour: str,
    root: str,
    **options: Any,
) -> None:
    import sys

    from cleanroom.engine import prestart

    # comes up on another processor while we import what follows
    keeper = prestart.keeper(options["backend"], os.environ)

    from cleanroom.cli.output import Output
    from cleanroom.cli.session import conduct, terminable
    from cleanroom.cli.views.failure import root_cause
    from cleanroom.cli.views.view import can_live, choose
    from cleanroom.engine import started_by_ggen
    from cleanroom.model.errors import CleanroomError

    with terminable():
        below_ggen = started_by_ggen()  # it may be gone in the end
        output = Output(colour)
        live = can_live(sys.stderr.isatty(), os.environ)
        view = choose(form, output, quiet=quiet, verbose=verbose, live=live, root=root)
        try:
            result, delivered = conduct(
                root,
                phases,
                single=single,
                view=view,
                keeper=keeper,
                options=_settings(options, sys.stderr.isatty()),
            )
            view.finish(result, rerun_options(root, options))
        except Exception as error:
            if isinstance(cause := root_cause(error), CleanroomError):
                view.refuse(cause)
                cause.reported = form == "github"
            raise
        finally:
            view.close()
    # there the view has said it, and what a line on the other stream might set off is not known
    if form != "github":
        _complain(result, output)
        _tell(delivered, result, output, root, quiet)
    if form == "human" and below_ggen and result.exit_code:
        _say_last(result, output)
    click.get_current_context().exit(_status(result, output))


def _settings(options: dict[str, Any], terminal: bool) -> dict[str, Any]:
    """The command line as the engine's options: None where nothing was said."""
    from cleanroom.cli.options import engine_options

    keep = options["keep"] or ("on-failure" if terminal and not os.environ.get("CI") else "never")
    folder = os.path.abspath(options["report_dir"]) if options["report_dir"] else None  # noqa: PTH100
    return {
        **engine_options(options),
        "keep": keep,
        "report_directory": folder,
        "fresh": options["fresh"],
        "no_cache": options["no_cache"],
    }


def rerun_options(root: str, options: dict[str, Any]) -> str:
    """The options that change what runs, for the line that runs it again."""
    import shlex

    said = [
        ("--root", root if root != "." else None),
        *((f"--{name}", options[name]) for name in ("backend", "policy", "env", "seed")),
    ]
    words = [word for name, value in said if value is not None for word in (name, str(value))]
    words += [word for rule in options["allow_degraded"] for word in ("--allow-degraded", rule)]
    return "".join(f" {shlex.quote(word)}" for word in words)


def _complain(result: RunResult, output: Any) -> None:
    """Say on standard error which error ended the run, in the form of all errors."""
    from cleanroom.cli.views.failure import coded

    if result.error:
        output.err(
            coded(
                result.error.get("code", "CR-ENGINE-000"),
                result.error.get("message", ""),
                result.error.get("hint", ""),
            )
        )


def _say_last(result: RunResult, output: Any) -> None:
    """Under ggen, whose own exit status is 1 whatever ours is,
    the last line says what it was and why.
    """
    from cleanroom.cli.views.text import safe
    from cleanroom.cli.views.words import phase_end
    from cleanroom.evidence.reports.text import failing, phase_name

    phase = failing(result)
    why = (
        phase_end(
            phase_name(phase), phase.result, phase.exit_code, phase.duration_seconds, phase.reason
        )
        if phase
        else ""
    )
    output.out(
        f"exit {result.exit_code}: {why or safe(result.error.get('message', result.outcome))}\n"
    )


def _tell(
    delivered: Delivered | None, result: RunResult, output: Any, root: str, quiet: int
) -> None:
    """Say once what became of what a collector was sent; it never changes the run's result."""
    if delivered is None:
        return
    from cleanroom.cli.commands.trace import lost, told

    if not delivered.complete:
        output.err(lost(delivered, result.run_id, "", root))
    elif not quiet:
        output.err(f"trace {result.trace_id}: sent {told(delivered)}\n")


def _status(result: RunResult, output: Any) -> int:
    """The run's own exit status, or 5 before it where the result was lost."""
    from cleanroom.model.errors import Exit, combined

    codes = [Exit(result.exit_code)]
    if output.lost is not None:
        from cleanroom.cli.views.failure import explain

        output.err(explain(output.lost).text)
        codes.append(Exit.ENGINE)
    return int(combined(codes))
