"""Phases that need not run again: entries in `.ggen/cleanroom/cache`,
each confirmed by the evidence of the run that it names.

    cache/PHASE/KEY.json      what the phase's result depended on, what came of it, and the run

An entry that is torn, foreign or not confirmed is a miss, and so is every doubt.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import anyio.to_thread
import msgspec

from cleanroom.core import disk
from cleanroom.core.beneath import Folder
from cleanroom.core.files import open_to_read, safe_name, write_atomic
from cleanroom.core.version import __version__
from cleanroom.engine.own_folder import CACHE
from cleanroom.engine.phase_cache import fingerprints
from cleanroom.engine.phase_cache.evidence import KEY, OUTPUTS, Claim, Evidence
from cleanroom.engine.phase_cache.fingerprints import Unfit
from cleanroom.engine.phase_cache.keys import (
    Entry,
    covering,
    difference,
    digest,
    key_of,
    never,
    stretches,
)
from cleanroom.engine.phases.skipping import RUNS, Decision, Remembered
from cleanroom.model.errors import ArtifactError, ProjectError
from cleanroom.model.plan import PhaseRun, Plan, ServiceSpec
from cleanroom.model.plan import Workspace as PlannedWorkspace
from cleanroom.services import Recipe

ENTRIES_MAX = 8  # per phase: a few branches that somebody goes to and fro between
ENTRY_BYTES_MAX = 64 << 20
NO_COMMANDS = Decision(why="it has no commands")


class RunFacts(NamedTuple):
    """What the keys of a run's phases depend on besides the plan and the files."""

    # the caller's environment variables
    caller: Mapping[str, str]
    # service -> digest of its server and its first state; one that is missing or empty is unknown
    service_identities: Mapping[str, str]
    # HMAC key of digests of values that the caller passes on, which may be secret
    secret: str
    # whether services belong to a session or a pool and keep their state after the run
    services_outlive_run: bool = False


class PhaseCache:
    """The cache of one run."""

    def __init__(
        self, plan: Plan, root: Folder, run_id: str, facts: RunFacts, *, ignored: bool = False
    ) -> None:
        """`root` is the project's folder.

        With `ignored` no phase is skipped; one that passes is remembered all the same.
        """
        self._plan = plan
        self._root = root
        self._run_id = run_id
        self._facts = facts
        self._ignored = ignored
        self._evidence = Evidence(root)
        self._phases: list[tuple[PlannedWorkspace, PhaseRun]] = [
            (workspace, phase) for workspace in plan.workspaces for phase in workspace.phases
        ]
        self._stretches = {
            position: stretch for stretch in stretches(plan.phases) for position in stretch
        }
        self._settled: dict[int, Decision] = {}  # of stretches that were decided as a whole
        self._keys: dict[int, str] = {}
        self._tools: dict[str, str] = {}

    @property
    def enabled(self) -> bool:
        """Does any phase have inputs? Else there is nothing to decide."""
        return any(phase.cache_inputs for _, phase in self._phases)

    async def decide(self, position: int, unsettled: Sequence[str]) -> Decision:
        """As `skipping.Skipping` has it."""
        if not self.enabled:
            return RUNS
        return await anyio.to_thread.run_sync(self.decide_now, position, unsettled)

    async def remember(
        self, position: int, decision: Decision, returned: Sequence[str]
    ) -> Remembered:
        """As `skipping.Skipping` has it."""
        if decision.parts is None:
            return Remembered(why_not=decision.why)
        return await anyio.to_thread.run_sync(self._remembered, position, decision, returned)

    async def needed_recipes(self, recipes: Sequence[Recipe]) -> tuple[Recipe, ...]:
        """Without the services of phases that are going to be skipped before anything runs."""
        skipped = await anyio.to_thread.run_sync(self.leading_skips) if self.enabled else []
        named = {service for _, phase in self._phases[len(skipped) :] for service in phase.services}
        return (
            tuple(recipe for recipe in recipes if recipe.name in named)
            if skipped
            else tuple(recipes)
        )

    def leading_skips(self) -> list[Decision]:
        """Of the phases before the first that runs: nothing can change before their turn.

        Blocks.
        """
        found: list[Decision] = []
        for position in range(len(self._phases) if self.enabled else 0):
            decision = self.decide_now(position, ())
            if not decision.skips:
                break
            found.append(decision)
        return found

    def decide_now(self, position: int, unsettled: Sequence[str]) -> Decision:
        """What becomes of the phase now.

        The first phase of a stretch decides for all of it.
        Blocks.
        """
        if position in self._settled:
            return self._settled[position]
        stretch = self._stretches[position]
        alone = self._alone(position, unsettled)
        if position != stretch.start or not alone.skips:
            if alone.skips:
                return alone._replace(
                    run_id="",
                    why=(
                        f"{self._phases[stretch.start][1].name} ran, and phases from there to "
                        "here share services"
                    ),
                )
            return alone
        whole = {position: alone}
        for other in stretch[1:]:
            whole[other] = self._alone(other, unsettled)
            if not whole[other].skips and whole[other] is not NO_COMMANDS:
                said = (
                    f"{self._phases[other][1].name} runs, and phases from here to there share "
                    f"services: {whole[other].why}"
                )
                return alone._replace(run_id="", why=said)
        self._settled |= whole
        return alone

    def _alone(self, position: int, unsettled: Sequence[str]) -> Decision:
        """As if no other phase depended on it."""
        _, phase = self._phases[position]
        self._keys.pop(position, None)
        if not phase.runs_commands:
            return NO_COMMANDS
        if not phase.cache_inputs:
            return Decision(why="it has no cache.inputs")
        if reason := never(self._plan, phase, session=self._facts.services_outlive_run):
            return Decision(why=f"never skipped: {reason}")
        try:
            parts = self._parts(position, unsettled)
        except Unfit as unfit:
            return Decision(why=str(unfit))
        key = self._keys[position] = key_of(parts)
        run_id, why = (
            ("", "the cache is ignored") if self._ignored else self._found(position, parts, key)
        )
        return Decision(parts, run_id, key, why)

    # --- what a result depends on

    def _parts(self, position: int, unsettled: Sequence[str]) -> dict[str, str]:
        workspace, phase = self._phases[position]
        covers = covering(phase.cache_inputs)
        if hidden := next((path for path in unsettled if covers(path)), ""):
            raise Unfit(
                f"an earlier phase changed its input {hidden}, which did not come back to "
                "the project"
            )
        shared = {name: self._facts.service_identities.get(name, "") for name in phase.services}
        if unknown := next((name for name, identity in shared.items() if not identity), ""):
            raise Unfit(f"service {unknown} is not known")
        folders = tuple(dict.fromkeys((*self._plan.tools, *phase.tools)))
        self._tools |= fingerprints.tools(folder for folder in folders if folder not in self._tools)
        files = fingerprints.inputs(Path(workspace.path), phase.cache_inputs, phase.outputs or ())
        return {
            **self._settings(workspace, phase),
            **{f"input {path}": found for path, found in files.items()},
            **{f"variable {name}": digest(value) for name, value in phase.variables.items()},
            **{
                f"variable {name}": self._keyed(self._facts.caller.get(name))
                for name in phase.passed
            },
            **{f"tools in {folder}": self._tools[folder] for folder in folders},
            **{f"service {name}": identity for name, identity in shared.items()},
            **{
                f"phase {self._phases[other][1].name} before it": key
                for other, key in self._before(position).items()
            },
        }

    def _settings(self, workspace: PlannedWorkspace, phase: PhaseRun) -> dict[str, str]:
        plan, path = self._plan, self._facts.caller.get("PATH", "")
        place = [
            phase.name,
            workspace.name,
            workspace.path,
            phase.working_directory,
            phase.image,
            plan.backend,
            phase.timeout_seconds,
        ]
        return {
            "engine": __version__,
            "place": digest(place),
            "commands": digest(phase.commands),
            "policy": digest(phase.policy),
            "environment": digest([plan.environment, path, plan.tool_variables]),
            "seed": str(plan.seed),
            "patterns": digest([phase.cache_inputs, phase.outputs]),
            "system": self._system(),
            **{
                f"program {program}": stamp
                for program, stamp in fingerprints.programs(phase.commands, path).items()
            },
        }

    def _system(self) -> str:
        """Looked at once: thousands of files."""
        self._tools[""] = self._tools.get("") or fingerprints.system()
        return self._tools[""]

    def _keyed(self, value: str | None) -> str:
        """Of a value that may be secret: nobody without the user's own key can try values against
        it.
        """
        return (
            ""
            if value is None
            else hmac.new(
                self._facts.secret.encode(),
                value.encode("utf-8", "surrogateescape"),
                hashlib.sha256,
            ).hexdigest()
        )

    def _before(self, position: int) -> dict[int, str]:
        """The keys of the phases before it in its stretch: what they left in the services is part
        of what it finds.
        """
        found: dict[int, str] = {}
        for other in range(self._stretches[position].start, position):
            phase = self._phases[other][1]
            if phase.runs_commands and not self._keys.get(other):
                raise Unfit(
                    f"{phase.name}, which runs before it on the same services, cannot be skipped"
                )
            if phase.runs_commands:
                found[other] = self._keys[other]
        return found

    # --- entries

    def _found(self, position: int, parts: Mapping[str, str], key: str) -> tuple[str, str]:
        """The run whose evidence confirms it, or why there is none."""
        workspace, phase = self._phases[position]
        entry = self._read(f"{self._entry_folder(position)}/{key}.json", position)
        if entry is None or entry.key != key:
            last = self._newest(position)
            changed = difference(last.parts, parts) if last else ""
            if last and changed:
                return "", f"{changed} since run {last.run_id}"
            return "", _nothing(Path(workspace.path), phase)
        try:
            if changed := fingerprints.same_outputs(
                Path(workspace.path), phase.outputs, entry.outputs
            ):
                return "", f"its output {changed} changed since run {entry.run_id}"
        except Unfit as unfit:
            return "", str(unfit)
        claim = Claim(
            entry.run_id, phase.name, workspace.name, {KEY: key, OUTPUTS: digest(entry.outputs)}
        )
        if lacking := self._evidence.lacking(claim):
            return "", lacking
        return entry.run_id, f"nothing changed since run {entry.run_id}, which passed it"

    def _remembered(self, position: int, decision: Decision, returned: Sequence[str]) -> Remembered:
        workspace, phase = self._phases[position]
        root = Path(workspace.path)
        parts = dict(decision.parts or {})
        try:
            after = fingerprints.inputs(root, phase.cache_inputs, phase.outputs or ())
            before = {
                name.removeprefix("input "): found
                for name, found in parts.items()
                if name.startswith("input ")
            }
            own = set(returned)
            for path in sorted((before.keys() | after.keys()) - own):
                # Which of the two the phase saw, nobody knows.
                if before.get(path) != after.get(path):
                    return Remembered(why_not=f"its input {path} changed while it ran")
            outputs = fingerprints.outputs(root, phase.outputs, returned)
        except Unfit as unfit:
            return Remembered(why_not=str(unfit))
        entry = Entry(
            phase=phase.name,
            workspace=workspace.name,
            run_id=self._run_id,
            parts=parts,
            outputs=outputs,
        )
        try:
            with self._root.folder(self._entry_folder(position), make=True) as folder:
                write_atomic(folder, f"{decision.key}.json", msgspec.json.encode(entry))
                for old in _by_age(folder)[ENTRIES_MAX:]:
                    disk.here.remove(folder, old)
        except (ArtifactError, ProjectError, OSError) as error:
            return Remembered(why_not=f"the cache could not be written: {error}")
        return Remembered({KEY: decision.key, OUTPUTS: digest(outputs)})

    def _entry_folder(self, position: int) -> str:
        workspace, phase = self._phases[position]
        name = f"{workspace.name}/{phase.name}" if workspace.name else phase.name
        return f"{CACHE}/{safe_name(name)}"

    def _newest(self, position: int) -> Entry | None:
        place = self._entry_folder(position)
        try:
            with self._root.folder(place) as folder:
                names = _by_age(folder)
        except OSError:
            return None
        found = (self._read(f"{place}/{name}", position) for name in names)
        return next((entry for entry in found if entry), None)

    def _read(self, file: str, position: int) -> Entry | None:
        """The entry, if it is one of this phase."""
        workspace, phase = self._phases[position]
        try:
            with self._root.reading(file) as stream:
                entry = msgspec.json.decode(stream.read(ENTRY_BYTES_MAX), type=Entry)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, ValueError):
            return None
        return entry if (entry.phase, entry.workspace) == (phase.name, workspace.name) else None


def _nothing(root: Path, phase: PhaseRun) -> str:
    """Nothing is remembered of the phase: where its declared outputs tell, why."""
    nothing = "nothing is remembered of it"
    try:
        if phase.outputs is not None:
            fingerprints.outputs(root, phase.outputs, ())
    except Unfit as unfit:
        return f"{nothing}: {unfit}"
    return nothing


def _by_age(folder: Folder) -> list[str]:
    """The entries, newest first.

    Raises:
        OSError: it cannot be read.
    """
    held = folder.descriptor
    times = {
        name: os.stat(name, dir_fd=held, follow_symlinks=False).st_mtime_ns
        for name in folder.names()
        if name.endswith(".json")
    }
    return sorted(times, key=lambda name: (times[name], name), reverse=True)


def service_identities(plan: Plan, recipes: Sequence[Recipe]) -> dict[str, str]:
    """Name -> digest of what is asked of each service, of the server that answers,
    and of the files that make its first state.

    Blocks.
    """
    specs = {spec.name: spec for spec in plan.services}
    return {
        recipe.name: _identity(specs[recipe.name], recipe)
        for recipe in recipes
        if recipe.name in specs
    }


def _sha256(file: Path) -> str:
    with open_to_read(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _identity(spec: ServiceSpec, recipe: Recipe) -> str:
    try:
        files = [_sha256(Path(file)) for file in spec.init]
    except OSError:
        return ""  # unknown: phases that use it run
    return digest(
        [
            msgspec.structs.replace(spec, origin=None),
            recipe.version,
            recipe.server,
            recipe.server_sha256,
            files,
        ]
    )
