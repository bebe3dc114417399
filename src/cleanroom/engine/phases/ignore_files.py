"""Which paths of a project the host's own ignore files cover, as they were before the run.

This module reads them and `gitignore` matches them.
No git is started in a folder that code under test may have written to.
The files are `.gitignore` in every folder from the repository's top down, the repository's
`info/exclude`, and the caller's own file: `core.excludesFile` of their git configuration, else
`~/.config/git/ignore`.
No link is followed below the repository's top, and no open waits for another process.
All functions block on the disk.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from cleanroom.backends.base import Change
from cleanroom.core.beneath import Folder
from cleanroom.core.paths import parents
from cleanroom.engine.phases import git_index, gitignore

FILE = ".gitignore"
BYTES_MAX = 1 << 20  # of one ignore file or configuration; real ones have some thousands
INDEX_BYTES_MAX = 256 << 20  # a million tracked files take half of it
# Of patterns with paths: about ten seconds. What comes later counts as not ignored.
MATCHES_MAX = 30_000_000
_EXCLUDES_FILE = re.compile(r'\s*excludesfile\s*=\s*(?:"([^"]*)"|([^#;]*?))\s*(?:[#;].*)?$', re.I)
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC

# The folder that they are relative to, with a slash, and the patterns of its ignore file.
Rules = tuple[bytes, tuple[gitignore.Pattern, ...]]
Chain = list[Rules] | None  # the nearest first; None: not known


class HostIgnores:
    """The ignore files that apply to one project during one run.

    A file changed after `began_ns` (Unix time) does not show the host's state before the run.
    Such a file does not apply, and no path beside or below it is treated as ignored.
    """

    def __init__(self, project: str, variables: Mapping[str, str], began_ns: int) -> None:
        """`variables`: of the caller, for where their git configuration lies."""
        self._project = os.path.realpath(project)
        self._variables = variables
        self._began_ns = began_ns
        self._matches_left = MATCHES_MAX
        self._ignored: dict[bytes, bool] = {b"": False}  # folder, relative to the top
        self._rules: dict[bytes, Chain] = {}  # folder -> what counts in it

    def covered(self, changes: Iterable[Change]) -> frozenset[str]:
        """The paths of the changes that are ignored and not tracked."""
        top, git = _repository(self._project)
        if not git:
            return frozenset()
        inside = os.path.relpath(self._project, top)
        prefix = b"" if inside == "." else os.fsencode(inside) + b"/"
        index = _content(os.path.join(git, "index"), INDEX_BYTES_MAX)
        tracked = frozenset(git_index.paths(index))
        try:
            folder = Folder.at(Path(top))
        except OSError:
            return frozenset()
        with folder:
            self._rules.setdefault(b"", self._outermost(folder, git))
            return frozenset(
                change.path
                for change in changes
                if (path := prefix + change.path.encode("utf-8", "surrogateescape")) not in tracked
                and self._is_ignored(folder, path, change.kind == "directory")
            )

    def folders_above(self, covered: Iterable[str]) -> frozenset[str]:
        """The ignored folders above paths that `covered` returned, with the outermost ones."""
        inside = os.path.relpath(self._project, _repository(self._project)[0])
        prefix = b"" if inside == "." else os.fsencode(inside) + b"/"
        return frozenset(
            folder
            for folder in parents(covered)
            if self._ignored.get(prefix + folder.encode("utf-8", "surrogateescape"), False)
        )

    def _is_ignored(self, top: Folder, path: bytes, is_folder: bool) -> bool:
        above = path.rpartition(b"/")[0]
        if above not in self._ignored:
            self._judge_folders(top, above)
        return self._ignored.get(above, True) or self._matched(top, path, is_folder)

    def _judge_folders(self, top: Folder, folder: bytes) -> None:
        """Match folders from the outermost down to the first ignored one.

        All paths below an ignored folder are ignored.
        """
        end = 0
        while end < len(folder):
            end = folder.find(b"/", end + 1) % (len(folder) + 1)
            outer = folder[:end]
            if outer not in self._ignored:
                self._ignored[outer] = self._matched(top, outer, True)
            if self._ignored[outer]:
                self._ignored[folder] = True
                return

    def _matched(self, top: Folder, path: bytes, is_folder: bool) -> bool:
        """The verdict of the nearest ignore file with a pattern that matches."""
        for base, patterns in self._rules_in(top, path.rpartition(b"/")[0]) or ():
            self._matches_left -= len(patterns)
            if self._matches_left < 0:
                return False
            verdict = gitignore.verdict(patterns, path[len(base) :], is_folder)
            if verdict is not None:
                return verdict
        return False

    def _rules_in(self, top: Folder, folder: bytes) -> Chain:
        """The rules for the entries of a folder."""
        if folder not in self._rules:
            outer = self._rules_in(top, folder.rpartition(b"/")[0])
            self._rules[folder] = self._with_own(top, folder, outer)
        return self._rules[folder]

    def _with_own(self, top: Folder, folder: bytes, outer: Chain) -> Chain:
        own = self._content_before_run(_open_beneath(top, os.path.join(os.fsdecode(folder), FILE)))
        if outer is None or own is None:
            return None
        base = folder + b"/" if folder else b""
        return [(base, gitignore.parse(own)), *outer] if own else outer

    def _outermost(self, top: Folder, git: str) -> Chain:
        """The rules at the top: its ignore file, the repository's exclusions, the caller's."""
        common = _content(os.path.join(git, "commondir")).decode(errors="surrogateescape").strip()
        exclude = os.path.join(git, common, "info", "exclude")
        texts = [
            self._content_before_run(_open_file(file))
            for file in (exclude, excludes_file(self._variables))
        ]
        if None in texts:
            return None
        return self._with_own(top, b"", [(b"", gitignore.parse(text)) for text in texts if text])

    def _content_before_run(self, descriptor: int) -> bytes | None:
        """A file's content before the run; empty for no file; None if it changed since.

        Closes the descriptor.
        """
        if descriptor < 0:
            return b""
        changed = os.fstat(descriptor).st_ctime_ns > self._began_ns
        content = _read_and_close(descriptor, BYTES_MAX)
        return None if changed else content


def excludes_file(variables: Mapping[str, str]) -> str:
    """The caller's own ignore file, as their git configuration names it, without includes."""
    home = variables.get("HOME") or os.path.expanduser("~")
    settings = variables.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    named = os.path.join(settings, "git", "ignore")
    for file in (os.path.join(settings, "git", "config"), os.path.join(home, ".gitconfig")):
        for value in _excludes_files(_content(file).decode(errors="surrogateescape")):
            named = os.path.join(home, value.removeprefix("~/"))
    return named


def _excludes_files(configuration: str) -> Iterator[str]:
    section = ""
    for line in configuration.splitlines():
        if header := re.match(r"\s*\[\s*([^\]]*?)\s*\]", line):
            section, line = header[1].lower(), line[header.end() :]
        value = _EXCLUDES_FILE.match(line)
        if section == "core" and value:
            yield value[1] or value[2] or ""


def _repository(project: str) -> tuple[str, str]:
    """The top of the repository that the project lies in, and its git folder; empty for none.

    As git does, it believes none that is neither the project's owner's, the caller's, nor root's.
    """
    try:
        trusted = {os.lstat(project).st_uid, os.geteuid(), 0}
    except OSError:
        return "", ""
    top = project
    while True:
        git = os.path.join(top, ".git")
        if _is_file(git):
            content = _content(git).decode(errors="surrogateescape")
            elsewhere = content.removeprefix("gitdir:")
            git = os.path.join(top, elsewhere.strip()) if elsewhere != content else ""
        if git and os.path.lexists(os.path.join(git, "HEAD")):
            return (top, git) if os.lstat(git).st_uid in trusted else ("", "")
        if top == os.path.dirname(top):
            return "", ""
        top = os.path.dirname(top)


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _open_beneath(folder: Folder, path: str) -> int:
    try:
        return folder.open(path, _READ)
    except (OSError, ValueError):
        return -1


def _open_file(path: str) -> int:
    try:
        return os.open(path, _READ)
    except (OSError, ValueError):
        return -1


def _content(path: str, most: int = BYTES_MAX) -> bytes:
    descriptor = _open_file(path)
    return b"" if descriptor < 0 else _read_and_close(descriptor, most)


def _read_and_close(descriptor: int, most: int) -> bytes:
    """The first `most` bytes of a regular file; empty for any other. Closes the descriptor."""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
