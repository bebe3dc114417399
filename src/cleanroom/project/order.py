"""In which order phases run: prerequisites, hooks, phases.

Pure.

ggen's order for one phase: before-hooks, commands, after-hooks,
every hook a full phase with hooks of its own, run every time.
Ours on top: prerequisites (`depends_on`) come before the before-hooks, each at most once per run;
`before_all` and `after_all` stand once around everything.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cleanroom.model.plan import Role
from cleanroom.project.raw_project import PhaseReference, RawPhase, RawProject
from cleanroom.project.source import nearest

CHAIN_MAX = 64  # phases nested in one another by hooks and prerequisites; real files reach 4
STEPS_MAX = 10_000  # hooks run every time, so a small file can ask for exponentially many runs


class Step(msgspec.Struct, frozen=True):
    """One run of one phase."""

    name: str
    role: Role
    of: str = ""


def unfold(project: RawProject, requested: Sequence[str]) -> list[Step]:
    """Every run of a phase, in order, for the phases that are asked for (which exist).

    Raises:
        ProjectError: a hook or prerequisite that is needed names no phase,
            or they go round in a circle, or they are far too many.
    """
    return _Unfolding(project).run(requested)


def ends_before_after_hooks(phase: RawPhase) -> bool:
    """ggen leaves a phase without commands before its after-hooks;
    hooks written into the phase itself have no such history.
    """
    return not phase.commands


class _Unfolding:
    def __init__(self, project: RawProject) -> None:
        self.project = project
        self.steps: list[Step] = []
        self.done: set[str] = set()
        self.as_prerequisite: set[str] = set()

    def run(self, requested: Sequence[str]) -> list[Step]:
        self._hooks("before_all", "all", ())
        for name in requested:
            if name not in self.as_prerequisite:
                self._phase(name, "phase", "", ())
        self._hooks("after_all", "all", ())
        return self.steps

    def _phase(self, name: str, role: Role, of: str, chain: tuple[str, ...]) -> None:
        phase = self.project.phases[name]
        chain = (*chain, name)
        for reference in phase.depends_on:
            if reference.name not in self.done:
                self._check(reference, chain)
                self.as_prerequisite.add(reference.name)
                self._phase(reference.name, "prerequisite", name, chain)
        self._hooks(f"before_{name}", name, chain)
        self._made(phase.before, name, chain)
        self._step(Step(name, role, of))
        self._made(phase.after, name, chain)
        if not ends_before_after_hooks(phase):
            self._hooks(f"after_{name}", name, chain)

    def _hooks(self, key: str, of: str, chain: tuple[str, ...]) -> None:
        for reference in self.project.hooks.get(key, ()):
            self._check(reference, chain)
            self._phase(reference.name, "hook", of, chain)

    def _made(self, names: tuple[str, ...], of: str, chain: tuple[str, ...]) -> None:
        for name in names:
            self._phase(name, "hook", of, chain)

    def _step(self, step: Step) -> None:
        if len(self.steps) >= STEPS_MAX:
            raise self.project.source.node.error(
                "CR-PROJECT-017",
                f"expected at most {STEPS_MAX} runs of phases, found more",
                hint="hooks run every time: name fewer of them",
            )
        self.steps.append(step)
        self.done.add(step.name)

    def _check(self, reference: PhaseReference, chain: tuple[str, ...]) -> None:
        if reference.name not in self.project.phases:
            close = nearest(reference.name, self.project.phases)
            hint = (
                f"did you mean {close!r}?" if close else f"phases: {', '.join(self.project.phases)}"
            )
            raise reference.node.error(
                "CR-PROJECT-011",
                f"expected the name of a phase, found {reference.name[:80]!r}",
                hint=hint,
            )
        if reference.name in chain:
            circle = " -> ".join((*chain[chain.index(reference.name) :], reference.name))
            raise reference.node.error(
                "CR-PROJECT-012",
                f"expected an order, found a circle: {circle}",
                hint="remove one of its hooks or prerequisites",
            )
        if len(chain) >= CHAIN_MAX:
            raise reference.node.error(
                "CR-PROJECT-017",
                f"expected at most {CHAIN_MAX} phases nested in one another, found more",
            )
