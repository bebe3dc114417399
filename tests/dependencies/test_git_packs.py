"""Packs of one commit: real ones of git's, and hostile ones."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanroom.dependencies.git_packs import (
    BLOB,
    COMMIT,
    NOT_ONE_COMMIT,
    Pack,
    Unsafe,
    index,
    measure,
)
from cleanroom.dependencies.git_sources import (
    GitSource,
    Reference,
    bare_repository,
    checked_url,
    checkout,
    checkout_whole,
    resolved,
    submodules,
)
from support.git_packs import Writer

GIT = {
    **os.environ,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    **{f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


def git(folder: Path, *words: str, data: bytes = b"") -> bytes:
    done = subprocess.run(
        ["git", *words], cwd=folder, input=data, env=GIT, check=True, capture_output=True
    )
    return done.stdout


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A repository's pack: a program, a link, attributes that would change files, and hooks."""
    folder = tmp_path_factory.mktemp("real")
    git(folder, "init", "-q", "-b", "main")
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/run.sh").write_text("#!/bin/sh\n")
    (folder / "a/b/run.sh").chmod(0o755)
    (folder / "link").symlink_to("a/b/run.sh")
    (folder / "out").symlink_to("../../etc/passwd")
    (folder / "version").write_text("$Format:%H$ $Id$\n")
    (folder / ".gitattributes").write_text("* filter=evil export-subst ident text eol=crlf\n")
    (folder / ".gitmodules").write_text('[submodule "x"]\n\tpath = x\n\turl = ext::sh -c evil\n')
    git(folder, "add", "-A")
    git(folder, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},x")
    git(folder, "commit", "-q", "-m", "one")
    commit = git(folder, "rev-parse", "HEAD").decode().strip()
    words = ("pack-objects", "-q", "--revs", "--stdout", "--window=0", "--depth=0")
    pack = folder.parent / f"{folder.name}.pack"
    pack.write_bytes(git(folder, *words, data=b"HEAD\n"))
    return pack, commit


def test_a_pack_of_gits_is_the_commit_that_git_says(real: tuple[Path, str]):
    """Every object is read and has its id."""
    assert measure(real[0]) == real[1]


def test_files_are_written_as_they_are_in_the_commit(real: tuple[Path, str], tmp_path: Path):
    """No filter, no keyword, no line ending; a link that leads out becomes a file."""
    with Pack(real[0]) as pack:
        checkout(pack, tmp_path / "out")
    out = tmp_path / "out"
    assert (out / "version").read_bytes() == b"$Format:%H$ $Id$\n"
    assert (out / "a/b/run.sh").stat().st_mode & 0o777 == 0o755
    assert (out / "link").readlink() == Path("a/b/run.sh")
    assert not (out / "out").is_symlink()
    assert (out / "out").read_text() == "../../etc/passwd"
    assert list((out / "x").iterdir()) == []


def test_a_submodule_that_would_run_a_program_has_no_address(real: tuple[Path, str]):
    """`ext::` is none that may be fetched."""
    with Pack(real[0]) as pack:
        (found,) = submodules(pack, "https://h/r")
    assert (found.path, found.source.url) == ("x", "")


def test_git_clones_from_a_repository_of_a_pack(real: tuple[Path, str], tmp_path: Path):
    """Its index is right, as git itself checks."""
    pack, commit = real
    bare = tmp_path / "bare"
    bare_repository(bare, {commit: pack}, [Reference("refs/tags/v1", commit)])
    git(bare, "fsck", "--full", "--strict")
    git(tmp_path, "clone", "-q", "--no-checkout", f"file://{bare}", "copy")
    assert git(tmp_path / "copy", "rev-parse", "v1").decode().strip() == commit
    with Pack(pack) as opened:
        ours = index(opened)
    copied = tmp_path / "x.pack"
    copied.write_bytes(pack.read_bytes())
    git(tmp_path, "index-pack", "x.pack")
    assert (tmp_path / "x.idx").read_bytes() == ours


@pytest.mark.parametrize("name", [b"..", b".", b".git", b".GIT", b"", b"a/b", b"x" * 256], ids=repr)
def test_a_name_that_leads_out_or_that_git_obeys_is_refused(name: bytes, tmp_path: Path):
    """Nothing is written, and the pack is not that of its commit."""
    pack = Writer()
    blob = pack.add(BLOB, b"x")
    pack.commit(pack.tree((b"100644", name, blob)))
    path = pack.to(tmp_path / "pack")
    assert measure(path) == NOT_ONE_COMMIT
    with Pack(path) as opened, pytest.raises(Unsafe):
        checkout(opened, tmp_path / "out")


def test_nothing_is_written_through_a_link(tmp_path: Path):
    """A link and a folder of one name: neither order writes outside."""
    pack = Writer()
    text = pack.add(BLOB, b"b")
    file = pack.add(BLOB, b"evil")
    inner = pack.tree((b"100644", b"f", file))
    outer = pack.tree((b"120000", b"a", text), (b"40000", b"a", inner))
    pack.commit(outer)
    path = pack.to(tmp_path / "pack")
    (tmp_path / "b").mkdir()
    with Pack(path) as opened, pytest.raises(Unsafe):
        checkout(opened, tmp_path / "out")
    assert list((tmp_path / "b").iterdir()) == []


def test_a_submodule_in_the_place_of_a_link_is_refused(tmp_path: Path):
    """Its folder would be made where the link leads."""
    pack = Writer()
    blob = pack.add(BLOB, b"x")
    pack.commit(pack.tree((b"100644", b"f", blob), (b"160000", b"f", b"1" * 20)))
    with Pack(pack.to(tmp_path / "pack")) as opened, pytest.raises(Unsafe):
        checkout(opened, tmp_path / "out")


def test_submodules_are_unpacked_into_their_folders(tmp_path: Path):
    """Each at its commit."""
    inner = Writer()
    commit = inner.commit(inner.tree((b"100644", b"f", inner.add(BLOB, b"six"))))
    outer = Writer()
    modules = outer.add(BLOB, b'[submodule "s"]\npath = s\nurl = ../s.git\n')
    links = ((b"100644", b".gitmodules", modules), (b"160000", b"s", bytes.fromhex(commit)))
    first = outer.commit(outer.tree(*links))
    packs = {commit: inner.to(tmp_path / "i"), first: outer.to(tmp_path / "o")}
    with Pack(packs[first]) as opened:
        (found,) = submodules(opened, "https://h/a/r.git")
    assert found.source == GitSource("https://h/a/s.git", commit)
    checkout_whole(packs, GitSource("https://h/a/r.git", first), tmp_path / "out")
    assert (tmp_path / "out/s/f").read_text() == "six"


def test_a_tree_of_trees_that_would_make_billions_of_files_is_refused(tmp_path: Path):
    """The number of files is counted, not that of objects."""
    pack = Writer()
    tree = pack.tree((b"100644", b"f", pack.add(BLOB, b"x")))
    for _ in range(12):
        tree = pack.tree(*((b"40000", b"%d" % number, tree) for number in range(10)))
    pack.commit(tree)
    assert measure(pack.to(tmp_path / "pack")) == NOT_ONE_COMMIT


def test_what_is_missing_or_too_much_is_no_commit(tmp_path: Path):
    """A blob that is not there; two commits; a delta; a size that is not that of the bytes."""
    missing = Writer()
    missing.commit(missing.tree((b"100644", b"f", b"1" * 20)))
    two = Writer()
    tree = two.tree((b"100644", b"f", two.add(BLOB, b"x")))
    two.commit(tree)
    two.add(COMMIT, b"tree %s\n\nother\n" % tree.hex().encode())
    delta = Writer()
    delta.commit(delta.tree((b"100644", b"f", delta.add(7, b"x"))))
    for number, one in enumerate((missing, two, delta, Writer())):
        assert measure(one.to(tmp_path / str(number))) == NOT_ONE_COMMIT


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_bytes_make_another_error(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory):
    """A pack with some bytes changed or cut is another commit, or none; never a traceback."""
    pack = Writer()
    commit = pack.commit(pack.tree((b"100644", b"f", pack.add(BLOB, b"text" * 20))))
    path = pack.to(tmp_path_factory.mktemp("p") / "pack")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content))) :]
    path.write_bytes(content)
    assert len(measure(path)) in (len(commit), len(NOT_ONE_COMMIT))


@given(st.binary(max_size=300))
def test_any_output_of_ls_remote_is_read(output: bytes):
    """It comes from a server."""
    resolved(output, "main")


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://user:secret@h/a/b.git", "https://h/a/b.git"),
        ("https://h:8443/a", "https://h:8443/a"),
        ("http://h/a", ""),
        ("ssh://git@h/a", ""),
        ("file:///a", ""),
        ("ext::sh -c x", ""),
        ("https://h/a b", ""),
        ("https://h/a\n[x]", ""),
        ("https://h/../a", ""),
        ("https://-x/a$(y)", ""),
        ("https://h:99999/a", ""),
    ],
)
def test_only_https_addresses_are_fetched_and_without_logins(url: str, kept: str):
    """Whatever a lock or .gitmodules names."""
    assert checked_url(url) == kept


def test_a_tag_leads_to_the_commit_behind_it():
    """`ls-remote` lists the tag's own object first."""
    tag, commit = "1" * 40, "2" * 40
    output = f"{tag}\trefs/tags/v1\n{commit}\trefs/tags/v1^{{}}\n".encode()
    assert resolved(output, "v1") == (commit, "refs/tags/v1")
    assert resolved(output, "v2") == ("", "")
