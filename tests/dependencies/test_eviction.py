"""What the store keeps: what was used last and what living runs use, whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cleanroom.dependencies.eviction import Limits, StoreUse, evict, usage
from cleanroom.dependencies.model import Artifact, Fetched, Stored
from cleanroom.dependencies.store import Store, hard_link, remove_tree

NOTHING = Limits(bytes_max=0)
ROOMY = Limits(age_seconds=1e12)


def add(store: Store, text: str) -> Stored:
    source = store.path / "source"
    source.write_text(text)
    url = f"https://registry.example/{text}.tgz"
    return store.add(Artifact(name=text, version="1", file=f"{text}.tgz", url=url), source)


def keep(store: Store, name: str, *texts: str, used: float = 0.0, view: bool = True) -> None:
    """A set with a view, used so many seconds ago."""
    files = tuple(add(store, text) for text in texts)
    key = f"npm-{name}"
    store.save(key, Fetched(manager="npm", folder="", name="l", files=files))
    paths = [store.path / f"sets/{key}.json"]
    if view:
        with store.building() as folder:
            for one in files:
                hard_link(store.file(one.sha256), folder / "view" / one.artifact.file)
            store.finish_view(folder / "view", f"view-{name}", [key])
        paths.append(store.place(f"view-{name}"))
    when = time.time() - used
    for path in paths:
        os.utime(path, (when, when))


def has(store: Store) -> tuple[list[str], list[str], int]:
    """Sets, views and the number of files."""
    sets = sorted(path.stem for path in (store.path / "sets").iterdir())
    views = sorted(path.name for path in (store.path / "views").iterdir())
    return sets, views, sum(1 for _ in (store.path / "files").glob("*/*"))


def test_what_was_used_last_stays_within_the_limit(tmp_path: Path):
    """The oldest goes first, with its view and the files that no other set has."""
    store = Store(tmp_path)
    keep(store, "old", "both", "gone", used=100)
    keep(store, "new", "both", "more", used=10)
    assert evict(store, Limits(bytes_max=8)) == len("gone")
    assert has(store) == (["npm-new"], ["view-new"], 2)
    assert store.load("npm-new") is not None


def test_what_was_not_used_for_long_goes(tmp_path: Path):
    """However small it is."""
    store = Store(tmp_path)
    keep(store, "old", "a", used=100)
    keep(store, "new", "b", used=1)
    evict(store, Limits(age_seconds=50))
    assert has(store) == (["npm-new"], ["view-new"], 1)
    assert usage(store) == (1, 1, 1)


def test_a_view_keeps_the_files_that_it_shows(tmp_path: Path):
    """A file of no set goes once no view has it."""
    store = Store(tmp_path)
    stored = add(store, "a")
    hard_link(store.file(stored.sha256), store.place("view-1") / "a")
    assert evict(store, ROOMY) == 0
    remove_tree(store.place("view-1"))
    assert evict(store, ROOMY) == 1
    assert not store.file(stored.sha256).exists()


USES = """
import sys, time
from pathlib import Path
from cleanroom.dependencies.eviction import StoreUse
from cleanroom.dependencies.store import Store
use = StoreUse(Store(Path(sys.argv[1])))
use.add(*sys.argv[2:])
print("using", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("names", [("npm-1", "view-1"), ("npm-to-come",)])
def test_what_a_living_run_uses_stays_until_it_ends(tmp_path: Path, names: tuple[str, ...]):
    """Another process: also one that has not saved its set yet, to which any file may belong."""
    store = Store(tmp_path)
    keep(store, "1", "a", used=1000)
    in_use = "npm-1" in names
    with subprocess.Popen(
        [sys.executable, "-c", USES, str(tmp_path), *names], stdout=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        run.stdout.readline()
        evict(store, NOTHING)
        expected = (["npm-1"], ["view-1"], 1) if in_use else ([], [], 1)
        assert has(store) == expected
        run.send_signal(signal.SIGKILL)
    evict(store, NOTHING)
    assert has(store) == ([], [], 0)
    assert list((store.path / "uses").iterdir()) == []


def test_what_a_run_used_counts_no_more_when_it_closes(tmp_path: Path):
    """Nothing of the use itself is left either."""
    store = Store(tmp_path)
    keep(store, "1", "a")
    use = StoreUse(store)
    use.add("npm-1")
    use.close()
    evict(store, NOTHING)
    assert has(store) == ([], [], 0)
    assert [path.name for path in (store.path / "locks").iterdir()] == ["evict"]


def test_an_evictor_that_is_killed_leaves_whole_sets(tmp_path: Path):
    """After each of its steps: a set is there with its files or not at all."""
    steps = 0
    while True:
        store = Store(tmp_path / str(steps))
        keep(store, "1", "a", "b", used=100)
        keep(store, "2", "b", "c", used=10)
        child = os.fork()
        if child == 0:
            killing(steps)
            evict(store, Limits(bytes_max=2))
            os._exit(0)
        ended = os.waitpid(child, 0)[1] == 0
        for name in ("npm-1", "npm-2"):
            if (store.path / f"sets/{name}.json").exists():
                assert store.load(name) is not None
                used = time.time() - 100 / int(name[-1])
                os.utime(store.path / f"sets/{name}.json", (used, used))
        evict(store, Limits(bytes_max=2))
        assert has(store) == (["npm-2"], ["view-2"], 2)
        assert list((store.path / "building").iterdir()) == []
        steps += 1
        if ended:
            break
    assert steps > 5


def killing(after: int) -> None:
    """End this process in the place of a change to a file's name, so many changes from now."""
    left = [after]

    def counting(change):  # type: ignore[no-untyped-def]
        def changed(*arguments: object, **named: object) -> object:
            if not left[0]:
                os._exit(9)
            left[0] -= 1
            return change(*arguments, **named)

        return changed

    for name in ("unlink", "rename", "rmdir", "mkdir"):
        setattr(os, name, counting(getattr(os, name)))


def test_two_evictors_and_a_run_at_once_lose_nothing_that_is_used(tmp_path: Path):
    """Each set that was loaded after it was named has its files while it is named."""
    store = Store(tmp_path)
    stopped = threading.Event()

    def prune() -> None:
        while not stopped.is_set():
            evict(Store(tmp_path), NOTHING)

    evictors = [threading.Thread(target=prune) for _ in range(2)]
    for one in evictors:
        one.start()
    found = 0
    try:
        for number in range(40):
            use = StoreUse(store)
            use.add(f"npm-{number}", f"view-{number}")
            keep(store, str(number), f"text {number}")
            time.sleep(0.002)
            found += store.load(f"npm-{number}") is not None
            assert store.place(f"view-{number}").is_dir()
            use.close()
    finally:
        stopped.set()
        for one in evictors:
            one.join()
    assert found == 40
