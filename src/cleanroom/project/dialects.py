"""From a file's table to one shape, for the five dialects found in the wild and their mixtures.

A: `[project]`, `[lifecycle.X]`, `[hooks]`.
B: `[lifecycle]` metadata with `[phases.X]` and `[pipelines]`.
C: cargo-make's `[tasks.X]`.
D: A without `[project]`.
E: `[phases.X]` with hooks of shell strings and `[workspace] members`.
Keys that ggen reads are checked as ggen checks them; what does nothing is listed as ignored.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cleanroom.core.files import is_folder
from cleanroom.model.plan import Ignored
from cleanroom.project import tasks
from cleanroom.project.raw_project import Dialect, Mention, RawPhase, RawProject, RawWorkspace
from cleanroom.project.settings import word, words
from cleanroom.project.source import Node, Source, dotted, nearest

# Read by ggen and shown by `ggen lifecycle show`, without effect there and here.
_SHOWN = ("watch", "port", "cache", "outputs", "workspaces")
_PHASE_KEYS = (
    "description",
    "command",
    "commands",
    "parallel",
    "depends_on",
    "env",
    "cleanroom",
    "hooks",
)


def understand(source: Source, root: Path) -> RawProject:
    """Read a whole file. `root` is where its `members` patterns are looked for.

    Raises:
        ProjectError: a key that has a meaning has a value of the wrong type.
    """
    reader = _Reader(source)
    table = source.node.children()
    phases: dict[str, RawPhase] = {}
    hooks: dict[str, tuple[Mention, ...]] = {}
    for section in ("lifecycle", "phases", "tasks"):
        if section in table:
            reader.section(table[section], phases, hooks)
    if "hooks" in table:
        reader.hooks(table["hooks"], phases, hooks)
    variables, environments = reader.variables(table.get("env"))
    workspaces, parallel = reader.workspaces(table.get("workspace"), root)
    name = reader.project(table.get("project"))
    for key in table:
        if key not in (
            "project",
            "lifecycle",
            "phases",
            "tasks",
            "hooks",
            "env",
            "workspace",
            "cleanroom",
        ):
            reader.ignore(
                table[key], "name the phases on the command line" if key == "pipelines" else ""
            )
    return RawProject(
        source=source,
        dialect=_dialect(table),
        name=name,
        phases=phases,
        hooks=hooks,
        workspaces=workspaces,
        parallel=parallel,
        variables=variables,
        environments=environments,
        settings=table.get("cleanroom"),
        ignored=tuple(sorted(reader.ignored, key=lambda entry: entry.line)),
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


class _Reader:
    """Reads the sections of one file and collects what does nothing."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.ignored: list[Ignored] = []

    def ignore(self, node: Node, reason: str = "") -> None:
        line, _ = self.source.positions.key(node.path)
        self.ignored.append(Ignored(dotted(node.path), line, reason))

    def project(self, node: Node | None) -> str:
        if node is None:
            return ""
        for key, child in node.children().items():
            if key != "name":
                self.ignore(child)
        name = node.get("name")
        return name.text() if name else ""

    def section(
        self, node: Node, phases: dict[str, RawPhase], hooks: dict[str, tuple[Mention, ...]]
    ) -> None:
        """All phases under `lifecycle`, `phases` or `tasks`.

        A name that an earlier section has stays the earlier one's.
        """
        metadata = node.path == ("lifecycle",) and "phases" in self.source.table
        for name, child in node.children().items():
            if "\0" in name:
                raise child.error(
                    "CR-PROJECT-005",
                    "expected a name without NUL characters, found one",
                    at_key=True,
                )
            if metadata and not isinstance(child.value, dict):
                self.ignore(child)
            elif name in phases:
                self.ignore(child, f"{phases[name].node.key} has this name already")
            elif node.path == ("tasks",):
                phases[name] = self._task(name, child)
            else:
                phases[name] = self._phase(name, child, phases, hooks)

    def _phase(
        self,
        name: str,
        node: Node,
        phases: dict[str, RawPhase],
        hooks: dict[str, tuple[Mention, ...]],
    ) -> RawPhase:
        keys = node.children()
        for key, child in keys.items():
            if key in _SHOWN:
                self._shown(key, child)
            elif key not in _PHASE_KEYS:
                close = nearest(
                    key,
                    (
                        "description",
                        "command",
                        "commands",
                        "parallel",
                        "depends_on",
                        "cleanroom",
                        "hooks",
                    ),
                )
                self.ignore(child, f"did you mean {close!r}?" if close else "")
        commands, place = self._commands(keys)
        variables, environments = self.variables(keys.get("env"))
        before, after = self._own_hooks(name, keys.get("hooks"), phases)
        return RawPhase(
            name=name,
            node=node,
            commands=commands,
            commands_node=place,
            description=keys["description"].text() if "description" in keys else "",
            parallel=keys["parallel"].flag() if "parallel" in keys else False,
            depends_on=mentions(keys.get("depends_on")),
            variables=variables,
            environments=environments,
            settings=keys.get("cleanroom"),
            before=before,
            after=after,
        )

    def _commands(self, keys: Mapping[str, Node]) -> tuple[tuple[str, ...], Node | None]:
        several = keys["commands"].texts() if "commands" in keys else ()
        if "command" in keys:
            if several:
                self.ignore(keys["commands"], "command goes before commands")
            return (keys["command"].text(),), keys["command"]
        return several, keys.get("commands")

    def _shown(self, key: str, node: Node) -> None:
        """Keys that ggen checks and does nothing with; `watch` is a list in real files,
        which ggen refuses.
        """
        if key == "port":
            node.integer(0, 65535)
        elif key == "cache":
            node.flag()
        elif key in ("outputs", "workspaces") or isinstance(node.value, list):
            node.texts()
        elif not isinstance(node.value, str):
            node.flag()
        self.ignore(node, "cleanroom.outputs says what is brought back" if key == "outputs" else "")

    def _own_hooks(
        self, name: str, node: Node | None, phases: dict[str, RawPhase]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Hooks of shell strings, each list a phase of its own: ((before), (after))."""
        made: dict[str, tuple[str, ...]] = {"before": (), "after": ()}
        for key, child in node.children().items() if node else ():
            if key not in made:
                self.ignore(child)
            elif lines := (child.text(),) if isinstance(child.value, str) else child.texts():
                hook = self._free(f"{key}_{name}", phases)
                phases[hook] = RawPhase(
                    name=hook, node=child, commands=lines, commands_node=child, made=True
                )
                made[key] = (hook,)
        return made["before"], made["after"]

    def _free(self, name: str, phases: Mapping[str, RawPhase]) -> str:
        """A name for a made phase that no written one has."""
        sections: list[Any] = [
            self.source.table.get(section) for section in ("lifecycle", "phases", "tasks")
        ]
        taken = {
            *phases,
            *(key for section in sections if isinstance(section, dict) for key in section),
        }
        return (
            name
            if name not in taken
            else next(
                free
                for number in range(2, len(taken) + 3)
                if (free := f"{name}_{number}") not in taken
            )
        )

    def _task(self, name: str, node: Node) -> RawPhase:
        keys = node.children()
        for key, reason in tasks.ignored(keys).items():
            self.ignore(keys[key], reason)
        variables, environments = self.variables(keys.get("env"))
        commands, place = tasks.commands(keys)
        return RawPhase(
            name=name,
            node=node,
            commands=commands,
            commands_node=place,
            description=keys["description"].text() if "description" in keys else "",
            depends_on=tasks.dependencies(keys.get("dependencies")),
            variables=variables,
            environments=environments,
            settings=keys.get("cleanroom"),
            working_directory=tasks.working_directory(keys.get("cwd")),
        )

    def hooks(
        self, node: Node, phases: dict[str, RawPhase], hooks: dict[str, tuple[Mention, ...]]
    ) -> None:
        for key, child in node.children().items():
            when, _, of = key.partition("_")
            if when not in ("before", "after") or not of:
                self.ignore(child)
            elif isinstance(child.value, dict):
                hooks[key] = self._table_hook(key, child, phases)
            else:
                hooks[key] = mentions(child)
            if when in ("before", "after") and of and of != "all" and of not in phases:
                self.ignore(child, f"there is no phase {of!r}")

    def _table_hook(self, key: str, node: Node, phases: dict[str, RawPhase]) -> tuple[Mention, ...]:
        name = self._free(key, phases)
        made = self._phase(name, node, {}, {})
        phases[name] = RawPhase(
            name=name,
            node=node,
            commands=made.commands,
            commands_node=made.commands_node,
            description=made.description,
            depends_on=made.depends_on,
            variables=made.variables,
            environments=made.environments,
            settings=made.settings,
            made=True,
        )
        return (Mention(name, node),)

    def variables(self, node: Node | None) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
        """An `env` table: what is for every environment, and what is for one."""
        always: dict[str, str] = {}
        environments: dict[str, dict[str, str]] = {}
        for name, child in node.children().items() if node else ():
            if not isinstance(child.value, dict | list):
                always.update(words(Node(child.source, child.path[:-1], {name: child.value})))
            elif isinstance(child.value, dict) and tasks.conditional(child):
                always[name] = word(child.child("value"))
            elif isinstance(child.value, dict) and not {
                "script",
                "condition",
                "unset",
                "source",
                "value",
            } & set(child.value):
                environments[name] = self._environment(child)
            else:
                self.ignore(child, "expected a plain value")
        return always, environments

    def _environment(self, node: Node) -> dict[str, str]:
        found = {}
        for name, child in node.children().items():
            if isinstance(child.value, dict | list):
                self.ignore(
                    child,
                    f"[cleanroom.env.{node.path[-1]}] has such settings"
                    if name == "commands"
                    else "",
                )
            else:
                found.update(words(Node(child.source, node.path, {name: child.value})))
        return found

    def workspaces(self, node: Node | None, root: Path) -> tuple[tuple[RawWorkspace, ...], bool]:
        """The folders in name order, and whether they run at once."""
        found: dict[str, RawWorkspace] = {}
        parallel = False
        for name, child in node.children().items() if node else ():
            if name == "members" and isinstance(child.value, list):
                found.update(
                    (member.name, member)
                    for item in child.items()
                    for member in _members(item, root)
                )
            elif name == "parallel" and not isinstance(child.value, dict):
                parallel = child.flag()
            elif isinstance(child.value, dict):
                found[name] = RawWorkspace(name, self._workspace_path(child), child)
            else:
                self.ignore(child)
        return tuple(found[name] for name in sorted(found)), parallel

    def _workspace_path(self, node: Node) -> str:
        for key, child in node.children().items():
            if key != "path":
                self.ignore(child)
        path = node.get("path")
        if path is None:
            raise node.error(
                "CR-PROJECT-005",
                "expected the key 'path' in it, found none",
                hint='add path = "FOLDER"',
                at_key=True,
            )
        return path.text("a folder")


def _members(node: Node, root: Path) -> list[RawWorkspace]:
    """One folder, or those that a pattern finds."""
    pattern = node.text("a folder")
    if not glob.has_magic(pattern) or is_folder(root / pattern):
        return [RawWorkspace(pattern, pattern, node)]
    if pattern.startswith("/") or ".." in Path(pattern).parts:
        raise node.error(
            "CR-PROJECT-010",
            f"expected a pattern inside the project, found {pattern!r}",
            hint="name it relative to the project's folder",
        )
    folders = sorted(str(path.relative_to(root)) for path in root.glob(pattern) if is_folder(path))
    return [RawWorkspace(path, path, node) for path in folders]


def mentions(node: Node | None) -> tuple[Mention, ...]:
    """A list of phase names; one name alone is a list of one."""
    if node is None:
        return ()
    if isinstance(node.value, str) and node.path[-1] == "depends_on":
        return (Mention(node.text(), node),)
    return tuple(Mention(item.text(), item) for item in node.items("a list of phase names"))
