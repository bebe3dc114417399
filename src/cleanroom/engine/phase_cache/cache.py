"""Phases that need not run again: which of a run's phases are skipped, and which are remembered.

A phase is skipped where an entry has its key, its outputs are as the entry has them, and the
evidence of the run that the entry names confirms that it passed.
Every doubt is a miss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import anyio.to_thread

from cleanroom.core.beneath import Folder
from cleanroom.engine.phase_cache import fingerprints
from cleanroom.engine.phase_cache.entries import Entries
from cleanroom.engine.phase_cache.evidence import KEY, OUTPUTS, Claim, Evidence
from cleanroom.engine.phase_cache.fingerprints import NotComparable
from cleanroom.engine.phase_cache.key_parts import (
    KeyParts,
    PlannedPhase,
    RunFacts,
    service_identities,
)
from cleanroom.engine.phase_cache.keys import (
    Entry,
    cache_key,
    difference,
    digest,
    reason_never_skipped,
    skip_groups,
)
from cleanroom.engine.phases.skipping import Decision, Remembered
from cleanroom.model.errors import ArtifactError, ProjectError
from cleanroom.model.plan import Plan
from cleanroom.services import Recipe

__all__ = ["PhaseCache", "RunFacts", "service_identities"]

NO_COMMANDS = Decision(why="it has no commands")
INPUT = "input "  # begins the names of those parts


class PhaseCache:
    """The cache of one run. Positions count the plan's phases over all workspaces."""

    def __init__(
        self, plan: Plan, root: Folder, run_id: str, facts: RunFacts, *, ignored: bool = False
    ) -> None:
        """`root` is the project's folder.

        With `ignored` no phase is skipped; one that passes is remembered all the same.
        """
        self._plan = plan
        self._run_id = run_id
        self._services_outlive_run = facts.services_outlive_run
        self._ignored = ignored
        self._parts = KeyParts(plan, facts)
        self._entries = Entries(root)
        self._evidence = Evidence(root)
        self._phases = [
            PlannedPhase(workspace, phase)
            for workspace in plan.workspaces
            for phase in workspace.phases
        ]
        self._groups = {position: group for group in skip_groups(plan.phases) for position in group}
        # decisions of groups that were decided together
        self._resolved: dict[int, Decision] = {}
        self._keys: dict[int, str] = {}

    async def decide(self, position: int, uncommitted: Sequence[str]) -> Decision:
        """As `skipping.Skipping` has it."""
        return await anyio.to_thread.run_sync(self.decide_now, position, uncommitted)

    async def remember(
        self, position: int, decision: Decision, written_back: Sequence[str]
    ) -> Remembered:
        """As `skipping.Skipping` has it."""
        if decision.parts is None:
            return Remembered(why_not=decision.why)
        return await anyio.to_thread.run_sync(self._remember, position, decision, written_back)

    async def needed_recipes(self, recipes: Sequence[Recipe]) -> tuple[Recipe, ...]:
        """The recipes without services that only phases use which are skipped before any runs."""
        skipped = await anyio.to_thread.run_sync(self._count_leading_skips)
        if not skipped:
            return tuple(recipes)
        left = self._phases[skipped:]
        needed = {service for planned in left for service in planned.phase.services}
        return tuple(recipe for recipe in recipes if recipe.name in needed)

    def _count_leading_skips(self) -> int:
        """The number of phases before the first that runs: nothing changes before their turn."""
        for position in range(len(self._phases)):
            if not self.decide_now(position, ()).skips:
                return position
        return len(self._phases)

    def decide_now(self, position: int, uncommitted: Sequence[str]) -> Decision:
        """Whether the phase is skipped now. Blocks.

        The first phase of a group decides for all of it.
        """
        if position in self._resolved:
            return self._resolved[position]
        group = self._groups[position]
        decision = self._decide_alone(position, uncommitted)
        if not decision.skips:
            return decision
        if position != group.start:
            first = self._phases[group.start].phase.name
            return decision._replace(
                run_id="", why=f"{first} ran, and phases from there to here share services"
            )
        resolved = {position: decision}
        for other in group[1:]:
            resolved[other] = self._decide_alone(other, uncommitted)
            if not resolved[other].skips and resolved[other] is not NO_COMMANDS:
                why = (
                    f"{self._phases[other].phase.name} runs, and phases from here to there share "
                    f"services: {resolved[other].why}"
                )
                return decision._replace(run_id="", why=why)
        self._resolved |= resolved
        return decision

    def _decide_alone(self, position: int, uncommitted: Sequence[str]) -> Decision:
        """As if no other phase depended on it."""
        planned = self._phases[position]
        phase = planned.phase
        self._keys.pop(position, None)
        if not phase.runs_commands:
            return NO_COMMANDS
        if not phase.cache_inputs:
            return Decision(why="it has no cache.inputs")
        if reason := reason_never_skipped(
            self._plan, phase, services_outlive_run=self._services_outlive_run
        ):
            return Decision(why=f"never skipped: {reason}")
        try:
            parts = self._parts.read(planned, uncommitted) | self._keys_before(position)
        except NotComparable as error:
            return Decision(why=str(error))
        key = self._keys[position] = cache_key(parts)
        if self._ignored:
            return Decision(parts, "", key, "the cache is ignored")
        return self._look_up(planned, parts, key)

    def _keys_before(self, position: int) -> dict[str, str]:
        """As parts of its key, the keys of the phases before it in its group.

        What they have left in the services is part of what it finds.

        Raises:
            NotComparable: one of them has no key.
        """
        keys: dict[str, str] = {}
        for other in range(self._groups[position].start, position):
            phase = self._phases[other].phase
            if phase.runs_commands and not self._keys.get(other):
                raise NotComparable(
                    f"{phase.name}, which runs before it on the same services, cannot be skipped"
                )
            if phase.runs_commands:
                keys[f"phase {phase.name} before it"] = self._keys[other]
        return keys

    def _look_up(self, planned: PlannedPhase, parts: Mapping[str, str], key: str) -> Decision:
        """Skip the phase where a confirmed entry has this key; else say what is missing."""
        entry = self._entries.read(planned, key)
        if entry is None:
            return Decision(parts, "", key, self._reason_for_miss(planned, parts))
        phase = planned.phase
        try:
            if changed := fingerprints.changed_output(planned.root, phase.outputs, entry.outputs):
                why = f"its output {changed} changed since run {entry.run_id}"
                return Decision(parts, "", key, why)
        except NotComparable as error:
            return Decision(parts, "", key, str(error))
        attributes = {KEY: key, OUTPUTS: digest(entry.outputs)}
        claim = Claim(entry.run_id, phase.name, planned.workspace.name, attributes)
        if missing := self._evidence.missing(claim):
            return Decision(parts, "", key, missing)
        why = f"nothing changed since run {entry.run_id}, which passed it"
        return Decision(parts, entry.run_id, key, why)

    def _reason_for_miss(self, planned: PlannedPhase, parts: Mapping[str, str]) -> str:
        last = self._entries.newest(planned)
        if last is not None and (changed := difference(last.parts, parts)):
            return f"{changed} since run {last.run_id}"
        nothing = "nothing is remembered of it"
        try:
            if planned.phase.outputs is not None:
                planned.output_digests(())
        except NotComparable as error:
            return f"{nothing}: {error}"
        return nothing

    def _remember(
        self, position: int, decision: Decision, written_back: Sequence[str]
    ) -> Remembered:
        planned = self._phases[position]
        parts = dict(decision.parts or {})
        try:
            if changed := _changed_input(planned, parts, written_back):
                return Remembered(why_not=f"its input {changed} changed while it ran")
            outputs = planned.output_digests(written_back)
        except NotComparable as error:
            return Remembered(why_not=str(error))
        entry = Entry(
            phase=planned.phase.name,
            workspace=planned.workspace.name,
            run_id=self._run_id,
            parts=parts,
            outputs=outputs,
        )
        try:
            self._entries.write(planned, decision.key, entry)
        except (ArtifactError, ProjectError, OSError) as error:
            return Remembered(why_not=f"the cache could not be written: {error}")
        return Remembered({KEY: decision.key, OUTPUTS: digest(outputs)})


def _changed_input(
    planned: PlannedPhase, parts: Mapping[str, str], written_back: Sequence[str]
) -> str:
    """The first input that somebody else changed since the decision; empty where none is.

    Nobody knows which of the two contents the phase has read.
    """
    before = {
        name.removeprefix(INPUT): found for name, found in parts.items() if name.startswith(INPUT)
    }
    after = planned.input_digests()
    paths = sorted((before.keys() | after.keys()) - set(written_back))
    return next((path for path in paths if before.get(path) != after.get(path)), "")
