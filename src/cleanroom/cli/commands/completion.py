"""`completion`: the script that makes a shell complete commands, options, phases and codes."""

from __future__ import annotations

import click

from cleanroom.cli.options import debug_option

PROGRAM = "cleanroom-engine"
# what click looks for in the environment of a program of this name
VARIABLE = "_CLEANROOM_ENGINE_COMPLETE"


@click.command(short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@debug_option
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    It completes commands, options and their values, phases of the project, and codes.

    \b
    bash:  echo 'eval "$(cleanroom-engine completion bash)"' >> ~/.bashrc
    zsh:   echo 'eval "$(cleanroom-engine completion zsh)"' >> ~/.zshrc      (after compinit)
    fish:  cleanroom-engine completion fish > ~/.config/fish/completions/cleanroom-engine.fish
    """
    from cleanroom.cli.output import Output, write_lines

    write_lines(Output("never"), script(shell).splitlines())


def script(shell: str) -> str:
    """click's script for the shell, which asks this program at each TAB.

    Bash has to be 4.4 or newer.
    """
    from click.shell_completion import get_completion_class

    from cleanroom.cli.app import app

    of_shell = get_completion_class(shell)
    assert of_shell is not None, "click knows the shells that the argument allows"
    asked = of_shell(app, {}, PROGRAM, VARIABLE)
    # not `source()`, which starts a bash to ask for its version
    return asked.source_template % asked.source_vars()
