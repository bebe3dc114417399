"""Disks that fail and powers that are cut: what may be on a disk after each step of a program that
writes evidence.

The model is that of a journalling file system at its worst:
names change in the order in which they were asked to, up to any point after the last folder that
was synced; of a file's bytes only those are certain that were synced,
and of the rest there may be all, a part, nothing, or zeros.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from cleanroom.core.beneath import Folder
from cleanroom.core.disk import Disk

Names = dict[Path, int]  # path -> file
TAILS = ("whole", "half", "nothing", "zeros")  # what became of the bytes that were not synced


class Step(NamedTuple):
    """One call, as it was carried out."""

    call: str
    file: int = -1
    data: bytes = b""
    size: int = 0
    paths: tuple[Path, ...] = ()


class Quick(Disk):
    """Waits for nothing: what is read back at once needs no disk."""

    def sync(self, descriptor: int) -> None:
        pass

    def sync_folder(self, folder: Folder) -> None:
        pass


class Recorded(Quick):
    """Carries out and writes down. `steps` is everything since it was made in `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.steps: list[Step] = []
        self.first: Names = {}
        self.contents: list[bytes] = []  # of the files that were there at first, by number
        for path in (path for path in root.rglob("*") if path.is_file()):
            self.first[path] = len(self.contents)
            self.contents.append(path.read_bytes())
        self._names = dict(self.first)
        self._open: dict[int, int] = {}
        self._count = len(self.contents)

    def _new(self) -> int:
        self._count += 1
        return self._count - 1

    def create(self, folder: Folder, name: str, mode: int) -> int:
        descriptor = super().create(folder, name, mode)
        path = folder.path / name
        self._names[path] = self._open[descriptor] = self._new()
        self.steps.append(Step("create", self._open[descriptor], paths=(path,)))
        return descriptor

    def append(self, folder: Folder, name: str, mode: int) -> int:
        descriptor = super().append(folder, name, mode)
        path = folder.path / name
        if path not in self._names:
            self._names[path] = self._new()
            self.steps.append(Step("create", self._names[path], paths=(path,)))
        self._open[descriptor] = self._names[path]
        return descriptor

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        count = super().write(descriptor, data)
        self.steps.append(Step("write", self._open[descriptor], bytes(data[:count])))
        return count

    def truncate(self, descriptor: int, size: int) -> None:
        super().truncate(descriptor, size)
        self.steps.append(Step("truncate", self._open[descriptor], size=size))

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        self.steps.append(Step("sync", self._open[descriptor]))

    def sync_folder(self, folder: Folder) -> None:
        super().sync_folder(folder)
        self.steps.append(Step("sync_folder"))

    def rename(self, folder: Folder, source: str, target: str) -> None:
        super().rename(folder, source, target)
        self._named("rename", folder, source, target)

    def exchange(self, folder: Folder, one: str, other: str) -> bool:
        done = super().exchange(folder, one, other)
        if done:
            self._named("exchange", folder, one, other)
        return done

    def link(self, folder: Folder, source: str, target: str) -> None:
        super().link(folder, source, target)
        self._named("link", folder, source, target)

    def remove(self, folder: Folder, name: str) -> None:
        super().remove(folder, name)
        self._named("remove", folder, name)

    def _named(self, call: str, folder: Folder, *names: str) -> None:
        step = Step(call, paths=tuple(folder.path / name for name in names))
        self.steps.append(step)
        rename(self._names, step)

    def after(self, cut: int) -> Iterator[Callable[[Path], None]]:
        """Everything that may be on the disk when the power is cut after `cut` steps,
        each as what lays it out in an empty folder.
        """
        changes = [number for number, step in enumerate(self.steps[:cut]) if step.paths]
        certain = max(
            (number for number, step in enumerate(self.steps[:cut]) if step.call == "sync_folder"),
            default=-1,
        )
        least = sum(number < certain for number in changes)
        for kept in range(least, len(changes) + 1):
            names = dict(self.first)
            for number in changes[:kept]:
                rename(names, self.steps[number])
            for tail in TAILS:
                yield self._layout(
                    {path: self._content(file, cut, tail) for path, file in names.items()}
                )

    def _layout(self, files: dict[Path, bytes]) -> Callable[[Path], None]:
        def lay_out(folder: Path) -> None:
            for path, data in files.items():
                target = folder / path.relative_to(self.root)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)

        return lay_out

    def _content(self, file: int, cut: int, tail: str) -> bytes:
        certain = now = self.contents[file] if file < len(self.contents) else b""
        for step in self.steps[:cut]:
            if step.file != file:
                continue
            if step.call == "write":
                now += step.data
            elif step.call == "truncate":
                now = now[: step.size]
            elif step.call == "sync":
                certain = now
        rest = now[len(certain) :] if now.startswith(certain) else b""
        return {
            "whole": now,
            "half": certain + rest[: len(rest) // 2],
            "nothing": certain,
            "zeros": certain + bytes(len(rest)),
        }[tail]


def rename(names: Names, step: Step) -> None:
    """Carry out a step among names."""
    match step.call, step.paths:
        case "create", (path,):
            names[path] = step.file
        case "rename", (source, target):
            names[target] = names.pop(source)
        case "exchange", (one, other):
            names[one], names[other] = names[other], names[one]
        case "link", (source, target):
            names[target] = names[source]
        case "remove", (path,):
            names.pop(path, None)


class Failing(Quick):
    """Fails at the call number `at`, once or from then on,
    in the way a full or a broken disk does.
    """

    def __init__(self, at: int, *, for_good: bool, reason: int = errno.ENOSPC) -> None:
        self.at = at
        self.calls = 0
        self._for_good = for_good
        self._reason = reason

    def _step(self) -> None:
        self.calls += 1
        if self.calls == self.at or (self._for_good and self.calls > self.at):
            raise OSError(self._reason, os.strerror(self._reason))

    def create(self, folder: Folder, name: str, mode: int) -> int:
        self._step()
        return super().create(folder, name, mode)

    def append(self, folder: Folder, name: str, mode: int) -> int:
        self._step()
        return super().append(folder, name, mode)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        """A full disk takes a part of what it is given first."""
        try:
            self._step()
        except OSError:
            super().write(descriptor, data[: len(data) // 2])
            raise
        return super().write(descriptor, data)

    def truncate(self, descriptor: int, size: int) -> None:
        self._step()
        super().truncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        self._step()
        super().sync(descriptor)

    def sync_folder(self, folder: Folder) -> None:
        self._step()
        super().sync_folder(folder)

    def rename(self, folder: Folder, source: str, target: str) -> None:
        self._step()
        super().rename(folder, source, target)

    def exchange(self, folder: Folder, one: str, other: str) -> bool:
        self._step()
        return super().exchange(folder, one, other)

    def link(self, folder: Folder, source: str, target: str) -> None:
        self._step()
        super().link(folder, source, target)
