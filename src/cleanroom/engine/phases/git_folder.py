"""The git folder that a project's `.git` leads to, outside of the project.

A linked worktree, a submodule, a `.git` that is a link, a project in a subfolder of its repository:
git reads objects and references there.
They are shown, and neither hooks, nor logs, nor remotes, nor what belongs to other worktrees.

The `.git` of a project is hostile: it may name any folder.
So nothing is shown but a git folder of the project's owner that leads back to this very project, or
whose index says that git wrote it, and no name of it that is a link.
No git is started here. All functions block on the disk.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cleanroom.core.beneath import Folder
from cleanroom.core.paths import is_within
from cleanroom.engine.phases import git_index

_BYTES_MAX = 1 << 20
_INDEX_BYTES_MAX = 256 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# What is shown of the folder that all worktrees share, and of a worktree's own.
_COMMON = ("HEAD", "objects", "refs", "packed-refs", "reftable", "shallow", "info")
_OWN = ("HEAD", "index", "commondir", "gitdir", "refs", "ORIG_HEAD", "MERGE_HEAD", "info")
# Files of the folders above a project that say what git passes over in it.
_RULES = (".gitignore", ".gitattributes")
# Settings of the section `core` that start no program and name no other file.
_CORE = (
    *("repositoryformatversion", "filemode", "ignorecase", "precomposeunicode", "symlinks"),
    *("autocrlf", "eol", "safecrlf", "abbrev", "quotepath", "trustctime", "checkstat"),
    *("bigfilethreshold", "sparsecheckout", "sparsecheckoutcone", "logallrefupdates"),
    *("protecthfs", "protectntfs", "untrackedcache"),
)
_SECTION = re.compile(r'\s*\[\s*([A-Za-z0-9.-]+)(?:\s+"[^"]*")?\s*\]\s*')
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_VALUE = re.compile(r"[A-Za-z0-9._/+-]*")


class GitFolder(NamedTuple):
    """What a phase is shown of a git folder outside of its project."""

    # the folder with the `.git`
    top: str
    # files and folders that are shown at their own paths
    shown: tuple[str, ...]
    # path -> what is shown there in place of the file
    texts: dict[str, bytes]
    # the folders of git's in which these lie
    folders: tuple[str, ...]


class Unproven(Exception):
    """`.git` leads out to what is not shown; the arguments are the path and why."""


def find(project: str) -> GitFolder | None:
    """What to show for the project at this canonical path; None where its git folder lies in it.

    Raises:
        Unproven: `.git` leads to a folder of which nothing says that it is this project's.
    """
    owner = os.lstat(project).st_uid
    top = _top(project, owner)
    if not top:
        return None
    git = os.path.join(top, ".git")
    mode = os.lstat(git).st_mode
    if stat.S_ISDIR(mode):
        if top == project:
            return None
        folder = git
    else:
        folder = _led_to(git, mode)
        if not folder or is_within(folder, project):
            return None
    found = _Search(project, top, owner)
    common = found.common_folder(folder, leads=not stat.S_ISDIR(mode))
    if top != project:
        found.require_tracked(folder)
    return found.result(folder, common)


def _top(project: str, owner: int) -> str:
    """The nearest folder with a `.git`, from the project up, among those of its owner."""
    top = project
    while os.lstat(top).st_uid == owner or top == project:
        if os.path.lexists(os.path.join(top, ".git")):
            return top
        if top == os.path.dirname(top):
            break
        top = os.path.dirname(top)
    return ""


def _led_to(git: str, mode: int) -> str:
    """The folder that a `.git` names, which is a file or a link; empty for none."""
    if stat.S_ISLNK(mode):
        named = os.readlink(git)
    else:
        content = _text(git, 4096)
        named = content.removeprefix("gitdir:").strip() if content.startswith("gitdir:") else ""
    if not named or "\0" in named or "\n" in named:
        return ""
    folder = os.path.normpath(os.path.join(os.path.dirname(git), named))
    if not os.path.lexists(folder):
        return ""
    if os.path.realpath(folder) != folder:
        raise Unproven(folder, "a link is on the way to it")
    return folder


class _Search:
    """Looks at the git folder of one project."""

    def __init__(self, project: str, top: str, owner: int) -> None:
        self._project, self._top, self._owner = project, top, owner

    def common_folder(self, folder: str, *, leads: bool) -> str:
        """The folder that all worktrees share.

        `leads`: a `.git` names it, so it has to lead back.

        Raises:
            Unproven: it is no git folder of the project's owner, or does not lead back.
        """
        common = folder
        if self._is_own(os.path.join(folder, "commondir"), stat.S_ISREG):
            named = _text(os.path.join(folder, "commondir")).strip()
            common = os.path.normpath(os.path.join(folder, named))
            back = os.path.join(folder, _text(os.path.join(folder, "gitdir")).strip())
            placed = os.path.dirname(folder) == os.path.join(common, "worktrees")
            if not placed or os.path.realpath(common) != common:
                raise Unproven(folder, "it is no worktree of the folder that it names")
            if os.path.normpath(back) != os.path.join(self._top, ".git"):
                raise Unproven(folder, "its worktree is another one")
        elif worktree := self._worktree(folder):
            if worktree != self._top:
                raise Unproven(folder, "its worktree is another one")
        elif leads and not self._is_checked_out(folder):
            raise Unproven(folder, "nothing in it says that this is its worktree")
        for path, kind in (
            (folder, stat.S_ISDIR),
            (os.path.join(folder, "HEAD"), stat.S_ISREG),
            (common, stat.S_ISDIR),
            (os.path.join(common, "HEAD"), stat.S_ISREG),
            (os.path.join(common, "objects"), stat.S_ISDIR),
            (os.path.join(common, "refs"), stat.S_ISDIR),
        ):
            if not self._is_own(path, kind):
                raise Unproven(folder, "it is no git folder of the project's owner")
        return common

    def _is_checked_out(self, folder: str) -> bool:
        """Whether git wrote or looked at a file of this very project with the folder's index.

        Nobody can give a file of theirs another one's number and time of change. What they can do
        is show that one itself: through a link to its folder, or by a second name of it.
        """
        stamps = git_index.stamps(_content(os.path.join(folder, "index"), _INDEX_BYTES_MAX))
        with Folder.at(Path(self._top)) as top:
            return any(_is_stamped(top, stamp) for stamp in stamps)

    def require_tracked(self, folder: str) -> None:
        """Require that git tracks something in the project, which lies in a folder below.

        Raises:
            Unproven: it is a folder that happens to lie in somebody's repository.
        """
        inside = os.fsencode(os.path.relpath(self._project, self._top)) + b"/"
        index = _content(os.path.join(folder, "index"), _INDEX_BYTES_MAX)
        if not git_index.has_inside(index, inside):
            raise Unproven(folder, "nothing of this project is tracked there")

    def result(self, folder: str, common: str) -> GitFolder:
        """What is shown of the two folders."""
        shown = [*self._existing(common, _COMMON)]
        texts = {os.path.join(common, "config"): self._config(common)}
        if folder != common:
            shown += self._existing(folder, _OWN)
            if self._is_own(os.path.join(folder, "config.worktree"), stat.S_ISREG):
                path = os.path.join(folder, "config.worktree")
                texts[path] = _settings(_text(path)).encode()
        else:
            shown += self._existing(folder, ("index", "ORIG_HEAD", "MERGE_HEAD"))
        if self._top != self._project:
            shown += self._above()
            index = os.path.join(folder, "index")
            inside = os.fsencode(os.path.relpath(self._project, self._top)) + b"/"
            narrowed = git_index.narrowed(_content(index, _INDEX_BYTES_MAX), inside)
            if narrowed:
                texts[index] = narrowed
        paths = tuple(path for path in shown if path not in texts)
        return GitFolder(self._top, paths, texts, (common, folder))

    def _above(self) -> Iterator[str]:
        """A `.git` file and ignore files of the folders above the project."""
        at = os.path.dirname(self._project)
        yield from self._existing(self._top, (".git",), stat.S_ISREG)
        while is_within(at, self._top):
            yield from self._existing(at, _RULES, stat.S_ISREG)
            at = os.path.dirname(at)

    def _existing(self, folder: str, names: tuple[str, ...], kind: object = None) -> Iterator[str]:
        for name in names:
            path = os.path.join(folder, name)
            kinds = (stat.S_ISREG,) if kind is not None else (stat.S_ISREG, stat.S_ISDIR)
            if any(self._is_own(path, matches) for matches in kinds):
                yield path

    def _is_own(self, path: str, kind: object) -> bool:
        """Whether the path itself is of this kind, and the project's owner's."""
        try:
            info = os.lstat(path)
        except OSError:
            return False
        assert callable(kind)
        return bool(kind(info.st_mode)) and info.st_uid == self._owner

    def _worktree(self, folder: str) -> str:
        """The canonical path that `core.worktree` of the folder's configuration leads to."""
        named = ""
        for section, key, value in _read_settings(_text(os.path.join(folder, "config"))):
            if (section, key) == ("core", "worktree"):
                named = value.strip('"')
        return os.path.realpath(os.path.join(folder, named)) if named else ""

    def _config(self, common: str) -> bytes:
        text = _settings(_text(os.path.join(common, "config")))
        if self._worktree(common):
            quoted = self._top.replace("\\", "\\\\").replace('"', '\\"')
            text += f'[core]\n\tworktree = "{quoted}"\n'
        return text.encode(errors="surrogateescape")


def _is_stamped(top: Folder, stamp: git_index.Stamp) -> bool:
    """Whether the file of the stamp lies in this very folder, by one name, and is as git saw it."""
    try:
        held = top.open(os.fsdecode(stamp.path), os.O_PATH)
    except (OSError, ValueError):
        return False
    try:
        info = os.fstat(held)
    finally:
        os.close(held)
    return info.st_nlink == 1 and stamp[1:] == (
        divmod(info.st_ctime_ns, 10**9),
        divmod(info.st_mtime_ns, 10**9),
        info.st_ino & 0xFFFFFFFF,
        info.st_size,
    )


def _settings(text: str) -> str:
    """A configuration with the settings of this one that are shown."""
    lines = ["[core]", "\tbare = false"]
    for section, key, value in _read_settings(text):
        known = key in _CORE if section == "core" else section == "extensions"
        if known and _VALUE.fullmatch(value):
            lines += [f"[{section}]", f"\t{key} = {value}"]
    return "\n".join(lines) + "\n"


def _read_settings(text: str) -> Iterator[tuple[str, str, str]]:
    """Section, key and value of each line; of sections with a subsection nothing."""
    section = ""
    for line in text.splitlines():
        rest = line
        if header := _SECTION.match(line):
            section = "" if '"' in header[0] else header[1].lower()
            rest = line[header.end() :]
        # No pattern for the whole: a long row of spaces would take it the square of its length.
        key, given, value = rest.partition("#")[0].partition(";")[0].partition("=")
        if section and _KEY.fullmatch(key.strip()):
            yield section, key.strip().lower(), value.strip() if given else "true"


def _text(path: str, most: int = _BYTES_MAX) -> str:
    return _content(path, most).decode(errors="surrogateescape")


def _content(path: str, most: int = _BYTES_MAX) -> bytes:
    """What a regular file has; nothing of a larger one, or one that may not be read."""
    try:
        descriptor = os.open(path, _READ)
    except (OSError, ValueError):
        return b""
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode) or info.st_size > most:
            return b""
        with os.fdopen(os.dup(descriptor), "rb") as file:
            return file.read(most)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


# ruff: noqa: PTH115
# What is read is a text, which is judged before it is a path.
