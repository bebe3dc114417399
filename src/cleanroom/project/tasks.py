"""cargo-make's tasks as shell text: what `command` with `args` and `script` mean under `sh -c`.

`command` is run without a shell by cargo-make, with its own `${NAME}` replaced;
so every argument is quoted and such names stay open.
A script runs with exit on error, or by the program that its first line names.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath

from cleanroom.project.raw_project import PhaseReference
from cleanroom.project.source import Node

_USED = ("description", "command", "args", "script", "dependencies", "env", "cwd", "cleanroom")
_HARMLESS = ("category", "private", "workspace", "watch", "install_crate")
_VARIABLE = re.compile(r"\$\{(?:env\.)?([A-Za-z_][A-Za-z0-9_]*)\}")
_SHEBANG = re.compile(r"#![ \t]*(/[^\n]*)")
# What programs call the option that takes their program text.
_TEXT_OPTIONS = {
    "sh": "-c",
    "bash": "-c",
    "dash": "-c",
    "zsh": "-c",
    "ksh": "-c",
    "python": "-c",
    "node": "-e",
    "perl": "-e",
    "ruby": "-e",
}


def ignored(keys: Mapping[str, Node]) -> dict[str, str]:
    """The keys of a task without effect here, each with the reason."""
    reasons = {
        key: "" if key in _HARMLESS else "cargo-make's; not done here"
        for key in keys
        if key not in _USED
    }
    if "command" in keys:
        reasons.update({key: "command goes before script" for key in ("script",) if key in keys})
    elif "args" in keys:
        reasons["args"] = "there is no command"
    return reasons


def commands(keys: Mapping[str, Node]) -> tuple[tuple[str, ...], Node | None]:
    """The task as commands for `sh -c`, and the node that they come from.

    Raises:
        ProjectError: its script is none, or is for an unknown program.
    """
    if "command" in keys:
        arguments = keys["args"].texts() if "args" in keys else ()
        return (
            " ".join(
                _quoted(word) for word in (keys["command"].text(), *arguments) if word != "${@}"
            ),
        ), keys["command"]
    script = keys.get("script")
    if script is None:
        return (), None
    if not isinstance(script.value, str | list):
        script.fail("a string or a list of lines")
    text = script.text() if isinstance(script.value, str) else "\n".join(script.texts())
    return (_script(text, script, keys.get("script_runner")),), script


def dependencies(node: Node | None) -> tuple[PhaseReference, ...]:
    """The tasks that a task depends on, given as names or as tables with a name.

    Raises:
        ProjectError: the value is no list of them.
    """
    if node is None:
        return ()
    found = []
    for item in node.items("a list of tasks"):
        named = item.get("name") or item
        found.append(PhaseReference(named.text("a task's name"), named))
    return tuple(found)


def working_directory(node: Node | None) -> str:
    """A task's working folder, relative to the project's; "" for the latter.

    Raises:
        ProjectError: it is outside the project, or depends on a variable.
    """
    if node is None:
        return ""
    text = _VARIABLE.sub(
        lambda found: "." if found.group(1) == "CARGO_MAKE_WORKING_DIRECTORY" else found.group(),
        node.text("a folder"),
    )
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "$" in text:
        raise node.error(
            "CR-PROJECT-010",
            f"expected a folder inside the project, found {text!r}",
            hint="name it relative to the project's folder",
        )
    return "" if str(path) == "." else str(path)


def conditional(node: Node) -> bool:
    """Whether this is a variable with a default value, for use where it is not set otherwise.

    Inside an environment it never is.
    """
    condition = node.value.get("condition")
    only_unset = condition is None or (
        isinstance(condition, dict) and set(condition) == {"env_not_set"}
    )
    return (
        "value" in node.value
        and not isinstance(node.value["value"], dict | list)
        and only_unset
        and set(node.value) <= {"value", "condition"}
    )


def _quoted(word: str) -> str:
    """`word` quoted as one word of a shell, in which the shell still expands ${NAME}."""
    if not _VARIABLE.search(word):
        return shlex.quote(word)
    shown, end = '"', 0
    for found in _VARIABLE.finditer(word):
        shown += _escaped(word[end : found.start()]) + "${" + found.group(1) + "}"
        end = found.end()
    return shown + _escaped(word[end:]) + '"'


def _escaped(text: str) -> str:
    return re.sub(r'([\\"$`])', r"\\\1", text)


def _script(text: str, node: Node, runner: Node | None) -> str:
    lines = text.lstrip("\n")
    shebang = _SHEBANG.match(lines)
    if runner is not None and runner.text() not in (
        "@shell",
        "sh",
        "bash",
        "zsh",
        "python",
        "python3",
        "node",
        "perl",
        "ruby",
    ):
        runner.fail("@shell, sh, bash, zsh, python, python3, node, perl or ruby")
    if runner is not None and runner.value != "@shell":
        argv = [runner.text()]
    elif shebang:
        argv = shebang.group(1).split()
    else:
        return "set -e\n" + text
    option = _TEXT_OPTIONS.get(
        re.sub(
            r"[0-9.]+$", "", PurePosixPath(argv[-1] if argv[0].endswith("/env") else argv[0]).name
        )
    )
    if option is None:
        node.fail(f"a script for {', '.join(_TEXT_OPTIONS)}")
    return shlex.join([*argv, option, lines])


def expanded(variables: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """The variables with ${NAME} in their values replaced; a name that is not set is left."""
    found: dict[str, str] = {}
    for name, value in variables.items():
        found[name] = _VARIABLE.sub(
            lambda match: found.get(match.group(1), known.get(match.group(1), match.group())), value
        )
    return found
