"""`.ggen/state.json`: readable by ggen, and nothing is lost."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cleanroom.core import disk
from cleanroom.core.beneath import Folder
from cleanroom.model.errors import ProjectError
from cleanroom.project import state
from cleanroom.project.dialects import parse_project
from cleanroom.project.source import read_source
from cleanroom.project.state import OURS, STATE, PhaseRecord, cache_key, record
from support.open_folders import open_folder
from support.project_builder import CORPUS

GOLDEN = {
    (
        "ggen-872cd004f__examples__make.toml",
        "init",
    ): "8585b9d35e2b965e6d52c9b6f2069588e8c6dd42486f903efd8ee16fbbdca402",
    (
        "ggen-872cd004f__examples__make.toml",
        "setup",
    ): "afc556fb21985d3a2e692c3f6380e2fea1e1709685f1cfbbc56ae39f1261c71f",
    (
        "ggen-872cd004f__examples__make.toml",
        "test",
    ): "9cb043dd91789d9031997f6b31f2497fb208e1b37764184067eb613724059e96",
    (
        "ggen-872cd004f__examples__make.toml",
        "lint",
    ): "b57334916ecb9d552c8457e8b2e7e386a7a58d6fd90a565b734f143740fdc423",
    (
        "ggen-872cd004f__examples__make.toml",
        "build",
    ): "9094e77cdd1269862f820b591a34f4cbebd74298f6f647df06521557ae381288",
    (
        "ggen-872cd004f__examples__advanced-cli-tool__make.toml",
        "test",
    ): "439c2ccb695e9ce8fb5a040b7041ffa3bc01b084a533759fd2d0ea20b4b74e91",
    (
        "ggen-872cd004f__examples__rust-cli-lifecycle__make.toml",
        "setup",
    ): "09065591c8135143ba93950ea3a54476281abd724813fa5483e0078beac4a53b",
    (
        "ggen-872cd004f__examples__rust-cli-lifecycle__make.toml",
        "scaffold",
    ): "7394d166fe36c080c092eb05a2b84126ae1f3409e170192437a6e89112d8736c",
    (
        "ggen-872cd004f__examples__rust-cli-lifecycle__make.toml",
        "format",
    ): "979c06fbe301ca800643fd058003756997120c9f782d5d1e7052903b6355932c",
    (
        "ggen-872cd004f__examples__rust-cli-lifecycle__make.toml",
        "test",
    ): "d3b37f9a866a81cfb02e3e4145006d29caec21d2c8417383a2e168b8575ca6e3",
    (
        "ggen-872cd004f__examples__rust-cli-lifecycle__make.toml",
        "lint",
    ): "9b1b9bda112fbefcd9f61bd1146d633b1d805106dd4488449581523b2ee866f4",
    (
        "ggen-872cd004f__examples__rust-cli-lifecycle__make.toml",
        "build",
    ): "812700dd46cf687d812daf1cc29e002491dbe4ffab4d6b2ba129e1c0b23480ff",
    (
        "ggen-872cd004f__examples__rust-cli-lifecycle__make.toml",
        "docs",
    ): "11af0b4fe2131aebb87679bdf0535aba4853c4316015896baa0a948b1c27e68d",
}


def ran(phase: str, started: int = 1, *, success: bool = True) -> PhaseRecord:
    return PhaseRecord(
        phase=phase,
        started_ms=started,
        duration_ms=5,
        success=success,
        cache_key=cache_key(phase, ("true",)),
    )


def read(root: Path, name: Path = STATE) -> dict:
    return json.loads((root / name).read_text())


@pytest.mark.parametrize(
    ("where", "key"), GOLDEN.items(), ids=lambda value: "" if isinstance(value, str) else value[1]
)
def test_cache_keys_are_ggens(where: tuple[str, str], key: str):
    """The keys recorded from real ggen come out for the corpus files' phases."""
    project = parse_project(read_source(CORPUS / where[0], "make.toml"), CORPUS)
    assert cache_key(where[1], project.phases[where[1]].commands) == key


def test_cache_key_with_environment():
    """GGEN_ENV is part of the key by ggen's formula."""
    project = parse_project(
        read_source(CORPUS / "ggen-872cd004f__examples__make.toml", "make.toml"), CORPUS
    )
    key = cache_key("test", project.phases["test"].commands, "production")
    assert key == "125dccef9d76befe3cf42db7f8f5ed6ddbbe0bca1572ac2a80d3cb7f0cd4d999"


def test_a_first_state_has_what_ggen_insists_on(tmp_path: Path):
    """Three lists, whole milliseconds, the seed's keys; a failed phase is in our copy only."""
    record(open_folder(tmp_path), [ran("init"), ran("test", 2, success=False)])
    found = read(tmp_path)
    assert found["phase_history"] == [
        {"phase": "init", "started_ms": 1, "duration_ms": 5, "success": True}
    ]
    assert found["generated"] == []
    assert found["cache_keys"] == [{"phase": "init", "key": cache_key("init", ("true",))}]
    assert found["last_phase"] == "init"
    assert found["phases_run"] == ["init", "test"]
    assert (found["production_score"], found["last_validation"]) == (None, None)
    assert [entry["success"] for entry in read(tmp_path, OURS)["records"]] == [True, False]


def test_what_ggen_wrote_and_what_nobody_knows_stays(tmp_path: Path):
    """Foreign records and unknown keys survive, also in the order in which they were."""
    (tmp_path / ".ggen").mkdir()
    theirs = {"phase": "x", "started_ms": 9, "duration_ms": 100, "success": True, "odd": 1}
    (tmp_path / STATE).write_text(
        json.dumps(
            {
                "last_phase": "x",
                "phase_history": [theirs],
                "generated": [{"path": "a", "hash": "b"}],
                "cache_keys": [],
                "mine": {"a": 1},
            }
        )
    )
    record(open_folder(tmp_path), [ran("test")])
    found = read(tmp_path)
    assert found["phase_history"][0] == theirs
    assert [entry["phase"] for entry in found["phase_history"]] == ["x", "test"]
    assert (found["mine"], found["generated"]) == ({"a": 1}, [{"path": "a", "hash": "b"}])


def test_records_that_ggen_dropped_come_back(tmp_path: Path):
    """A save of ggen that knew nothing of us costs nothing:
    the next record restores ours and keeps its own.
    """
    record(
        open_folder(tmp_path),
        [ran("init")],
        last_validation="2025-10-13T19:00:00Z",
        production_score=92,
    )
    theirs = {"phase": "x", "started_ms": 9, "duration_ms": 100, "success": True}
    (tmp_path / STATE).write_text(
        json.dumps(
            {"last_phase": "x", "phase_history": [theirs], "generated": [], "cache_keys": []}
        )
    )
    record(open_folder(tmp_path), [])
    found = read(tmp_path)
    assert [entry["phase"] for entry in found["phase_history"]] == ["x", "init"]
    assert (found["production_score"], found["last_validation"], found["last_phase"]) == (
        92,
        "2025-10-13T19:00:00Z",
        "x",
    )


def test_recording_again_duplicates_nothing(tmp_path: Path):
    """A merge of what is there already leaves the file's bytes alone."""
    record(open_folder(tmp_path), [ran("init"), ran("init")])
    before = (tmp_path / STATE).read_bytes()
    record(open_folder(tmp_path), [])
    assert (tmp_path / STATE).read_bytes() == before
    assert len(read(tmp_path)["phase_history"]) == 2


BROKEN = {
    "empty": (b"", "1:1"),
    "no JSON": (b'{\n "phase_history": [}\n', "2:20"),
    "byte order mark": (b'\xef\xbb\xbf{"phase_history": []}', "1:1"),
    "null list": (b'{\n"phase_history": null}', "2:1"),
    "float": (
        (
            b'{"generated": [],\n"phase_history": [{"phase": "a", "started_ms": 1.5, '
            b'"duration_ms": 1, "success": true}]}'
        ),
        "2:1",
    ),
    "no success": (
        b'{\n"phase_history": [{"phase": "a", "started_ms": 1, "duration_ms": 1}]}',
        "2:1",
    ),
    "a list": (b"[]", "1:1"),
    "deep": (b"[" * 100000, "1:1"),
}


@pytest.mark.parametrize(("data", "place"), BROKEN.values(), ids=BROKEN)
def test_a_broken_state_is_located_and_left_alone(tmp_path: Path, data: bytes, place: str):
    """What ggen would refuse is an error at its place, and no file of ours is written beside it."""
    (tmp_path / ".ggen").mkdir()
    (tmp_path / STATE).write_bytes(data)
    with pytest.raises(ProjectError) as refused:
        record(open_folder(tmp_path), [ran("test")])
    assert refused.value.where == f".ggen/state.json:{place}"
    assert (tmp_path / STATE).read_bytes() == data
    assert not (tmp_path / OURS).exists()


def test_a_link_in_the_place_of_the_folder_is_refused(tmp_path: Path):
    """A .ggen that leads elsewhere is not followed."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / ".ggen").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ProjectError):
        record(open_folder(tmp_path / "project"), [ran("test")])
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_linked_state_file_is_replaced_and_not_followed(tmp_path: Path):
    """As in ggen, the link becomes a plain file; where it led stays as it was."""
    (tmp_path / ".ggen").mkdir()
    target = tmp_path / "target.json"
    target.write_text('{"phase_history":[],"generated":[],"cache_keys":[]}')
    (tmp_path / STATE).symlink_to(target)
    record(open_folder(tmp_path), [ran("test")])
    assert not (tmp_path / STATE).is_symlink()
    assert "test" not in target.read_text()


def test_concurrent_writers_lose_nothing(tmp_path: Path):
    """Twenty writers at once: all twenty records are in both files,
    and nothing else is left in the folder.
    """
    with ThreadPoolExecutor(20) as pool:
        list(
            pool.map(
                lambda number: record(open_folder(tmp_path), [ran(f"p{number}", number)]), range(20)
            )
        )
    assert {entry["phase"] for entry in read(tmp_path)["phase_history"]} == {
        f"p{number}" for number in range(20)
    }
    assert len(read(tmp_path, OURS)["records"]) == 20
    assert sorted(path.name for path in (tmp_path / ".ggen").iterdir()) == [
        "cleanroom",
        "state.json",
    ]


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "without"])
def test_what_ggen_writes_at_the_worst_moment_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
):
    """A record that ggen, which takes no lock, saves between our reading and our writing is in the
    file afterwards.
    """
    record(open_folder(tmp_path), [ran("init")])
    original, moments = state._put, iter([True])

    def interrupted(ggen: Folder, data: bytes, before: bytes | None) -> bytes | None:
        if next(moments, False):
            path = tmp_path / STATE
            found = json.loads(path.read_text())
            found["phase_history"].append(
                {"phase": "ggen", "started_ms": 3, "duration_ms": 100, "success": True}
            )
            path.write_text(json.dumps(found))
        return original(ggen, data, before)

    monkeypatch.setattr(state, "_put", interrupted)
    if not exchange:
        monkeypatch.setattr(disk.here, "exchange", lambda folder, one, other: False)
    record(open_folder(tmp_path), [ran("test", 4)])
    assert {entry["phase"] for entry in read(tmp_path)["phase_history"]} == {"init", "ggen", "test"}


def test_a_ggen_without_lock_beside_us_keeps_the_file_readable(tmp_path: Path):
    """While another process replaces the file all the time, every read is whole JSON,
    and our copy has all of ours.
    """
    record(open_folder(tmp_path), [ran("init")])
    done = threading.Event()

    def ggen() -> None:
        while not done.is_set():
            found = read(tmp_path)
            kept = {
                key: found[key]
                for key in ("last_phase", "phase_history", "generated", "cache_keys")
            }
            aside = tmp_path / ".ggen" / "state.json.tmp"
            aside.write_text(json.dumps(kept))
            aside.rename(tmp_path / STATE)

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(ggen)
        try:
            for number in range(20):
                record(open_folder(tmp_path), [ran(f"p{number}", number)])
        finally:
            done.set()
        other.result()
    record(open_folder(tmp_path), [])
    assert {f"p{number}" for number in range(20)} <= {
        entry["phase"] for entry in read(tmp_path)["phase_history"]
    }
