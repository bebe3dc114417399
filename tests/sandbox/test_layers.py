"""Claims about reading a layer and bringing it back to the project."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.sandbox import layers

LONG_AGO = 0
LATER = 2**62  # later than any change on the host, so that nothing conflicts


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "kept").mkdir(parents=True)
    (root / "kept/old").write_text("old\n")
    return root


@pytest.fixture
def upper(tmp_path: Path, project: Path) -> Path:
    layers.make(tmp_path / "layer", project)
    return tmp_path / "layer/upper"


def kinds(upper: Path, project: Path, visible: tuple[str, ...] = ()) -> dict[str, str]:
    return {entry.path: entry.kind for entry in layers.changes(upper, project, visible)}


def bring(upper: Path, project: Path, tmp_path: Path, began_ns: int = LATER) -> layers.Outcome:
    return layers.Returner(project, began_ns).bring(upper, layers.changes(upper, project), tmp_path / "conflicts")


def test_a_changed_and_a_new_file_come_back(upper, project, tmp_path):
    """Files of the layer replace and extend those of the project, folders made on the way."""
    (upper / "kept").mkdir()
    (upper / "kept/old").write_text("new\n")
    (upper / "fresh/deep").mkdir(parents=True)
    (upper / "fresh/deep/file").write_text("x")

    done = bring(upper, project, tmp_path)

    assert (project / "kept/old").read_text() == "new\n"
    assert (project / "fresh/deep/file").read_text() == "x"
    assert (done.files, done.bytes, done.conflicts) == (2, 5, ())


def test_a_folder_that_was_only_copied_up_is_no_change(upper, project):
    """An overlay copies the parents of a changed file: they are not changes of their own."""
    (upper / "kept").mkdir()

    assert kinds(upper, project) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes whiteouts outside a user namespace")
def test_a_whiteout_deletes_on_the_host(upper, project, tmp_path):
    """A character device 0:0 in the layer is a deletion."""
    (upper / "kept").mkdir()
    try:
        os.mknod(upper / "kept/old", stat.S_IFCHR, os.makedev(0, 0))
    except PermissionError:
        pytest.skip("this container may not make devices, and so no whiteouts")

    bring(upper, project, tmp_path)

    assert not (project / "kept/old").exists()


def test_an_opaque_folder_deletes_what_it_does_not_hold(upper, project, tmp_path):
    """A folder that was deleted and made again hides everything below it."""
    (upper / "kept").mkdir()
    os.setxattr(upper / "kept", layers.OPAQUE, b"y")
    (upper / "kept/other").write_text("o")

    bring(upper, project, tmp_path)

    assert sorted(os.listdir(project / "kept")) == ["other"]


def test_links_that_lead_out_fifos_and_sockets_are_refused(upper, project):
    """What could make the host read, write or wait elsewhere never comes out; a link inside the project does."""
    os.symlink("/etc/passwd", upper / "out")
    os.symlink("../../outside", upper / "up")
    os.symlink("kept/old", upper / "inside")
    os.symlink("/usr/bin/env", upper / "trusted")
    os.mkfifo(upper / "fifo")

    found = kinds(upper, project, ("/usr",))

    assert found == {"fifo": "refused", "inside": "symlink", "out": "refused", "trusted": "symlink", "up": "refused"}


def test_a_link_of_the_project_is_never_followed(upper, project, tmp_path):
    """A folder of the layer whose place a link of the host has taken meanwhile is refused, and the link's target stays as it is."""
    target = tmp_path / "precious"
    target.mkdir()
    os.symlink(target, project / "cache")
    (upper / "cache").mkdir()
    (upper / "cache/file").write_text("x")

    done = layers.Returner(project, LATER).bring(upper, [layers.Entry("cache/file", "file", 1)], tmp_path / "conflicts")

    assert os.listdir(target) == []
    assert [entry.path for entry in done.refused] == ["cache/file"]


def test_what_changed_on_the_host_meanwhile_is_not_overwritten(upper, project, tmp_path):
    """A file whose ctime is later than the run's beginning keeps the host's text; ours is set aside."""
    (upper / "kept").mkdir()
    (upper / "kept/old").write_text("ours")

    done = bring(upper, project, tmp_path, began_ns=LONG_AGO)

    assert done.conflicts == ("kept/old",)
    assert (project / "kept/old").read_text() == "old\n"
    assert (tmp_path / "conflicts/kept/old").read_text() == "ours"


def test_our_own_last_write_is_no_conflict(upper, project, tmp_path):
    """A second phase may rewrite what the first one brought back."""
    (upper / "made").write_text("one")
    returner = layers.Returner(project, LONG_AGO)
    returner.bring(upper, layers.changes(upper, project), tmp_path / "conflicts")
    (upper / "made").write_text("two")

    done = returner.bring(upper, layers.changes(upper, project), tmp_path / "conflicts")

    assert done.conflicts == ()
    assert (project / "made").read_text() == "two"


def test_set_user_id_bits_do_not_come_out(upper, project, tmp_path):
    """A set-user-id program made inside is an ordinary one on the host."""
    (upper / "tool").write_text("#!/bin/sh\n")
    os.chmod(upper / "tool", 0o6755)

    bring(upper, project, tmp_path)

    assert stat.S_IMODE((project / "tool").stat().st_mode) == 0o755


def test_a_sparse_giant_stays_sparse(upper, project, tmp_path):
    """A file of a tebibyte with one byte in it costs one block, not a full disk."""
    with open(upper / "giant", "wb") as file:
        file.truncate(1 << 40)

    bring(upper, project, tmp_path)

    copied = (project / "giant").stat()
    assert copied.st_size == 1 << 40
    assert copied.st_blocks < 1024


def test_a_file_that_replaces_a_folder_and_the_reverse(upper, project, tmp_path):
    """Kinds may change; what stood there goes."""
    (upper / "kept").write_text("now a file")
    (project / "file").write_text("was a file")
    (upper / "file").mkdir()
    (upper / "file/inside").write_text("x")

    bring(upper, project, tmp_path)

    assert (project / "kept").read_text() == "now a file"
    assert (project / "file/inside").read_text() == "x"


def test_hostile_modes_do_not_stop_removal(tmp_path):
    """Folders without any permission, as overlayfs and attackers leave them, are removed."""
    deep = tmp_path / "layer/work/work"
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    os.chmod(deep, 0)
    os.chmod(deep.parent, 0)

    layers.remove_tree(tmp_path / "layer")

    assert not (tmp_path / "layer").exists()


def test_nesting_deeper_than_a_path_can_name_is_removed(tmp_path):
    """Three thousand folders in one another, which no path reaches and no recursion survives, are removed."""
    (tmp_path / "layer").mkdir()
    inner = os.open(tmp_path / "layer", os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=inner)
        deeper = os.open("d", os.O_RDONLY, dir_fd=inner)
        os.close(inner)
        inner = deeper
    os.close(inner)

    layers.remove_tree(tmp_path / "layer")

    assert not (tmp_path / "layer").exists()


names = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="/\0"), min_size=1, max_size=20).filter(
    lambda n: n not in (".", "..")
)


@given(tree=st.dictionaries(names, st.binary(max_size=64), max_size=8))
def test_whatever_the_names_and_bytes_files_arrive_as_they_are(tmp_path_factory, tree):
    """Bringing back is the identity on files."""
    base = tmp_path_factory.mktemp("tree")
    (base / "project").mkdir()
    layers.make(base / "layer", base / "project")
    kept = {}
    for name, data in tree.items():
        try:
            (base / "layer/upper" / name).write_bytes(data)
        except OSError:  # too long for this file system
            continue
        kept[name] = data

    bring(base / "layer/upper", base / "project", base)

    assert {path.name: path.read_bytes() for path in (base / "project").iterdir()} == kept
