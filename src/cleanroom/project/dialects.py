"""From a file's table to one shape, for the five dialects found in the wild and their mixtures.

A: `[project]`, `[lifecycle.X]`, `[hooks]`.
B: `[lifecycle]` metadata with `[phases.X]` and `[pipelines]`.
C: cargo-make's `[tasks.X]`.
D: A without `[project]`.
E: `[phases.X]` with hooks of shell strings and `[workspace] members`.
Keys that ggen reads are checked as ggen checks them; keys without effect are listed as ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from cleanroom.project import suggestions, tasks
from cleanroom.project.ignored_keys import IgnoredKeys
from cleanroom.project.raw_project import Dialect, PhaseReference, RawPhase, RawProject
from cleanroom.project.source import Node, Source
from cleanroom.project.variables import read_variables
from cleanroom.project.workspaces import read_workspaces

_SECTIONS = ("lifecycle", "phases", "tasks")
_KEYS = ("project", *_SECTIONS, "hooks", "env", "workspace", "cleanroom")
# Read by ggen and shown by `ggen lifecycle show`, without effect there and here.
_DISPLAY_KEYS = ("watch", "port", "cache", "outputs", "workspaces")
# Suggested for a misspelt key; `env` is not.
_SUGGESTED_KEYS = (
    "description",
    "command",
    "commands",
    "parallel",
    "depends_on",
    "cleanroom",
    "hooks",
)
_PHASE_KEYS = (*_SUGGESTED_KEYS, "env")


def parse_project(
    source: Source, root: Path, tables: Mapping[str, Node] | None = None
) -> RawProject:
    """Read a whole file. `root` is where its `members` patterns are looked for.

    `tables` are its tables by the names that a make.toml has for them, where it is another file.

    Raises:
        ProjectError: a key that has a meaning has a value of the wrong type.
    """
    ignored = IgnoredKeys(source)
    table = source.node.children() if tables is None else tables
    phases = _PhaseReader(table, ignored)
    for section in _SECTIONS:
        if section in table:
            phases.read_section(table[section])
    if "hooks" in table:
        phases.read_hooks(table["hooks"])
    variables = read_variables(table.get("env"), ignored)
    workspaces = read_workspaces(table.get("workspace"), root, ignored)
    name = _project_name(table.get("project"), ignored)
    for key, node in table.items():
        if key not in _KEYS:
            hint = "name the phases on the command line" if key == "pipelines" else ""
            ignored.add(node, hint or suggestions.table(key, _KEYS))
    return RawProject(
        source=source,
        dialect=_dialect(table),
        name=name,
        phases=phases.phases,
        hooks=phases.hooks,
        workspaces=workspaces.folders,
        parallel=workspaces.parallel,
        variables=variables.always,
        environments=variables.environments,
        settings=table.get("cleanroom"),
        ignored=ignored.by_line(),
    )


def _dialect(table: Mapping[str, Node]) -> Dialect:
    lifecycle = table["lifecycle"].value if "lifecycle" in table else {}
    if any(isinstance(value, dict) for value in lifecycle.values()):
        return "A" if "project" in table else "D"
    if "phases" in table:
        return "B" if lifecycle or "pipelines" in table else "E"
    if "tasks" in table:
        return "C"
    return "A" if "project" in table else "D"


def _project_name(node: Node | None, ignored: IgnoredKeys) -> str:
    if node is None:
        return ""
    for key, child in node.children().items():
        if key != "name":
            ignored.add(child)
    name = node.get("name")
    return name.text() if name else ""


class _PhaseReader:
    """Reads the sections with phases and hooks of one file."""

    def __init__(self, table: Mapping[str, Node], ignored: IgnoredKeys) -> None:
        self.phases: dict[str, RawPhase] = {}
        self.hooks: dict[str, tuple[PhaseReference, ...]] = {}  # "before_build" -> phases
        self._table = table
        self._ignored = ignored

    def read_section(self, node: Node) -> None:
        """Read all phases under `lifecycle`, `phases` or `tasks`.

        A name that an earlier section has stays the earlier one's.

        Raises:
            ProjectError: a key that has a meaning has a wrong value.
        """
        metadata = node.path == ("lifecycle",) and "phases" in self._table
        for name, child in node.children().items():
            if "\0" in name:
                raise child.error(
                    "CR-PROJECT-005",
                    "expected a name without NUL characters, found one",
                    at_key=True,
                )
            if metadata and not isinstance(child.value, dict):
                self._ignored.add(child)
            elif name in self.phases:
                self._ignored.add(child, f"{self.phases[name].node.key} has this name already")
            elif node.path == ("tasks",):
                self.phases[name] = self._task(name, child)
            else:
                self.phases[name] = self._phase(name, child, self.phases)

    def read_hooks(self, node: Node) -> None:
        """Read `[hooks]`: lists of phases, or tables that are phases of their own.

        Raises:
            ProjectError: a key that has a meaning has a wrong value.
        """
        for key, child in node.children().items():
            when, _, of = key.partition("_")
            if when not in ("before", "after") or not of:
                self._ignored.add(child, suggestions.hook(key))
                continue
            if isinstance(child.value, dict):
                self.hooks[key] = self._table_hook(key, child)
            else:
                self.hooks[key] = phase_references(child)
            if of != "all" and of not in self.phases:
                close = suggestions.word(of, self.phases)
                self._ignored.add(child, f"there is no phase {of!r}{close and f'; {close}'}")

    def _phase(self, name: str, node: Node, made: dict[str, RawPhase]) -> RawPhase:
        """The phase of a table. Phases that its own hooks become are added to `made`."""
        keys = node.children()
        for key, child in keys.items():
            if key in _DISPLAY_KEYS:
                self._check_display_key(key, child)
            elif key not in _PHASE_KEYS:
                self._ignored.add(child, suggestions.phase_key(key, _SUGGESTED_KEYS))
        commands, commands_node = self._commands(keys)
        variables = read_variables(keys.get("env"), self._ignored)
        before, after = self._own_hooks(name, keys.get("hooks"), made)
        return RawPhase(
            name=name,
            node=node,
            commands=commands,
            commands_node=commands_node,
            description=keys["description"].text() if "description" in keys else "",
            parallel=keys["parallel"].flag() if "parallel" in keys else False,
            depends_on=phase_references(keys.get("depends_on")),
            variables=variables.always,
            environments=variables.environments,
            settings=keys.get("cleanroom"),
            before=before,
            after=after,
        )

    def _commands(self, keys: Mapping[str, Node]) -> tuple[tuple[str, ...], Node | None]:
        """The commands, and the node that they come from."""
        several = keys["commands"].texts() if "commands" in keys else ()
        if "command" in keys:
            if several:
                self._ignored.add(keys["commands"], "command goes before commands")
            return (keys["command"].text(),), keys["command"]
        return several, keys.get("commands")

    def _check_display_key(self, key: str, node: Node) -> None:
        """Check a key as ggen does, and list it as ignored.

        Real files have lists for `watch`, which ggen refuses; they are taken here.
        """
        if key == "port":
            node.integer(0, 65535)
        elif key == "cache":
            node.flag()
        elif key in ("outputs", "workspaces") or isinstance(node.value, list):
            node.texts()
        elif not isinstance(node.value, str):
            node.flag()
        hint = "cleanroom.outputs says what is brought back" if key == "outputs" else ""
        self._ignored.add(node, hint)

    def _own_hooks(
        self, name: str, node: Node | None, made: dict[str, RawPhase]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Add each list of shell strings to `made` as a phase: the names (before), (after)."""
        names: dict[str, tuple[str, ...]] = {"before": (), "after": ()}
        for key, child in node.children().items() if node else ():
            if key not in names:
                self._ignored.add(child)
                continue
            lines = (child.text(),) if isinstance(child.value, str) else child.texts()
            if lines:
                hook = self._unused_name(f"{key}_{name}", made)
                made[hook] = RawPhase(
                    name=hook, node=child, commands=lines, commands_node=child, generated=True
                )
                names[key] = (hook,)
        return names["before"], names["after"]

    def _unused_name(self, name: str, made: Mapping[str, RawPhase]) -> str:
        """`name`, or `name_2` and so on, where a phase of the file or of `made` has it."""
        taken = set(made)
        for section in _SECTIONS:
            phases = self._table.get(section)
            if phases is not None and isinstance(phases.value, dict):
                taken.update(phases.value)
        candidate, number = name, 1
        while candidate in taken:
            number += 1
            candidate = f"{name}_{number}"
        return candidate

    def _task(self, name: str, node: Node) -> RawPhase:
        keys = node.children()
        for key, reason in tasks.ignored(keys).items():
            self._ignored.add(keys[key], suggestions.setting(key) or reason)
        variables = read_variables(keys.get("env"), self._ignored)
        commands, commands_node = tasks.commands(keys)
        return RawPhase(
            name=name,
            node=node,
            commands=commands,
            commands_node=commands_node,
            description=keys["description"].text() if "description" in keys else "",
            depends_on=tasks.dependencies(keys.get("dependencies")),
            variables=variables.always,
            environments=variables.environments,
            settings=keys.get("cleanroom"),
            working_directory=tasks.working_directory(keys.get("cwd")),
        )

    def _table_hook(self, key: str, node: Node) -> tuple[PhaseReference, ...]:
        """Add the hook as a phase. Hooks of its own, and `parallel`, have no effect there."""
        name = self._unused_name(key, self.phases)
        phase = self._phase(name, node, {})
        self.phases[name] = msgspec.structs.replace(
            phase, parallel=False, before=(), after=(), generated=True
        )
        return (PhaseReference(name, node),)


def phase_references(node: Node | None) -> tuple[PhaseReference, ...]:
    """A list of phase names; for `depends_on` a single name too."""
    if node is None:
        return ()
    if isinstance(node.value, str) and node.path[-1] == "depends_on":
        return (PhaseReference(node.text(), node),)
    return tuple(PhaseReference(item.text(), item) for item in node.items("a list of phase names"))
