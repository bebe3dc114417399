"""Packages of a Cargo.lock that come from repositories."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.dependencies import cargo_git
from cleanroom.dependencies.cargo import read_lock
from cleanroom.dependencies.cargo_git import config, folders, lay_out, read_source
from cleanroom.dependencies.git_packs import BLOB
from cleanroom.model.errors import DependencyRejected, DependencyUnavailable
from support.git_packs import Writer

COMMIT = "a" * 40
SOURCE = f"git+https://h/r?branch=feature%2Fx#{COMMIT}"


def lock(*sources: str) -> bytes:
    return "".join(
        f'[[package]]\nname = "p{number}"\nversion = "1.0.0"\nsource = "{source}"\n'
        for number, source in enumerate(sources)
    ).encode()


def test_a_lock_names_repository_reference_and_commit():
    """Two packages of one commit are one file; cargo finds it under the lock's own key."""
    read = read_lock("Cargo.lock", lock(SOURCE, SOURCE))
    assert read.problems == []
    (file,) = cargo_git.artifacts(read.git)
    assert (file.url, file.digest) == (f"git+https://h/r@{COMMIT}", f"git:{COMMIT}")
    (key,) = folders(read.git)
    written = tomllib.loads(config({key: (read.git[0], "/v")}).decode())["source"]
    assert written["git+https://h/r?branch=feature%2Fx"] == {
        "git": "https://h/r",
        "branch": "feature/x",
        "replace-with": "cleanroom-git-0",
    }
    assert written["cleanroom-git-0"] == {"directory": "/v"}


@pytest.mark.parametrize(
    "source",
    [
        "git+https://h/r",
        "git+https://h/r#abc",
        f"git+http://h/r#{COMMIT}",
        f"git+ssh://git@h/r#{COMMIT}",
        f"git+file:///r#{COMMIT}",
        f"git+ext::sh#{COMMIT}",
        f"git+https://[h/r#{COMMIT}",
    ],
)
def test_a_source_without_commit_or_https_is_named(source: str):
    """Never skipped."""
    read = read_lock("Cargo.lock", lock(source))
    assert (len(read.problems), read.git) == (1, [])


@given(st.text(max_size=80), st.text(max_size=40))
def test_any_source_is_read_or_refused(address: str, commit: str):
    """And what cargo's configuration has of it is TOML."""
    found = read_source("p", "1", f"git+https://h/{address}?{address}#{COMMIT if commit else ''}")
    if found is not None:
        tomllib.loads(config({found.key: (found, "/v")}).decode())


def test_two_commits_of_one_source_are_refused():
    """One of two locks would have the other one's code."""
    other = SOURCE.replace(COMMIT, "b" * 40)
    with pytest.raises(DependencyRejected):
        folders(read_lock("Cargo.lock", lock(SOURCE, other)).git)


def repository(path: Path, files: dict[bytes, bytes], links: dict[bytes, bytes]) -> str:
    pack = Writer()
    entries = [(b"100644", name, pack.add(BLOB, data)) for name, data in files.items()]
    entries += [(b"120000", name, pack.add(BLOB, data)) for name, data in links.items()]
    commit = pack.commit(pack.tree(*sorted(entries, key=lambda one: one[1])))
    pack.to(path)
    return commit


def test_what_a_repository_has_in_the_place_of_checksums_is_not_written_through(tmp_path: Path):
    """A link there, to a file beside it, is replaced."""
    manifest = b'[package]\nname = "p0"\nversion = "1.0.0"\n'
    files = {b"Cargo.toml": manifest, b"x": b"x"}
    commit = repository(tmp_path / "pack", files, {b".cargo-checksum.json": b"x"})
    read = read_lock("Cargo.lock", lock(SOURCE.replace(COMMIT, commit)))
    (source,) = folders(read.git).values()
    lay_out(source, {commit: tmp_path / "pack"}, tmp_path / "out")
    package = tmp_path / "out/cleanroom-p0"
    assert (package / "x").read_bytes() == b"x"
    assert (package / ".cargo-checksum.json").read_bytes() == b'{"files":{},"package":null}'


def test_a_package_that_the_repository_lacks_is_named(tmp_path: Path):
    """A manifest behind a link is none."""
    commit = repository(tmp_path / "pack", {b"x": b""}, {b"Cargo.toml": b"x"})
    read = read_lock("Cargo.lock", lock(SOURCE.replace(COMMIT, commit)))
    (source,) = folders(read.git).values()
    with pytest.raises(DependencyUnavailable, match="has no package 'p0'"):
        lay_out(source, {commit: tmp_path / "pack"}, tmp_path / "out")
