"""The store of fetched files: only what was verified, whole or not there, removed when unused."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cleanroom.dependencies.model import Artifact, Fetched
from cleanroom.dependencies.store import Rejected, Store, remove_tree, take_folder
from support.ordinary_user import ORDINARY

BODY = b"a package\n"


def digest(name: str, body: bytes = BODY) -> str:
    return f"{name}:{hashlib.new(name, body).hexdigest()}"


def artifact(of: str = "", size: int = 0) -> Artifact:
    url = "https://registry.example/a-1.tgz"
    return Artifact(name="a", version="1", file="a-1.tgz", url=url, digest=of, size=size)


def given(tmp_path: Path, body: bytes = BODY) -> Path:
    source = tmp_path / "source"
    source.write_bytes(body)
    return source


def kept(store: Store) -> list[str]:
    return sorted(path.name for path in (store.path / "files").rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["sha256", "sha512", "sha1", ""])
def test_a_file_with_its_digest_is_kept_and_found_by_it(tmp_path: Path, name: str):
    """By whatever digest a lock names; one without a digest is pinned by its SHA-256."""
    store = Store(tmp_path)
    wanted = artifact(digest(name) if name else "", size=len(BODY))
    stored = store.add(wanted, given(tmp_path), "registry.example:443")
    assert store.file(stored.sha256).read_bytes() == BODY
    assert (stored.size, stored.sha256) == (len(BODY), hashlib.sha256(BODY).hexdigest())
    found = store.find(wanted)
    assert (found is not None) == bool(name)
    assert store.has(stored)


@pytest.mark.parametrize(
    "wanted",
    [artifact(digest("sha256", b"other")), artifact(digest("sha1", b"x")), artifact("", 3)],
)
def test_another_file_is_rejected_and_not_kept(tmp_path: Path, wanted: Artifact):
    """Neither another digest nor another size gets in."""
    store = Store(tmp_path)
    with pytest.raises(Rejected):
        store.add(wanted, given(tmp_path))
    assert kept(store) == []


def test_a_file_of_another_cache_is_copied_if_it_is_the_one(tmp_path: Path):
    """Its original stays, and nothing is left beside it, whichever it is."""
    store = Store(tmp_path)
    source = given(tmp_path)
    with store.building() as folder:
        assert store.copy(artifact(digest("sha256", b"other")), source, folder) is None
        assert store.copy(artifact(digest("sha256")), tmp_path / "absent", folder) is None
        for _ in range(2):
            assert store.copy(artifact(digest("sha256")), source, folder) is not None
        assert list(folder.iterdir()) == []
    assert source.read_bytes() == BODY
    assert kept(store) == [hashlib.sha256(BODY).hexdigest()]


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path):
    """What a downloader left may be anything."""
    (tmp_path / "link").symlink_to(given(tmp_path))
    with pytest.raises(OSError, match="symbolic"):
        Store(tmp_path).add(artifact(digest("sha256")), tmp_path / "link")


def test_a_file_that_changed_in_the_store_is_thrown_away(tmp_path: Path):
    """Files are verified before use: a changed one is as one that is not there."""
    store = Store(tmp_path)
    stored = store.add(artifact(digest("sha256")), given(tmp_path))
    path = store.file(stored.sha256)
    path.chmod(0o644)
    path.write_bytes(b"changed\n")
    assert not store.has(stored)
    assert not path.exists()


def test_a_file_that_was_only_touched_is_verified_and_stays(tmp_path: Path):
    """Its content decides."""
    store = Store(tmp_path)
    stored = store.add(artifact(digest("sha256")), given(tmp_path))
    os.utime(store.file(stored.sha256), (1, 1))
    assert store.has(stored)


def test_a_set_is_there_while_all_its_files_are(tmp_path: Path):
    """One that lacks a file is fetched again."""
    store = Store(tmp_path)
    stored = store.add(artifact(digest("sha256")), given(tmp_path))
    fetched = Fetched(manager="npm", folder="", name="package-lock.json", files=(stored,))
    store.save("npm-1", fetched)
    assert store.load("npm-1") == fetched
    store.file(stored.sha256).unlink()
    assert store.load("npm-1") is None


@pytest.mark.parametrize("text", [b"", b"abc", b"\0" * 64, b"../" * 21 + b"x", b"\xff" * 64])
def test_a_note_that_a_power_cut_left_is_none(tmp_path: Path, text: bytes):
    """Notes are not waited for: the file is added again, and so is its note."""
    store = Store(tmp_path)
    wanted = artifact(digest("sha512"))
    store.add(wanted, given(tmp_path))
    (note,) = (store.path / "names").iterdir()
    note.write_bytes(text)
    assert store.find(wanted) is None
    store.add(wanted, given(tmp_path))
    assert store.find(wanted) is not None


@pytest.mark.parametrize("text", [b"", b"{", b'{"manager": 1}', b"\xff"])
def test_a_set_that_cannot_be_read_is_none(tmp_path: Path, text: bytes):
    """A torn or foreign file is no error."""
    store = Store(tmp_path)
    (store.path / "sets/npm-1.json").write_bytes(text)
    assert store.load("npm-1") is None


KILLED = """
import os, sys, time
from pathlib import Path
from cleanroom.dependencies.store import Store
with Store(Path(sys.argv[1])).building() as folder:
    (folder / "half").write_text("x")
    print("building", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_builder_left_is_removed_and_what_a_living_one_has_is_not(tmp_path: Path):
    """The lock of a folder says that its maker lives."""
    store = Store(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE
    ) as builder:
        assert builder.stdout is not None
        builder.stdout.readline()
        store.remove_abandoned()
        assert len(list((store.path / "building").iterdir())) == 1
        builder.send_signal(signal.SIGKILL)
    store.remove_abandoned()
    assert list((store.path / "building").iterdir()) == []
    assert kept(store) == []


def test_a_view_appears_whole_and_the_first_one_stays(tmp_path: Path):
    """Two runs may make the same one at once."""
    store = Store(tmp_path)
    for text in ("first", "second"):
        with store.building() as folder:
            (folder / "view").mkdir()
            (folder / "view/file").write_text(text)
            assert store.finish_view(folder / "view", "npm-1") == store.place("npm-1")
    assert (store.place("npm-1") / "file").read_text() == "first"


def test_a_tool_cannot_put_a_link_in_the_place_of_its_folder(tmp_path: Path):
    """A link would lead phases anywhere."""
    (tmp_path / "cache").symlink_to("/")
    with pytest.raises(NotADirectoryError):
        take_folder(tmp_path / "cache", tmp_path / "view")


@pytest.mark.parametrize(
    "name",
    ["sha256:../../../victim", "sha256:{victim}", "sha256:", "foo:1", "shake_128:00", "h1:x"],
)
def test_a_digest_that_is_none_names_no_file(tmp_path: Path, name: str):
    """It comes from a lock: what it leads to is neither read nor removed."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    store = Store(tmp_path / "cache")
    wanted = artifact(name.format(victim=victim))
    assert store.find(wanted) is None
    with pytest.raises(Rejected, match="no digest"):
        store.add(wanted, given(tmp_path))
    assert victim.read_text() == "precious"


@contextmanager
def ordinary_user(folder: Path) -> Iterator[None]:
    """Be nobody in this folder, which is theirs; an ordinary user stays who they are."""
    before, own = Path.cwd(), os.geteuid()
    os.chdir(folder)
    if own == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, ORDINARY, -1, follow_symlinks=False)
        os.seteuid(ORDINARY)
    try:
        yield
    finally:
        os.seteuid(own)
        os.chdir(before)


def test_what_a_tool_left_is_removed_and_nothing_else_is_changed(tmp_path: Path):
    """Folders that nobody may write to, below each other, with links out of them and with files
    that are the store's.
    """
    outside, kept = tmp_path / "outside", tmp_path / "kept"
    outside.mkdir(mode=0o755)
    kept.write_text("of the store")
    kept.chmod(0o444)
    inner = tmp_path / "tree" / "a" / "b"
    inner.mkdir(parents=True)
    other = tmp_path / "tree" / "c"
    other.mkdir()
    (other / "link").symlink_to("../../outside")
    (inner / "file").hardlink_to(kept)
    for folder in (inner, inner.parent, other):
        folder.chmod(0o555)

    with ordinary_user(tmp_path):
        remove_tree(Path("tree"))
        remove_tree(Path("tree"))  # there is none any more

    assert sorted(os.listdir(tmp_path)) == ["kept", "outside"]
    assert [oct(one.stat().st_mode & 0o777) for one in (outside, kept)] == ["0o755", "0o444"]
