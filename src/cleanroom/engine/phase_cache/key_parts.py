"""The parts of a phase's key, read from the plan, the files and the machine.

Everything blocks.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from cleanroom.core.files import open_to_read
from cleanroom.core.version import __version__
from cleanroom.engine.phase_cache import fingerprints
from cleanroom.engine.phase_cache.fingerprints import NotComparable
from cleanroom.engine.phase_cache.input_patterns import path_matcher
from cleanroom.engine.phase_cache.keys import digest
from cleanroom.model.plan import PhaseRun, Plan, ServiceSpec, Workspace
from cleanroom.services import Recipe


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


class PlannedPhase(NamedTuple):
    """A phase of the plan, in its workspace."""

    workspace: Workspace
    phase: PhaseRun

    @property
    def root(self) -> Path:
        return Path(self.workspace.path)

    def input_digests(self) -> dict[str, str]:
        """Path -> digest of its inputs as they are now. Raises as `fingerprints` does."""
        outputs = self.phase.outputs or ()
        return fingerprints.input_digests(self.root, self.phase.cache_inputs, outputs)

    def output_digests(self, written_back: Sequence[str]) -> dict[str, str]:
        """Path -> digest of its outputs as they are now. Raises as `fingerprints` does."""
        return fingerprints.output_digests(self.root, self.phase.outputs, written_back)


class KeyParts:
    """Reads the parts of one run's phases; tools and system only once."""

    def __init__(self, plan: Plan, facts: RunFacts) -> None:
        self._plan = plan
        self._facts = facts
        # folder -> digest of the tools in it
        self._tools: dict[str, str] = {}
        self._system = ""

    def read(self, planned: PlannedPhase, uncommitted: Sequence[str]) -> dict[str, str]:
        """The parts of one phase as they are now, except for the keys of phases before it.

        `uncommitted` are paths that earlier phases changed and that did not come back.

        Raises:
            NotComparable: a part of it cannot be read, or is not known.
        """
        phase = planned.phase
        covers = path_matcher(phase.cache_inputs)
        if changed := next((path for path in uncommitted if covers(path)), ""):
            raise NotComparable(
                f"an earlier phase changed its input {changed}, which did not come back to "
                "the project"
            )
        services = {name: self._facts.service_identities.get(name, "") for name in phase.services}
        if unknown := next((name for name, identity in services.items() if not identity), ""):
            raise NotComparable(f"service {unknown} is not known")
        caller = self._facts.caller
        return {
            **self._settings(planned),
            **{f"input {path}": found for path, found in planned.input_digests().items()},
            **{f"variable {name}": digest(value) for name, value in phase.variables.items()},
            **{f"variable {name}": self._keyed_digest(caller.get(name)) for name in phase.passed},
            **{f"tools in {folder}": found for folder, found in self._tools_of(phase).items()},
            **{f"service {name}": identity for name, identity in services.items()},
        }

    def _settings(self, planned: PlannedPhase) -> dict[str, str]:
        plan, path = self._plan, self._facts.caller.get("PATH", "")
        workspace, phase = planned
        place = [
            phase.name,
            workspace.name,
            workspace.path,
            phase.working_directory,
            phase.image,
            plan.backend,
            phase.timeout_seconds,
        ]
        programs = fingerprints.program_stamps(phase.commands, path)
        return {
            "engine": __version__,
            "place": digest(place),
            "commands": digest(phase.commands),
            "policy": digest(phase.policy),
            "environment": digest([plan.environment, path, plan.tool_variables, *plan.tool_files]),
            "seed": str(plan.seed),
            "patterns": digest([phase.cache_inputs, phase.outputs]),
            **({"builds": "true"} if phase.builds else {}),
            "system": self._system_stamp(),
            **{f"program {program}": stamp for program, stamp in programs.items()},
        }

    def _system_stamp(self) -> str:
        self._system = self._system or fingerprints.system_stamp()
        return self._system

    def _tools_of(self, phase: PhaseRun) -> dict[str, str]:
        folders = tuple(dict.fromkeys((*self._plan.tools, *phase.tools)))
        unread = [folder for folder in folders if folder not in self._tools]
        self._tools |= fingerprints.tool_stamps(unread)
        return {folder: self._tools[folder] for folder in folders}

    def _keyed_digest(self, value: str | None) -> str:
        """An HMAC of a value that may be secret, since a plain digest would let anybody who reads
        the cache try values against it; empty where there is no value.
        """
        if value is None:
            return ""
        data = value.encode("utf-8", "surrogateescape")
        return hmac.new(self._facts.secret.encode(), data, hashlib.sha256).hexdigest()


def service_identities(plan: Plan, recipes: Sequence[Recipe]) -> dict[str, str]:
    """Name -> digest of each service's specification, of its server's program,
    and of the files that make its first state; empty where a file cannot be read.
    """
    specs = {spec.name: spec for spec in plan.services}
    return {
        recipe.name: _identity(specs[recipe.name], recipe)
        for recipe in recipes
        if recipe.name in specs
    }


def _identity(spec: ServiceSpec, recipe: Recipe) -> str:
    try:
        files = [_sha256(Path(file)) for file in spec.init]
    except OSError:
        return ""
    return digest(
        [
            msgspec.structs.replace(spec, origin=None),
            recipe.version,
            recipe.server,
            recipe.server_sha256,
            files,
        ]
    )


def _sha256(file: Path) -> str:
    with open_to_read(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
