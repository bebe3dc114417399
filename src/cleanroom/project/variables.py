"""`env` tables: variables for every environment, and variables for one."""

from __future__ import annotations

from typing import NamedTuple

from cleanroom.project import tasks
from cleanroom.project.ignored_keys import IgnoredKeys
from cleanroom.project.settings import variable_table, variable_value
from cleanroom.project.source import Node

# Keys of cargo-make's tables that set one variable: such a table is no environment.
_CARGO_MAKE_KEYS = {"script", "condition", "unset", "source", "value"}


class Variables(NamedTuple):
    """The content of an `env` table."""

    always: dict[str, str]
    environments: dict[str, dict[str, str]]  # environment -> variables


def read_variables(node: Node | None, ignored: IgnoredKeys) -> Variables:
    """Read an `env` table; an absent one has no variables.

    Raises:
        ProjectError: a name or a value of a variable is none.
    """
    found = Variables({}, {})
    for name, child in node.children().items() if node else ():
        if not isinstance(child.value, dict | list):
            found.always.update(_one(child, child.path[:-1], name))
        elif isinstance(child.value, dict) and tasks.conditional(child):
            found.always[name] = variable_value(child.child("value"))
        elif isinstance(child.value, dict) and not _CARGO_MAKE_KEYS & set(child.value):
            found.environments[name] = _environment(child, ignored)
        else:
            ignored.add(child, "expected a plain value")
    return found


def _environment(node: Node, ignored: IgnoredKeys) -> dict[str, str]:
    found = {}
    for name, child in node.children().items():
        if not isinstance(child.value, dict | list):
            found.update(_one(child, node.path, name))
        elif name == "commands":
            ignored.add(child, f"[cleanroom.env.{node.path[-1]}] has such settings")
        else:
            ignored.add(child)
    return found


def _one(child: Node, table: tuple[str | int, ...], name: str) -> dict[str, str]:
    """One variable, checked as a table of one, so that errors name its own key."""
    return variable_table(Node(child.source, table, {name: child.value}))
