"""Shows phases the git folder outside of their project, read-only and at its own place."""

from __future__ import annotations

import os
from typing import NamedTuple

import anyio.to_thread
import msgspec

from cleanroom.backends.base import EnvironmentSpec, Mount
from cleanroom.engine.phases import git_folder
from cleanroom.engine.phases.current_phase import CurrentPhase
from cleanroom.engine.phases.git_folder import GitFolder, Unproven
from cleanroom.engine.supervision.context import RunContext

# Commands that only look at a repository write its index by the way.
_VARIABLES = {"GIT_OPTIONAL_LOCKS": "0"}
# The project is a mount of its own, below the folder with the `.git`.
_ACROSS = {"GIT_DISCOVERY_ACROSS_FILESYSTEM": "1"}


_SETTINGS = ".gitconfig"


class _Shown(NamedTuple):
    folder: GitFolder
    # path inside -> file of ours with its text
    files: dict[str, str]


class ShownGit:
    """Finds the git folders of one run's projects, each once."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        # project -> what is shown; None for nothing
        self._known: dict[str, _Shown | None] = {}
        # project -> the folder to which its `.git` leads, which is not shown
        self.unproven: dict[str, Unproven] = {}

    async def beside(self, current: CurrentPhase, spec: EnvironmentSpec) -> EnvironmentSpec:
        """The phase's specification, with what its project's `.git` leads to."""
        # At Low the host's files are there anyway. Without mounts of our own no made file can stand
        # in the place of another one.
        backend = self._context.backend
        has_mounts = backend.layers_homes or not backend.shows_host
        if spec.host_root or spec.workspace is None or not has_mounts:
            return spec
        project = spec.workspace.root
        if project not in self._known:
            self._known[project] = await anyio.to_thread.run_sync(self._find, project)
        shown = self._known[project]
        return spec if shown is None else _with(spec, shown)

    def _find(self, project: str) -> _Shown | None:
        try:
            found = git_folder.find(project)
        except Unproven as unproven:
            self.unproven[project] = unproven
            return None
        except OSError:
            return None
        if found is None:
            return None
        scratch = self._context.scratch / "git" / str(len(self._known))
        scratch.mkdir(parents=True, mode=0o755)
        files = {}
        for number, (path, text) in enumerate(found.texts.items()):
            file = scratch / str(number)
            file.write_bytes(text)
            # whoever the environment runs as
            file.chmod(0o644)
            files[path] = str(file)
        return _Shown(found, files)


def _with(spec: EnvironmentSpec, shown: _Shown) -> EnvironmentSpec:
    mounts = (
        *spec.mounts,
        *(Mount(source=path, target=path) for path in shown.folder.shown),
        *(Mount(source=file, target=path) for path, file in shown.files.items()),
    )
    # Folders on the way belong to root inside, and git takes no repository of another user's.
    text = spec.home_files.get(_SETTINGS, "")
    quoted = shown.folder.top.replace("\\", "\\\\").replace('"', '\\"')
    text += f'[safe]\n\tdirectory = "{quoted}"\n'
    return msgspec.structs.replace(
        spec,
        mounts=mounts,
        closed=(*spec.closed, *shown.folder.folders),
        variables={**_VARIABLES, **_ACROSS, **spec.variables},
        home_files={**spec.home_files, _SETTINGS: text} if os.geteuid() == 0 else spec.home_files,
    )
