"""Options that several commands share.

Imports click only: `--help` of every command passes through here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    # Only type checkers make these classes: making them would cost `--help` time.
    from typing import Literal, NotRequired, TypedDict

    from cleanroom.model.plan import BackendName

    Keep = Literal["never", "on-failure", "always"]
    Policy = Literal["Low", "Medium", "High", "Locked"]

    class PlanOptions(TypedDict):
        """The values of `plan_options`; None and (): not given."""

        backend: BackendName | None
        policy: Policy | None
        env: str | None
        seed: int | None
        allow_degraded: tuple[str, ...]  # rules
        slo: float | None  # seconds
        strict_slo: bool | None

    class RunOptions(PlanOptions):
        """The values of `run_options`."""

        form: str
        report_dir: str | None
        keep: Keep | None
        fresh: bool
        no_cache: bool
        dry_run: bool
        offline: bool
        quiet: int
        verbose: int
        colour: str
        root: str
        # of `pipeline` and `run`
        pause: NotRequired[bool]
        pause_for: NotRequired[float]  # seconds
        watch: NotRequired[bool]

    class ShellOptions(PlanOptions):
        """The values of the options of `shell`."""

        keep: Keep
        offline: bool
        colour: str
        root: str

    class EngineOptions(TypedDict, total=False):
        """Fields of `engine.Options`, by their names there."""

        backend: BackendName | None
        policy: Policy | None
        env: str | None
        seed: int | None
        allow_degraded: tuple[str, ...]
        slo_seconds: float | None
        strict_slo: bool | None
        keep: Keep
        report_directory: str | None
        fresh: bool
        no_cache: bool
        dry_run: bool
        offline: bool


Body = TypeVar("Body", bound=Callable[..., Any])

BACKENDS = ("auto", "embedded", "docker", "podman", "kubernetes", "memory")
LEVELS = ("Low", "Medium", "High", "Locked")


class Duration(click.ParamType[float]):
    """`20s`, `2m`, `1m30s`, `7d`, `500ms` or a number of seconds, as in make.toml."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        import re

        from cleanroom.project import units

        text = str(value).strip()
        seconds = units.duration(
            float(text) if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text) else text
        )
        if seconds is None:
            self.fail(
                f"expected a duration above 0 such as 20s, 1m30s or 500ms, found {text[:80]!r}",
                param,
                ctx,
            )
        return seconds


def chain(*decorators: Callable[[Any], Any]) -> Callable[[Body], Body]:
    """Apply click decorators so that they are listed in the order in which they are written."""

    def apply(body: Body) -> Body:
        for decorator in reversed(decorators):
            body = decorator(body)
        return body

    return apply


def output_option(*choices: str) -> Callable[[Body], Body]:
    return click.option(
        "--output",
        "form",
        type=click.Choice(choices),
        default="human",
        show_default=True,
        help="Form of the result on stdout.",
    )


def phase_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The project's phases that begin so, for completion.

    A project that cannot be read completes nothing.
    """
    import os
    from pathlib import Path

    from cleanroom.model.errors import CleanroomError
    from cleanroom.project import load

    try:
        root = project_folder(context, parameter, context.params.get("root"))
        found = load(Path(root), caller=os.environ)
    except CleanroomError:
        return []
    return [
        name
        for name in dict.fromkeys(phase.name for phase in found.phases)
        if name.startswith(incomplete)
    ]


def project_folder(context: click.Context, parameter: click.Parameter, value: str | None) -> str:
    """The folder that `--root` names, else the project around the current folder.

    Standard error tells which one was found in a folder above.
    """
    import os

    if value is not None or os.path.lexists("make.toml"):
        return value or "."
    from pathlib import Path

    from cleanroom.project.search import search

    try:
        found = search(Path.cwd(), os.environ.get("HOME", ""))
    except FileNotFoundError:  # the current folder was removed
        return "."
    if found.file is None:
        if found.of_another is not None:
            _tell(context, f"not used, it belongs to another user: {found.of_another}")
        return "."
    folder = str(found.file.parent)
    if folder == str(Path.cwd()):
        return "."
    _tell(context, f"project: {found.file}")
    return folder


def _tell(context: click.Context, text: str) -> None:
    # `--quiet` is known by now: what the command line has is read before what it lacks
    if context.resilient_parsing or context.params.get("quiet"):
        return
    from contextlib import suppress

    from cleanroom.core.text import written_out_on_one_line

    with suppress(OSError):  # nobody reads standard error
        click.echo(written_out_on_one_line(text), err=True)


root_option = click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False),
    callback=project_folder,
    help="The project's folder; default: the nearest one upwards that has a make.toml.",
)
# Of a command that makes a project.
new_root_option = click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False),
    default=".",
    show_default=True,
    help="The project's folder.",
)
color_option = click.option(
    "--color",
    "--colour",
    "colour",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Colour, per stream.",
)
debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, help="Show the traceback of an unforeseen error."
)
general_options = chain(color_option, root_option, debug_option)
new_project_options = chain(color_option, new_root_option, debug_option)

verbosity_options = chain(
    click.option(
        "-q",
        "--quiet",
        count=True,
        help="Only errors and the result; twice: nothing but the exit status and errors.",
    ),
    click.option(
        "-v",
        "--verbose",
        count=True,
        help="More progress: services' output, notices; twice: everything.",
    ),
)

# What changes the plan: named as the project's loader names them.
plan_options = chain(
    click.option("--backend", type=click.Choice(BACKENDS), help="What makes the environments."),
    click.option(
        "--policy",
        type=click.Choice(LEVELS, case_sensitive=False),
        metavar=f"[{'|'.join(LEVELS)}]",
        shell_complete=lambda context, parameter, incomplete: [
            level for level in LEVELS if level.lower().startswith(incomplete.lower())
        ],
        help="Isolation level; below the file's needs --allow-degraded policy.",
    ),
    click.option(
        "-e", "--env", metavar="NAME", help="Overlay [cleanroom.env.NAME]; default: $GGEN_ENV."
    ),
    click.option(
        "--seed",
        type=click.IntRange(-(2**63), 2**63 - 1),
        metavar="INTEGER",
        help="The run's seed.",
    ),
    click.option(
        "--allow-degraded",
        metavar="RULE",
        multiple=True,
        help="Let a run go although RULE cannot be held; the file has to allow it too.",
    ),
    click.option(
        "--slo",
        type=Duration(),
        metavar="DURATION",
        help="What the whole run should take at most, such as 20s.",
    ),
    click.option(
        "--strict-slo", is_flag=True, default=None, help="A missed SLO does not pass (exit 1)."
    ),
)

run_options = chain(
    plan_options,
    output_option("human", "json", "jsonl", "github"),
    click.option(
        "--report-dir",
        type=click.Path(file_okay=False),
        help="Where the reports go; default: .ggen/cleanroom/reports.",
    ),
    click.option(
        "--keep",
        type=click.Choice(["never", "on-failure", "always"]),
        help="Keep a run's files; default: on-failure at a terminal, else never.",
    ),
    click.option(
        "--fresh", is_flag=True, help="Use no cached data of services and homes, and skip no phase."
    ),
    click.option("--no-cache", is_flag=True, help="Skip no phase, whatever cache.inputs say."),
    click.option(
        "--dry-run",
        is_flag=True,
        help="Run all phases, bring nothing back, and list what would have come back.",
    ),
    click.option(
        "--offline", is_flag=True, help="Fetch no dependencies: use those that the store has."
    ),
    verbosity_options,
    general_options,
)


pause_options = chain(
    click.option(
        "--pause",
        is_flag=True,
        help="A phase that fails stays as it is, with its services, for `shell` and `retry`.",
    ),
    click.option(
        "--pause-for",
        type=Duration(),
        default="30m",
        show_default=True,
        metavar="DURATION",
        help="How long a pause lasts at most while nobody looks.",
    ),
)


watch_option = click.option(
    "--watch",
    is_flag=True,
    help="Run again whenever files of the project change, until Ctrl-C.",
)


def engine_options(options: PlanOptions) -> EngineOptions:
    """The values of `plan_options`, by the names that the engine has for them."""
    return {
        "backend": options["backend"],
        "policy": options["policy"],
        "env": options["env"],
        "seed": options["seed"],
        "allow_degraded": options["allow_degraded"],
        "slo_seconds": options["slo"],
        "strict_slo": options["strict_slo"],
    }
