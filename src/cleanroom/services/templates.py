"""Templates: prepared data folders of services, kept in the user's cache folder.

A template is built once, and is the lower layer of every run's data.

    secret              random, made once, mode 0600; every template's secret derives from it
    templates/KEY/      complete.json (files, bytes) and data/
    building/KEY/data/  being filled, under locks/KEY.lock

A template is published by renaming, so that it is complete or absent.
All functions block; call them in a worker thread.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from cleanroom.core import digests
from cleanroom.core.beneath import Folder
from cleanroom.core.files import open_to_read
from cleanroom.core.locks import try_lock
from cleanroom.model.errors import ServiceFailed

GIB = 1 << 30
# For another process that builds the same template: that takes about one second plus the init SQL.
WAIT_SECONDS = 120.0
PAUSE_SECONDS = 0.02
_SECRET_BYTES = 32
_MANIFEST_BYTES = 4096
# A template that was looked up this recently may be the lower layer of a run: it is not evicted.
IN_USE_SECONDS = 3600.0


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of a published template.

    A folder with other contents was written partly, or changed by others: it is a miss.
    """

    files: int
    bytes: int
    # of every name and byte; compared only when a server does not start from the template, since
    # reading all of it takes longer than a start
    sha256: str = ""


class TemplateCache:
    """Templates under one folder. Any number of processes may use the same one."""

    def __init__(self, folder: Path, limit_bytes: int = 2 * GIB) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes

    def data_folder(self, key: str) -> Path:
        """Where the data of a template is once it is complete."""
        return self._template(key) / "data"

    def lookup(self, key: str) -> Path | None:
        """The data folder of a complete template, marked as used now; None where there is none.

        An incomplete template is removed.

        Raises:
            ServiceFailed: the cache folder cannot be used.
        """
        template = self._template(key)
        with self._usable():
            if not _complete(template):
                self._discard(template)
                return None
            os.utime(template / "complete.json")
        return self.data_folder(key)

    @contextmanager
    def building(
        self, key: str, *, waiting: Callable[[], None] = lambda: None
    ) -> Iterator[Path | None]:
        """An empty folder to fill, published when the block ends, thrown away when it raises.

        None where another process has published the same template meanwhile.
        `waiting` is called repeatedly while another process builds; an exception from it ends the
        wait.

        Raises:
            ServiceFailed: the other process does not finish, or the folder cannot be published.
        """
        lock = self._locked(key, waiting)
        try:
            if self.lookup(key) is not None:
                yield None
                return
            place = self.folder / "building" / key
            with self._usable():
                _remove(place)  # of a builder that was killed: it no longer holds the lock
                _private_folder(place / "data")
            try:
                yield place / "data"
                with self._usable():
                    self._publish(key, place)
            finally:
                _remove(place)
            with self._usable():
                self._evict(spare=key)
        finally:
            os.close(lock)

    def drop_damaged(self, key: str) -> bool:
        """Remove a template that differs from what was published. True if it was removed.

        Reads every byte of it.

        Raises:
            ServiceFailed: the cache folder cannot be used.
        """
        template = self._template(key)
        manifest = _manifest(template)
        with self._usable():
            if (
                manifest is None
                or not manifest.sha256
                or digest(template / "data") == manifest.sha256
            ):
                return False
            self._discard(template)
        return True

    def secret(self, key: str) -> str:
        """The secret of the template `key`, 64 hexadecimal digits.

        It is the same for every process that uses this cache, whichever built the template.

        Raises:
            ServiceFailed: the cache's own secret cannot be read or made.
        """
        return hmac.new(self._seed(), key.encode(), hashlib.sha256).hexdigest()

    def identity(self) -> str:
        """A name for this cache's secret that does not reveal it.

        It is part of template keys, since a new secret does not open old templates.

        Raises:
            ServiceFailed: the cache's secret cannot be read or made.
        """
        return hashlib.sha256(b"identity" + self._seed()).hexdigest()[:16]

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """Turn an OSError of the block into ServiceFailed, with the path and a hint."""
        try:
            yield
        except OSError as error:
            raise ServiceFailed(
                "CR-SERVICE-013",
                (
                    f"{error.filename or self.folder}: service templates cannot be kept: "
                    f"{error.strerror}"
                ),
                hint=(
                    f"make room, or make {self.folder} yours; CLEANROOM_CACHE names another folder"
                ),
            ) from error

    def _seed(self) -> bytes:
        with self._usable():
            seed = self._read_seed()
        # After a crash, or in another's file, there are fewer bytes: those could be guessed.
        if len(seed) != _SECRET_BYTES:
            raise ServiceFailed(
                "CR-SERVICE-014",
                (
                    f"{self.folder / 'secret'}: expected {_SECRET_BYTES} random bytes, found "
                    f"{len(seed)} or more"
                ),
                hint="remove it; the templates that were made with another one are built again",
            )
        return seed

    def _read_seed(self) -> bytes:
        path = self.folder / "secret"
        with suppress(FileNotFoundError):
            return _bytes(path, _SECRET_BYTES + 1)
        _private_folder(self.folder)
        mine = path.with_name(f"secret.{secrets.token_hex(8)}")
        with os.fdopen(
            os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb"
        ) as file:
            file.write(secrets.token_bytes(_SECRET_BYTES))
            file.flush()
            # After a power cut a name without its bytes would be a secret that nobody knows.
            os.fsync(file.fileno())
        try:
            os.link(mine, path)  # the first process wins, and no process reads half of it
        except FileExistsError:
            pass
        finally:
            mine.unlink()
        return _bytes(path, _SECRET_BYTES + 1)

    def _template(self, key: str) -> Path:
        return self.folder / "templates" / key

    def _locked(self, key: str, waiting: Callable[[], None]) -> int:
        """A descriptor that holds the template's lock."""
        with self._usable():
            _private_folder(self.folder / "locks")
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            with self._usable(), Folder.at(self.folder / "locks") as locks:
                lock = try_lock(locks, f"{key}.lock")
            if lock is not None:
                return lock
            waiting()
            if time.monotonic() > deadline:
                raise ServiceFailed(
                    "CR-SERVICE-010",
                    (
                        f"another process has been preparing the service template {key[:12]} for "
                        f"{WAIT_SECONDS:g} s"
                    ),
                    hint=f"end it, or remove {self.folder}",
                )
            time.sleep(PAUSE_SECONDS)

    def _publish(self, key: str, place: Path) -> None:
        files, size = measure(place / "data")
        if files == 0:
            raise ServiceFailed(
                "CR-SERVICE-011",
                f"preparing the service template {key[:12]} left no files",
                hint="see the service's log",
            )
        (place / "complete.json").write_bytes(
            msgspec.json.encode(Manifest(files=files, bytes=size, sha256=digest(place / "data")))
        )
        _private_folder(self.folder / "templates")
        place.rename(self._template(key))

    def _evict(self, spare: str) -> None:
        """Remove the least recently used templates until the rest fits."""
        known = [
            (path, manifest)
            for path in (self.folder / "templates").iterdir()
            if (manifest := _manifest(path))
        ]
        total = sum(manifest.bytes for _, manifest in known)
        for path, manifest in sorted(known, key=lambda item: _used(item[0])):
            if total <= self.limit_bytes:
                return
            if path.name != spare and time.time() - _used(path) > IN_USE_SECONDS:
                self._discard(path)
                total -= manifest.bytes

    def _discard(self, template: Path) -> None:
        """Remove a template: renamed first, so that no process finds half of it."""
        _private_folder(self.folder / "building")
        aside = self.folder / "building" / f"{template.name}.{secrets.token_hex(8)}"
        try:
            template.rename(aside)
        except FileNotFoundError:
            return
        _remove(aside)


def measure(folder: Path) -> tuple[int, int]:
    """Entries below `folder`, and the bytes of its regular files. (0, 0) where it is missing.

    Raises:
        ServiceFailed: something in it is neither file nor folder nor symbolic link.
    """
    entries = size = 0
    pending = [str(folder)] if folder.is_dir() else []
    while pending:
        with os.scandir(pending.pop()) as found:
            for entry in found:
                entries += 1
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    pending.append(entry.path)
                elif stat.S_ISREG(mode):
                    size += entry.stat(follow_symlinks=False).st_size
                elif not stat.S_ISLNK(mode):
                    raise ServiceFailed(
                        "CR-SERVICE-012",
                        (
                            f"{entry.path}: a template holds files, folders and links only, "
                            f"found {stat.filemode(mode)}"
                        ),
                    )
    return entries, size


def digest(folder: Path) -> str:
    """SHA-256 of every name, mode and content below `folder`."""
    found = hashlib.sha256()
    start = len(os.fsencode(folder)) + 1
    for where, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted((*folders, *names)):
            path = os.path.join(where, name)
            mode = os.lstat(path).st_mode
            found.update(os.fsencode(path)[start:] + f"\0{mode}\0".encode())
            if stat.S_ISLNK(mode):
                found.update(os.fsencode(Path(path).readlink()) + b"\0")
            elif stat.S_ISREG(mode):
                found.update(digests.of_file(path))
    return found.hexdigest()


def _complete(template: Path) -> bool:
    manifest = _manifest(template)
    try:
        return manifest is not None and measure(template / "data") == (
            manifest.files,
            manifest.bytes,
        )
    # another process removes it right now, or somebody put a device there
    except (FileNotFoundError, ServiceFailed):
        return False


def _manifest(template: Path) -> Manifest | None:
    try:
        return msgspec.json.decode(
            _bytes(template / "complete.json", _MANIFEST_BYTES), type=Manifest
        )
    except (OSError, UnicodeDecodeError, msgspec.DecodeError):
        return None


def _bytes(path: Path, limit: int) -> bytes:
    with open_to_read(path) as file:
        return file.read(limit)


def _used(template: Path) -> float:
    try:
        return (template / "complete.json").stat().st_mtime
    except FileNotFoundError:  # another process removed it
        return 0.0


def _private_folder(path: Path) -> None:
    """Make a folder and its parents, all with mode 0700.

    `mkdir(parents=True)` gives the mode to the last folder only.
    """
    if not path.parent.exists():
        _private_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)


def _remove(path: Path) -> None:
    # `rmtree` opens its argument, and would wait for a writer of a FIFO.
    if path.is_symlink() or not path.is_dir():
        with suppress(OSError):
            path.unlink()
        return
    shutil.rmtree(path, ignore_errors=True)
