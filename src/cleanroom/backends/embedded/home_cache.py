"""The `.cache` folders of phases' homes, kept from one run to the next.

There is one for each project and level, in `CACHE/home-caches/PROJECT/LEVEL/`:

    lock        held for a moment, while a layer is added
    used        held (shared) by every environment that is shown the layers
    0/          empty, the lowest
    1/ 2/ ...   layers of phases that passed; never changed, so that others may be shown them
    whole/      instead of layers without overlays (tier E3): one environment has it at a time

A phase writes to a layer of its own.
A folder that the engine filled may lie below all of them (`EnvironmentSpec.home_below`).
The layer is added only if the phase passed and broke no rule, and no other was added meanwhile:
it lies above what it was made above.
Files in a layer were written by the code under test; nothing here opens or follows them.
All functions block.
"""

from __future__ import annotations

import fcntl
import itertools
import os
from contextlib import suppress
from pathlib import Path

from cleanroom.core.beneath import Folder
from cleanroom.core.locks import locked
from cleanroom.sandbox.filesystem import layers, merge_layers, tree_removal
from cleanroom.sandbox.filesystem.mount_ops import HomeLayers

LOCK, USED, LOWEST, WHOLE = "lock", "used", "0", "whole"
LOCK_SECONDS = 20.0  # held while names are changed
# Layers: few enough for lookups, and merging them is only renaming.
FOLD_AT = 8
# Layers that are added although somebody is always shown the older ones, so none can be merged.
KEPT_MAX = 40
Owner = tuple[int, int] | None


class HomeCache:
    """The `.cache` of the homes of one workspace's phases, one phase at a time."""

    def __init__(self, scratch: Path, project: Path) -> None:
        """Layers are made in `scratch`, which goes with the run.

        What is kept belongs to whoever owns the project.
        """
        self._scratch = scratch
        found = project.stat()
        self._owner: Owner = (found.st_uid, found.st_gid) if os.geteuid() == 0 else None
        self._numbers = itertools.count(1)
        self._level: Folder | None = None
        self._used = -1  # says that layers are shown
        self._layer: Path | None = None
        self._newest = 0
        self._claimed: Path | None = None

    def make_layer(self, home: str, user: Owner) -> HomeLayers:
        """Make a layer, which belongs to `user`, above the layers in the folder `home` now.

        Raises:
            OSError: it cannot be made.
        """
        level = self._enter(home)
        with locked(level, LOCK, seconds=LOCK_SECONDS):
            self._use(level)
            known = _numbers(level)
        self._newest = known[-1]
        self._layer = self._scratch / f"home-{next(self._numbers)}"
        layers.make(self._layer, level.path / LOWEST, user)
        return HomeLayers(
            self._layer, tuple(level.path / str(number) for number in reversed(known))
        )

    def make_fresh_layer(self, below: Path, user: Owner) -> Path:
        """Make a layer of a home that keeps nothing, above the folder `below`.

        Raises:
            OSError: it cannot be made.
        """
        layer = self._scratch / f"home-{next(self._numbers)}"
        layers.make(layer, below, user)
        return layer

    def claim_folder(self, home: str) -> Path:
        """Move the folder `whole` out of `home`; makes an empty one if it is missing.

        Raises:
            OSError: it cannot be made.
        """
        level = self._enter(home)
        self._claimed = self._scratch / f"home-{next(self._numbers)}"
        try:
            os.rename(WHOLE, self._claimed, src_dir_fd=level.descriptor)
        except FileNotFoundError:
            self._claimed.mkdir(mode=0o700)
        return self._claimed

    def finish(self, keep: bool) -> None:
        """Add the changes of the environment that was left, if `keep`.

        Else they are removed with the run.
        Changes that cannot be added are left too.
        """
        if self._level is None:
            return
        with self._level as level, suppress(OSError, TimeoutError):
            if keep and self._layer is not None:
                self._add(level, self._layer / "upper")
            if keep and self._claimed is not None:
                # Refused where another's is there, unless it is empty.
                os.rename(self._claimed, WHOLE, dst_dir_fd=level.descriptor)
        self._level = self._layer = self._claimed = None
        self._release()

    def _enter(self, home: str) -> Folder:
        self.finish(False)
        path = Path(home)
        path.parent.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with Folder.at(path.parent.parent) as homes:
            level = homes.folder(f"{path.parent.name}/{path.name}", make=True, mode=0o700)
        self._level = level
        with level.folder(LOWEST, make=True, mode=0o700) as lowest:
            lowest.set_owner_and_mode(0o700, self._owner)
        return level

    def _use(self, level: Folder) -> None:
        """Hold `used`: no run merges layers that are shown."""
        self._used = level.open_own(USED, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._used, fcntl.LOCK_SH)

    def _release(self) -> None:
        if self._used >= 0:
            os.close(self._used)
            self._used = -1

    def _add(self, level: Folder, upper: Path) -> None:
        if not os.listdir(upper):
            return
        if self._owner is not None:
            _change_owner(upper, self._owner)
        with locked(level, LOCK, seconds=LOCK_SECONDS):
            known = _numbers(level)
            if known[-1] != self._newest or len(known) > KEPT_MAX:
                return
            os.rename(upper, str(self._newest + 1), dst_dir_fd=level.descriptor)
            if len(known) >= FOLD_AT:
                self._release()
                _merge(level, [*known[1:], self._newest + 1])


def _numbers(level: Folder) -> list[int]:
    """Numbers of the layers, the lowest first."""
    found = []
    for name in level.names():
        if name.isdecimal():
            level.folder(name).close()  # no link
            found.append(int(name))
    return sorted(found)


def _change_owner(upper: Path, owner: tuple[int, int]) -> None:
    """Give a layer, whose files belong to a run's user, to whoever owns the project."""
    for _, folders, files, held in os.fwalk(upper, follow_symlinks=False):
        for name in (*folders, *files):
            os.chown(name, *owner, dir_fd=held, follow_symlinks=False)
        os.fchown(held, *owner)


def _merge(level: Folder, numbers: list[int]) -> None:
    """Merge the older layers into the newest, unless somebody is shown them now.

    Layers that cannot be merged are removed.
    """
    *older, newest = map(str, numbers)
    used = level.open_own(USED, os.O_RDWR)
    try:
        fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with level.folder(newest) as above:
            for layer in reversed(older):
                with level.folder(layer) as below:
                    merge_layers.merge_below(below, above)
                tree_removal.remove_beneath(level.descriptor, layer)
    except BlockingIOError:
        return
    except OSError:
        for number in numbers:
            tree_removal.remove_beneath(level.descriptor, str(number))
    finally:
        os.close(used)
