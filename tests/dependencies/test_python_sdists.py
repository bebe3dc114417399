"""What source archives say of how they are built, whatever else they are."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.dependencies import python_sdists
from cleanroom.dependencies.pip_failure import NoneFits, failure
from cleanroom.dependencies.python_sdists import UnreadableArchive, read_build_needs

HATCH = (
    '[build-system]\nrequires = ["hatchling>=1", "hatch-vcs"]\nbuild-backend = "hatchling.build"\n'
)
MATURIN = '[build-system]\nrequires = ["maturin>=1"]\nbuild-backend = "maturin"\n'
SETUP = "from setuptools import setup\nsetup(setup_requires=['cffi'], install_requires=['never'])\n"


def archive(folder: Path, files: Mapping[str, str], name: str = "a-1.0.tar.gz") -> Path:
    """A source archive with these files."""
    path = folder / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as zipped:
            for file, text in files.items():
                zipped.writestr(file, text)
        return path
    with tarfile.open(path, "w:bz2" if name.endswith("bz2") else "w:gz") as made:
        for file, text in files.items():
            member = tarfile.TarInfo(file)
            member.size = len(text)
            made.addfile(member, io.BytesIO(text.encode()))
    return path


@pytest.mark.parametrize("name", ["a-1.0.tar.gz", "a-1.0.zip", "a-1.0.tar.bz2"])
def test_the_build_system_is_read(tmp_path: Path, name: str):
    """In each kind of archive; that of a folder further inside is another project's."""
    files = {"a-1.0/pyproject.toml": HATCH, "a-1.0/tests/pyproject.toml": MATURIN}
    needs = read_build_needs(archive(tmp_path, files, name), name)
    assert needs.build == ("hatchling>=1", "hatch-vcs")
    assert needs.problems == ()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a/README": "x"}, ("setuptools>=40.8.0", "wheel")),
        ({"a/setup.py": SETUP}, ("setuptools>=40.8.0", "wheel", "cffi")),
        ({"a/pyproject.toml": "[tool.black]\n"}, ("setuptools>=40.8.0", "wheel")),
        ({"a/pyproject.toml": MATURIN, "a/setup.py": SETUP}, ("maturin>=1",)),
    ],
)
def test_without_a_build_system_it_is_setuptools(
    tmp_path: Path, files: dict[str, str], expected: tuple[str, ...]
):
    """With what a setup.py has written out."""
    assert read_build_needs(archive(tmp_path, files), "a.tar.gz").build == expected


def test_a_back_end_that_may_ask_for_more_is_named(tmp_path: Path):
    """As that of the project itself."""
    needs = read_build_needs(archive(tmp_path, {"a/pyproject.toml": MATURIN}), "a.tar.gz")
    assert [one.entry for one in needs.problems] == ["build-backend maturin"]


def test_an_address_or_a_path_is_no_build_requirement(tmp_path: Path):
    """pip would be handed an option, or another host."""
    listed = '["-r /etc/passwd", "x @ https://h.example/x.whl", "y @ file:///y", "../z", "ok"]'
    text = f"[build-system]\nrequires = {listed}\n"
    needs = read_build_needs(archive(tmp_path, {"a/pyproject.toml": text}), "a.tar.gz")
    assert needs.build == ("ok", "wheel")
    assert len(needs.problems) >= 4


@given(st.binary(max_size=2000), st.sampled_from(["a.tar.gz", "a.zip", "a.tar.bz2"]))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str
):
    """The archive is a stranger's."""
    path = tmp_path_factory.getbasetemp() / f"bytes-{name}"
    path.write_bytes(data)
    with suppress(UnreadableArchive):
        read_build_needs(path, name)


@given(st.binary(max_size=4000))
def test_any_tar_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    """Headers of it may say anything."""
    path = tmp_path_factory.getbasetemp() / "any.tar.gz"
    header = tarfile.TarInfo("a/pyproject.toml").tobuf()
    path.write_bytes(gzip.compress(header[: len(data) % 512] + data))
    with suppress(UnreadableArchive):
        read_build_needs(path, "any.tar.gz")


def test_an_archive_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Neither its files nor its headers take the memory, or the day."""
    monkeypatch.setattr(python_sdists, "_UNPACKED_MAX", 1 << 20)
    path = archive(tmp_path, {"a/data": " " * (2 << 20), "a/setup.py": SETUP})
    with pytest.raises(UnreadableArchive, match="larger"):
        read_build_needs(path, path.name)
    large = tarfile.TarInfo("a/x")
    large.type, large.size = tarfile.XHDTYPE, 1 << 33
    path.write_bytes(gzip.compress(large.tobuf(tarfile.GNU_FORMAT)))
    with pytest.raises(UnreadableArchive, match="larger"):
        read_build_needs(path, path.name)


def test_what_no_index_has_is_told_from_one_that_does_not_answer():
    """The first is so tomorrow, too."""
    none = b"ERROR: No matching distribution found for x\n"
    assert isinstance(failure("uv.lock", none), NoneFits)
    unreached = b"WARNING: Retrying (Retry(total=4)) after connection broken\n" + none
    assert not isinstance(failure("uv.lock", unreached), NoneFits)
