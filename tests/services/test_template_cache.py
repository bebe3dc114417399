"""Templates are there whole or not at all, built once, evicted oldest first."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from cleanroom.model.errors import ServiceFailed
from cleanroom.services.templates import TemplateCache, digest


def build(cache: TemplateCache, key: str, content: bytes = b"content") -> Path:
    with cache.building(key) as folder:
        assert folder is not None
        (folder / "file").write_bytes(content)
    found = cache.lookup(key)
    assert found is not None
    return found


def age(cache: TemplateCache, key: str, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(cache.folder / "templates" / key / "complete.json", (then, then))


def test_a_built_template_is_found(cache: TemplateCache):
    """What the block wrote is what `lookup` leads to."""
    assert cache.lookup("k") is None
    assert (build(cache, "k") / "file").read_bytes() == b"content"


def test_a_failed_build_leaves_nothing(cache: TemplateCache):
    """An exception in the block publishes nothing, and the next builder starts empty."""
    with pytest.raises(FileExistsError), cache.building("k") as folder:  # noqa: PT012 - the block is what fails
        assert folder is not None
        (folder / "half").mkdir()
        (folder / "half").mkdir()
    assert cache.lookup("k") is None
    with cache.building("k") as folder:
        assert folder is not None
        assert list(folder.iterdir()) == []
        (folder / "file").touch()


def test_what_a_killed_builder_left_is_not_found_and_not_inherited(cache: TemplateCache):
    """A folder left in `building` is neither a template nor the start of one."""
    left = cache.folder / "building/k/data"
    left.mkdir(parents=True)
    (left / "half").touch()
    assert cache.lookup("k") is None
    assert sorted(path.name for path in build(cache, "k").iterdir()) == ["file"]


@pytest.mark.parametrize("damage", ["shorter", "missing", "added", "manifest"])
def test_a_damaged_template_is_a_miss_and_goes(cache: TemplateCache, damage: str):
    """A template that differs from its manifest is not handed out, and is removed."""
    data = build(cache, "k")
    {
        "shorter": lambda: os.truncate(data / "file", 1),
        "missing": lambda: (data / "file").unlink(),
        "added": lambda: (data / "more").touch(),
        "manifest": lambda: (data.parent / "complete.json").write_bytes(b'{"files": 1'),
    }[damage]()
    assert cache.lookup("k") is None
    assert not data.exists()


def test_an_empty_template_is_refused(cache: TemplateCache):
    """A preparation that wrote nothing has failed, whatever its exit status."""
    with pytest.raises(ServiceFailed) as caught, cache.building("k"):
        pass
    assert caught.value.code == "CR-SERVICE-011"


def test_a_socket_in_a_template_is_refused(cache: TemplateCache):
    """What cannot be copied is found when it is made, not in every later run."""
    with pytest.raises(ServiceFailed) as caught, cache.building("k") as folder:  # noqa: PT012 - leaving it fails
        assert folder is not None
        os.mkfifo(folder / "pipe")
    assert caught.value.code == "CR-SERVICE-012"


def test_concurrent_builders_build_once(cache: TemplateCache):
    """The second builder of a key waits for the first and gets None."""
    entered, waits = threading.Event(), threading.Event()
    seen: list[Path | None] = []

    def second() -> None:
        entered.wait()
        with TemplateCache(cache.folder).building("k", waiting=waits.set) as folder:
            seen.append(folder)

    other = threading.Thread(target=second)
    other.start()
    with cache.building("k") as folder:
        assert folder is not None
        (folder / "file").touch()
        entered.set()
        assert waits.wait(10)
    other.join()
    assert seen == [None]


def test_waiting_for_another_builder_can_be_given_up(cache: TemplateCache):
    """What `waiting` raises ends the wait: a run that is stopped does not hang on somebody else's
    build.
    """

    def give_up() -> None:
        raise KeyboardInterrupt

    with cache.building("k") as folder:
        assert folder is not None
        (folder / "file").touch()
        with (
            pytest.raises(KeyboardInterrupt),
            TemplateCache(cache.folder).building("k", waiting=give_up),
        ):
            pass
    assert cache.lookup("k") is not None


def test_the_least_recently_used_template_goes_first(tmp_path: Path):
    """When the limit is passed, what was not looked up longest is evicted,
    and only as much as needed.
    """
    cache = TemplateCache(tmp_path, limit_bytes=250)
    for key in ("old", "used", "newer"):
        build(cache, key, bytes(80))
    for seconds, key in ((9000, "old"), (9900, "used"), (8000, "newer")):
        age(cache, key, seconds)
    cache.lookup("used")
    build(cache, "last", bytes(80))
    assert sorted(path.name for path in (tmp_path / "templates").iterdir()) == [
        "last",
        "newer",
        "used",
    ]


def test_a_template_in_use_is_not_evicted(tmp_path: Path):
    """What was looked up a moment ago may be being copied,
    so it stays although the limit is passed.
    """
    cache = TemplateCache(tmp_path, limit_bytes=100)
    build(cache, "first", bytes(80))
    build(cache, "second", bytes(80))
    assert cache.lookup("first") is not None


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path):
    """What the disk refuses becomes an error of ours that names the folder and the way to
    another.
    """
    (tmp_path / "file").touch()
    cache = TemplateCache(tmp_path / "file/cache")
    for attempt in (lambda: cache.secret("k"), lambda: cache.building("k").__enter__()):
        with pytest.raises(ServiceFailed) as caught:
            attempt()
        assert caught.value.code == "CR-SERVICE-013"
        assert "CLEANROOM_CACHE" in caught.value.hint


def test_secrets_belong_to_the_key_and_the_cache(tmp_path: Path):
    """Another process knows the secret of a template that it did not build;
    another cache does not.
    """
    one, again, other = (
        TemplateCache(tmp_path / "a"),
        TemplateCache(tmp_path / "a"),
        TemplateCache(tmp_path / "b"),
    )
    assert one.secret("k") == again.secret("k")
    assert len({one.secret("k"), one.secret("l"), other.secret("k")}) == 3
    assert one.identity() == again.identity() != other.identity()


def test_only_the_owner_can_read_the_cache(cache: TemplateCache):
    """The secret file and every folder on the way to a template are closed to others."""
    data = build(cache, "k")
    cache.secret("k")
    assert stat.S_IMODE((cache.folder / "secret").stat().st_mode) == 0o600
    for folder in (
        cache.folder,
        cache.folder / "templates",
        cache.folder / "building",
        data.parent,
        data,
    ):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder


def test_changed_bytes_of_the_same_number_are_found_when_asked(cache: TemplateCache):
    """A template as it was published stays; one whose content differs goes."""
    folder = build(cache, "k")
    assert not cache.drop_damaged("k")
    (folder / "file").write_bytes(b"CONTENT")
    assert cache.lookup("k") == folder
    assert cache.drop_damaged("k")
    assert cache.lookup("k") is None


def test_a_digest_is_of_every_name_mode_and_content(tmp_path: Path):
    """It is said by what the folder holds, so that a template of an earlier version is known again:
    names in order, modes, contents by their own digest, where links lead.
    """
    (tmp_path / "b").mkdir(mode=0o755)
    (tmp_path / "b" / "large").write_bytes(b"x" * 600_000)
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "c").symlink_to("a")
    told = b""
    for name in ("a", "b", "c", "b/large"):
        path = tmp_path / name
        told += f"{name}\0{path.lstat().st_mode}\0".encode()
        told += (
            b"a\0"
            if path.is_symlink()
            else b""
            if path.is_dir()
            else hashlib.sha256(path.read_bytes()).digest()
        )

    assert digest(tmp_path) == hashlib.sha256(told).hexdigest()


def test_a_builder_that_hangs_is_waited_for_and_then_named(
    cache: TemplateCache, monkeypatch: pytest.MonkeyPatch
):
    """Whoever needs the same template says so when the time is up, and builds nothing."""
    monkeypatch.setattr("cleanroom.services.templates.WAIT_SECONDS", 0.0)
    with cache.building("k") as folder:
        assert folder is not None
        (folder / "file").touch()
        with pytest.raises(ServiceFailed, match="another process") as failed, cache.building("k"):
            pass
    assert failed.value.code == "CR-SERVICE-010"
