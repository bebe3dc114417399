"""Archives of crates: what is unpacked, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cleanroom.dependencies import crates
from cleanroom.dependencies.crates import Unsafe, unpack

Change = Callable[[tarfile.TarInfo], None]


def archive(path: Path, *members: tuple[str, bytes, Change | None]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data, change in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            if change is not None:
                change(member)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_a_crate_is_unpacked_with_the_digests_that_cargo_checks(tmp_path: Path):
    """`.cargo-checksum.json`, as `cargo vendor` writes it."""
    made = archive(
        tmp_path / "a.crate",
        ("a-1.0.0/Cargo.toml", b"[package]", None),
        ("a-1.0.0/src/lib.rs", b"x", None),
        ("a-1.0.0/.cargo-checksum.json", b"{}", None),
    )
    assert unpack(made, tmp_path / "out", "a-1.0.0", "77") == 10
    found = json.loads((tmp_path / "out/.cargo-checksum.json").read_text())
    assert found == {
        "package": "77",
        "files": {
            "Cargo.toml": hashlib.sha256(b"[package]").hexdigest(),
            "src/lib.rs": hashlib.sha256(b"x").hexdigest(),
        },
    }


def _link(kind: bytes, name: str) -> Change:
    def change(member: tarfile.TarInfo) -> None:
        member.type, member.linkname, member.size = kind, name, 0

    return change


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("../a", None),
        ("/etc/a", None),
        ("a-1.0.0/../../a", None),
        ("a-1.0.0/x/../a", None),
        ("a-1.0.0//a", None),
        ("b-1.0.0/a", None),
        ("a-1.0.0", None),
        ("a-1.0.0/" + "x" * 1100, None),
        ("a-1.0.0/\udcff", None),
        ("a-1.0.0/a", _link(tarfile.SYMTYPE, "/etc/passwd")),
        ("a-1.0.0/a", _link(tarfile.LNKTYPE, "a-1.0.0/b")),
        ("a-1.0.0/a", _link(tarfile.CHRTYPE, "")),
        ("a-1.0.0/a", _link(tarfile.FIFOTYPE, "")),
    ],
)
def test_what_no_crate_has_is_refused(tmp_path: Path, name: str, change: Change | None):
    """Paths that lead out, links, devices."""
    made = archive(tmp_path / "a.crate", (name, b"x", change))
    with pytest.raises(Unsafe):
        unpack(made, tmp_path / "out", "a-1.0.0", "77")
    assert not (tmp_path / "a").exists()


def test_a_file_that_is_there_twice_is_refused(tmp_path: Path):
    """Cargo would check the second one's digest against whichever came last."""
    member = ("a-1.0.0/a", b"x", None)
    with pytest.raises(Unsafe):
        unpack(archive(tmp_path / "a.crate", member, member), tmp_path / "o", "a-1.0.0", "77")


def test_a_file_where_a_folder_is_needed_is_refused(tmp_path: Path):
    """The other way round too."""
    made = archive(tmp_path / "a.crate", ("a-1.0.0/a", b"x", None), ("a-1.0.0/a/b", b"x", None))
    with pytest.raises(Unsafe):
        unpack(made, tmp_path / "out", "a-1.0.0", "77")


def test_more_bytes_than_cargo_would_unpack_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Also where they are in a header."""
    monkeypatch.setattr(crates, "BYTES_MAX", 1 << 20)
    made = archive(tmp_path / "a.crate", ("a-1.0.0/a", bytes(2 << 20), None))
    with pytest.raises(Unsafe, match="more bytes"):
        unpack(made, tmp_path / "out", "a-1.0.0", "77")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(), st.booleans(), st.integers(0, 1100))
def test_any_bytes_are_unpacked_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, packed: bool, at: int
):
    """Nothing else is raised."""
    folder = tmp_path_factory.mktemp("crate")
    made = archive(folder / "a.crate", ("a-1.0.0/a", b"x", None))
    whole = gzip.decompress(made.read_bytes())
    whole = whole[:at] + data + whole[at + len(data) :]
    made.write_bytes(gzip.compress(whole) if packed else data)
    with suppress(Unsafe):
        unpack(made, folder / "out", "a-1.0.0", "77")
