"""The store of fetched files, in the user's cache. All functions block.

    dependencies/
      files/ab/abcdef...      each by its SHA-256, read-only, never changed
      names/sha512-abc...     the SHA-256 of the file that has another digest
      sets/KEY.json           a `Fetched`: what one set of lock files needs, all of it in files/
      views/NAME-KEY/         laid out for a tool; made whole, then renamed into its place
      layouts/NAME-KEY        the keys of the sets that are in a view
      building/               what is being made; removed when its maker is gone
      uses/                   what living runs use: `eviction` leaves it alone
      locks/

A killed process leaves nothing but entries of `building`: files and views are renamed into their
place when they are complete, and a set is written last.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from cleanroom.core.beneath import Folder
from cleanroom.core.files import write_atomic
from cleanroom.core.locks import try_lock
from cleanroom.dependencies.digests import algorithm, is_digest, read_digests
from cleanroom.dependencies.model import Artifact, Fetched, Stored

FOLDER = "dependencies"
PARTS = ("files", "names", "sets", "views", "layouts", "building", "uses", "locks")
MODE_FILE, MODE_FOLDER = 0o444, 0o700
PAUSE_SECONDS = 0.05


class Rejected(Exception):
    """A file is not the one that its lock names."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"expected {expected}, found {found}")
        self.expected = expected
        self.found = found


# The digest of a file by an algorithm that is not hashlib's, such as Go's h1.
Measure = Callable[[Path], str]


class Store:
    """The store below one cache folder."""

    def __init__(self, cache: Path, measures: Mapping[str, Measure] | None = None) -> None:
        self.path = cache / FOLDER
        self._measures = measures or {}
        for part in PARTS:
            (self.path / part).mkdir(parents=True, exist_ok=True, mode=MODE_FOLDER)

    # --- files

    def file(self, sha256: str) -> Path:
        """The place of the file with this digest."""
        return self.path / "files" / sha256[:2] / sha256

    def has(self, stored: Stored) -> bool:
        """Whether the file is there and as it was verified.

        A file whose state is another one than was recorded is read again, and removed if it is
        not what it was.
        """
        path = self.file(stored.sha256)
        try:
            found = os.lstat(path)
        except OSError:
            return False
        same = (found.st_size, found.st_mtime_ns) == (stored.size, stored.modified_ns)
        if stat.S_ISREG(found.st_mode) and same:
            return True
        return self._verify_again(path, stored.sha256)

    def find(self, artifact: Artifact) -> Stored | None:
        """The file that has this artifact's digest, verified; None if it is not there."""
        # It comes from a lock or an index, and names files here.
        if not is_digest(artifact.digest):
            return None
        name, _, value = artifact.digest.partition(":")
        sha256 = value if name == "sha256" else self._by_other_digest(artifact.digest)
        if not sha256 or not self._verify_again(self.file(sha256), sha256):
            return None
        return self._stored(artifact, sha256)

    def add(self, artifact: Artifact, source: Path, host: str = "") -> Stored:
        """Move a regular file into the store, if it has the artifact's digest.

        Raises:
            Rejected: it is another file, or none.
            OSError: it cannot be read or moved.
        """
        sha256 = self._checked(artifact, source)
        path = self.file(sha256)
        if not self._verify_again(path, sha256):
            path.parent.mkdir(exist_ok=True, mode=MODE_FOLDER)
            source.chmod(MODE_FILE)
            source.rename(path)
        self._remember(artifact.digest, sha256)
        return self._stored(artifact, sha256, host)

    def copy(self, artifact: Artifact, source: Path, building: Path) -> Stored | None:
        """Copy a file of another cache into the store; None if it is not this artifact.

        `building` is a folder of `building()`, for any number of them.
        """
        copied = building / secrets.token_hex(8)
        try:
            shutil.copyfile(source, copied, follow_symlinks=False)
            return self.add(artifact, copied)
        except (OSError, Rejected):
            return None
        finally:
            # Another file than the artifact, or one that the store has already.
            copied.unlink(missing_ok=True)

    def _checked(self, artifact: Artifact, source: Path) -> str:
        """The SHA-256 of a file that is the artifact's."""
        name, _, expected = artifact.digest.partition(":")
        if artifact.digest and not is_digest(artifact.digest):
            raise Rejected(f"{artifact.digest[:200]!r}, which is no digest", "a file")
        measure = self._measures.get(name)
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Rejected(artifact.digest or "a regular file", "none")
            names = {"sha256"} if measure or not name else {"sha256", name}
            digests, size = read_digests(stream, names)
        found = digests.get(name, "")
        if measure is not None:
            found = measure(source)
        if name and found != expected:
            raise Rejected(artifact.digest, f"{name}:{found}")
        if artifact.size and artifact.size != size:
            raise Rejected(f"{artifact.size} bytes", f"{size} bytes")
        return digests["sha256"]

    def _by_other_digest(self, digest: str) -> str:
        """The SHA-256 of the file with this digest; "" where nothing, or nothing whole, says it."""
        try:
            noted = (self.path / "names" / _file_name(digest)).read_bytes()
        except OSError:
            return ""
        text = noted.decode(errors="replace")
        return text if is_digest(f"sha256:{text}") else ""

    def _remember(self, digest: str, sha256: str) -> None:
        """Note which file has a digest that is no SHA-256."""
        if digest and algorithm(digest) != "sha256":
            # Without its note a file is only fetched again: a wait for the disk would cost more.
            with Folder.at(self.path / "names") as folder:
                write_atomic(folder, _file_name(digest), sha256.encode(), durable=False)

    def _stored(self, artifact: Artifact, sha256: str, host: str = "") -> Stored:
        found = self.file(sha256).stat()
        return Stored(
            artifact=artifact,
            sha256=sha256,
            size=found.st_size,
            host=host,
            modified_ns=found.st_mtime_ns,
        )

    def _verify_again(self, path: Path, sha256: str) -> bool:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        with os.fdopen(descriptor, "rb") as stream:
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            if regular and read_digests(stream, ("sha256",))[0]["sha256"] == sha256:
                return True
        with suppress(OSError):
            path.unlink()
        return False

    # --- sets

    def load(self, key: str) -> Fetched | None:
        """The set with this key, if all its files are there as they were verified."""
        try:
            text = (self.path / "sets" / f"{key}.json").read_bytes()
            found = msgspec.json.decode(text, type=Fetched)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if not all(map(self.has, found.files)):
            # As if it had never been saved: it is fetched again, and evictors see that.
            (self.path / "sets" / f"{key}.json").unlink(missing_ok=True)
            return None
        with suppress(OSError):
            os.utime(self.path / "sets" / f"{key}.json")
        return found

    def save(self, key: str, fetched: Fetched) -> None:
        """Keep a set that is complete."""
        with Folder.at(self.path / "sets") as folder:
            write_atomic(folder, f"{key}.json", msgspec.json.encode(fetched))

    # --- views

    def view(self, name: str) -> Path | None:
        """A finished view; None if it is to be made."""
        path = self.path / "views" / name
        with suppress(OSError):
            if stat.S_ISDIR(path.lstat().st_mode):
                os.utime(path)
                return path
        return None

    def place(self, name: str) -> Path:
        """Where a view will be."""
        return self.path / "views" / name

    def layout(self, name: str) -> Path:
        """The file that names a view's sets."""
        return self.path / "layouts" / name

    def sets_of_view(self, name: str) -> list[str]:
        """The keys of a view's sets; none where that is not known."""
        try:
            return self.layout(name).read_text(errors="replace").split()
        except OSError:
            return []

    def finish_view(self, built: Path, name: str, sets: Iterable[str] = ()) -> Path:
        """Put a view that is complete into its place; another process may have been faster."""
        path = self.place(name)
        self.layout(name).write_text(" ".join(sets))
        with suppress(OSError):
            built.rename(path)
        return path

    @contextmanager
    def building(self) -> Iterator[Path]:
        """An empty folder beside files and views, removed at the end.

        A lock says that its maker lives; without one `remove_abandoned` removes it.
        """
        name = secrets.token_hex(8)
        path = self.path / "building" / name
        with Folder.at(self.path / "locks") as locks:
            lock = try_lock(locks, f"building-{name}")
            path.mkdir(mode=MODE_FOLDER)
            try:
                yield path
            finally:
                remove_tree(path)
                with suppress(OSError):
                    (locks.path / f"building-{name}").unlink()
                if lock is not None:
                    os.close(lock)

    def try_lock(self, key: str) -> int | None:
        """A descriptor that holds the lock of a key until it is closed; None if another has it."""
        with Folder.at(self.path / "locks") as locks:
            return try_lock(locks, key)

    # --- what killed processes left

    def remove_abandoned(self) -> None:
        """Remove what builders that are dead had begun: with orders of downloads, and logins."""
        for path in (self.path / "building").iterdir():
            descriptor = self.try_lock(f"building-{path.name}")
            if descriptor is not None:
                remove_tree(path)
                (self.path / "locks" / f"building-{path.name}").unlink(missing_ok=True)
                os.close(descriptor)


def _file_name(digest: str) -> str:
    """A digest as the name of a file: base64 has slashes."""
    return digest.replace(":", "-").replace("/", "_")


def remove_tree(path: Path) -> None:
    """Remove a folder with all that is in it, also folders that nobody may write to.

    A tool that ran code of others may have made it: no link in it is followed, and no file of it,
    which may be the store's by another name, changes its mode.
    """
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError:
        _open_folders(path)
        shutil.rmtree(path, ignore_errors=True)


def _open_folders(path: Path) -> None:
    """Let the owner of all folders below write to them."""
    pending = [str(path)]
    while pending:
        folder = pending.pop()
        with suppress(OSError):
            os.chmod(folder, MODE_FOLDER)  # noqa: PTH101
            with os.scandir(folder) as entries:
                pending += [one.path for one in entries if one.is_dir(follow_symlinks=False)]


def take_folder(source: Path, target: Path) -> None:
    """Move a folder that a tool wrote; a link in its place would lead anywhere.

    Raises:
        OSError: it is no folder.
    """
    if not stat.S_ISDIR(source.lstat().st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "a tool put something else in its place", source)
    source.rename(target)


def hard_link(stored: Path, target: Path) -> None:
    """Show a file of the store under another name; copied where its file system has no link."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(stored)
    except FileExistsError:
        return
    except OSError:
        shutil.copyfile(stored, target)
        target.chmod(MODE_FILE)
