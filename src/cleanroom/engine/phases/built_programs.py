"""Programs that a phase built and that its level does not let start: the settings that let them.

Looks whether the host has a program, changes nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from cleanroom.core.paths import is_within
from cleanroom.core.text import written_out_on_one_line
from cleanroom.model.plan import PhaseRun

TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 -- the environment's own
# Names of folders that builds make. What the host has in another was not built by the phase.
_BUILD_FOLDERS = ("target", "build", "dist", "out", "_build", ".build")


def explained(programs: Sequence[str], root: str, phase: PhaseRun) -> tuple[str, str]:
    """The reason of a phase that failed since one of `programs` was not started, and the hint that
    helps; empty where none of them was built.

    `root` is the workspace's folder.
    """
    for program in programs:
        if lines := _missing_lines(program, root, phase):
            level = phase.policy.level.value
            named = written_out_on_one_line(program)
            reason = f"{named} was built by the phase, and at {level} is not started"
            return reason, f"{' and '.join(f'`{line}`' for line in lines)} lets it run"
    return "", ""


def _missing_lines(program: str, root: str, phase: PhaseRun) -> list[str]:
    """The lines for make.toml that let `program` start."""
    builds = [] if phase.builds else ["cleanroom.builds = true"]
    if any(is_within(program, folder) for folder in TEMPORARY) and not is_within(program, root):
        return builds
    if not is_within(program, root):
        return []
    if any(is_within(program, folder) for folder in _output_folders(root, phase)):
        return builds
    top, below, _ = os.path.relpath(program, root).partition("/")
    if not below or (top not in _BUILD_FOLDERS and os.path.lexists(program)):
        return []
    # "." is every change, which is what came back without outputs.
    outputs = [*(phase.outputs or (".",)), f"{top}/"]
    named = ", ".join(json.dumps(output) for output in outputs)
    return [*builds, f"cleanroom.outputs = [{named}]"]


def _output_folders(root: str, phase: PhaseRun) -> list[str]:
    paths = (os.path.normpath(os.path.join(root, output)) for output in phase.outputs or ())
    return [path for path in paths if path != root]
