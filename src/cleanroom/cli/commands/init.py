"""`init`: a make.toml to start from."""

from __future__ import annotations

import click

from cleanroom.cli.options import new_project_options


@click.command()
@click.option(
    "--from",
    "source",
    type=click.Path(exists=True, dir_okay=False),
    help="Convert this make.toml, of any dialect, or take a compose file's services over.",
)
@new_project_options
def init(source: str | None, colour: str, root: str) -> None:
    """Write a commented make.toml that fits the project; never over an existing one.

    It has the phases that the project's own files show. `.ggen/` is added to .gitignore.

    \b
    cleanroom-engine init
    cleanroom-engine init --from Makefile.toml
    cleanroom-engine init --from compose.yaml
    """
    from cleanroom import engine
    from cleanroom.cli.output import Output, write_lines
    from cleanroom.cli.views.text import safe

    written = engine.init(root, source)
    phases = " ".join(written.phases)
    further = [f"added {written.ignored} to .gitignore"] if written.ignored else []
    if written.compose:
        further.append(
            f"{written.compose} has services: move make.toml away, and "
            f"`cleanroom-engine init --from {written.compose}` writes it with them"
        )
    write_lines(
        Output(colour),
        [
            *(f"wrote {safe(str(path))}" for path in (written.path, *written.others)),
            *further,
            "next: `cleanroom-engine plan` shows what would run"
            + (f", `cleanroom-engine pipeline {safe(phases)}` runs it" if phases else ""),
        ],
    )
