"""Claims about bringing a layer's changes back to the project."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.core.beneath import Folder
from cleanroom.sandbox.filesystem import layers, saved_changes
from support.layer_harness import LayeredProject, open_up, snapshot


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[LayeredProject]:
    (tmp_path / "project/kept").mkdir(parents=True)
    (tmp_path / "project/kept/old").write_text("old\n")
    yield LayeredProject(tmp_path)
    open_up(tmp_path)


@pytest.fixture
def project(bench: LayeredProject) -> Path:
    return bench.project


@pytest.fixture
def upper(bench: LayeredProject) -> Path:
    return bench.layer()


def whiteout(path: Path) -> None:
    """A deletion, as an overlay writes it. Any user may make one since Linux 5.8."""
    try:
        os.mknod(path, stat.S_IFCHR)
    except PermissionError:
        pytest.skip("this container may not make devices, and so no whiteouts")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# --- what was there comes back


def test_a_changed_and_a_new_file_come_back(upper, project, bench):
    """Files of the layer replace and extend those of the project, folders made on the way."""
    (upper / "kept").mkdir()
    (upper / "kept/old").write_text("new\n")
    (upper / "fresh/deep").mkdir(parents=True)
    (upper / "fresh/deep/file").write_text("x")

    done = bench.write_back(upper)

    assert (project / "kept/old").read_text() == "new\n"
    assert (project / "fresh/deep/file").read_text() == "x"
    assert (done.files, done.bytes, done.conflicts) == (2, 5, ())


def test_a_whiteout_deletes_on_the_host(upper, project, bench):
    """A character device 0:0 in the layer is a deletion."""
    (upper / "kept").mkdir()
    whiteout(upper / "kept/old")

    done = bench.write_back(upper)

    assert not (project / "kept/old").exists()
    assert done.deleted == 1


def test_an_opaque_folder_deletes_what_it_does_not_hold(upper, project, bench):
    """A folder that was deleted and made again hides everything below it."""
    (upper / "kept").mkdir()
    os.setxattr(upper / "kept", layers.OPAQUE, b"y")
    (upper / "kept/other").write_text("o")

    bench.write_back(upper)

    assert sorted(os.listdir(project / "kept")) == ["other"]


def test_each_file_that_goes_with_a_folder_counts_as_deleted(upper, project, bench):
    """Not the folder as one."""
    (project / "kept/in").mkdir()
    for name in "abc":
        (project / "kept/in" / name).write_text("")
    whiteout(upper / "kept")

    assert bench.write_back(upper).deleted == 4


def test_each_folder_that_goes_and_held_no_file_counts_as_deleted(upper, project, bench):
    """However deep they lay in each other, and beside files."""
    (project / "empty/in/it").mkdir(parents=True)
    (project / "kept/empty").mkdir()
    whiteout(upper / "empty")
    whiteout(upper / "kept")

    assert bench.write_back(upper).deleted == 5


def test_what_a_folder_replaced_counts_whatever_cannot_come_into_it(upper, project, bench):
    """A FIFO in it stays away; the file that was in its place went all the same."""
    (project / "file").write_text("")
    (upper / "file").mkdir()
    os.mkfifo(upper / "file/fifo")

    done = bench.write_back(upper)

    assert (done.deleted, [entry.path for entry in done.refused]) == (1, ["file/fifo"])


def test_set_user_id_bits_do_not_come_out(upper, project, bench):
    """A set-user-id program made inside is an ordinary one on the host."""
    (upper / "tool").write_text("#!/bin/sh\n")
    os.chmod(upper / "tool", 0o6755)
    (upper / "folder").mkdir()
    os.chmod(upper / "folder", 0o3755)

    bench.write_back(upper)

    assert mode(project / "tool") == 0o755
    assert mode(project / "folder") == 0o755


def test_a_sparse_giant_stays_sparse(upper, project, bench):
    """A file of a tebibyte with one byte in it costs one block, not a full disk."""
    with open(upper / "giant", "wb") as file:
        file.truncate(1 << 40)

    bench.write_back(upper)

    copied = (project / "giant").stat()
    assert copied.st_size == 1 << 40
    assert copied.st_blocks < 1024


def test_a_file_that_replaces_a_folder_and_the_reverse(upper, project, bench):
    """Kinds may change; what stood there goes."""
    (upper / "kept").write_text("now a file")
    (project / "file").write_text("was a file")
    (upper / "file").mkdir()
    (upper / "file/inside").write_text("x")

    bench.write_back(upper)

    assert (project / "kept").read_text() == "now a file"
    assert (project / "file/inside").read_text() == "x"


def test_the_mode_of_a_folder_comes_back(upper, project, bench):
    """Of one that the project had, and of a new one that nothing is in."""
    (upper / "kept").mkdir()
    (upper / "kept").chmod(0o700)
    (upper / "empty").mkdir()
    (upper / "empty").chmod(0o777)

    done = bench.write_back(upper)

    assert (mode(project / "kept"), mode(project / "empty")) == (0o700, 0o777)
    assert (done.conflicts, done.refused) == ((), ())


def test_a_folder_that_nobody_may_write_comes_back_with_all_that_is_in_it(upper, project, bench):
    """As module caches are: each folder gets its mode when its content is there."""
    (upper / "mod/x").mkdir(parents=True)
    (upper / "mod/x/f").write_text("1")
    (upper / "mod/x/f").chmod(0o444)
    (upper / "mod/x").chmod(0o555)
    (upper / "mod").chmod(0o555)

    done = bench.write_back(upper)

    assert (done.refused, (project / "mod/x/f").read_text()) == ((), "1")
    assert [mode(project / path) for path in ("mod", "mod/x", "mod/x/f")] == [0o555, 0o555, 0o444]


def test_what_is_in_a_folder_that_nobody_may_write_changes(upper, project, bench):
    """A file in it is replaced and one is deleted, and it is as closed as before."""
    (project / "kept/more").write_text("")
    (project / "kept").chmod(0o555)
    (upper / "kept").mkdir()
    (upper / "kept/old").write_text("new")
    whiteout(upper / "kept/more")
    (upper / "kept").chmod(0o555)

    done = bench.write_back(upper)

    assert (done.refused, os.listdir(project / "kept")) == ((), ["old"])
    assert ((project / "kept/old").read_text(), mode(project / "kept")) == ("new", 0o555)


def test_a_tree_that_nobody_may_write_is_deleted(upper, project, bench):
    """Whoever may chmod it may."""
    (project / "kept/in").mkdir()
    (project / "kept/in/f").write_text("")
    (project / "kept/in").chmod(0)
    (project / "kept").chmod(0o555)
    whiteout(upper / "kept")

    done = bench.write_back(upper)

    assert (done.refused, os.listdir(project)) == ((), [])


def test_names_of_one_file_come_back_as_names_of_one_file(upper, project, bench):
    """Also in another folder, and where one of them replaces a file."""
    (upper / "kept").mkdir()
    (upper / "one").write_text("x")
    os.link(upper / "one", upper / "kept/old")
    os.link(upper / "one", upper / "kept/two")

    done = bench.write_back(upper)

    assert snapshot(project)["one"][-1] == ["kept/old", "kept/two", "one"]
    assert (done.files, done.bytes) == (3, 1)


def test_a_new_name_of_a_file_that_the_project_has_is_one_of_that_file(upper, project, bench):
    """The layer's copy of it is the same, so the project's own stays, with the names it has."""
    os.link(project / "kept/old", project / "other")
    info = (project / "other").stat()
    (upper / "other").write_text("old\n")
    os.utime(upper / "other", ns=(info.st_atime_ns, info.st_mtime_ns))
    os.link(upper / "other", upper / "third")

    bench.write_back(upper)

    assert snapshot(project)["third"][-1] == ["kept/old", "other", "third"]


def test_only_what_was_chosen_is_linked(upper, project, bench):
    """A name whose first one stays out is a file like any other."""
    (upper / "one").write_text("x")
    os.link(upper / "one", upper / "two")

    bench.write_back(upper, only=["two"])

    assert snapshot(project)["two"][-1] == ["two"]


def test_a_long_name_in_another_script_comes_back(upper, project, bench):
    """Of as many bytes as a file system takes."""
    name = "名" * 85
    (upper / name).write_text("x")

    assert bench.write_back(upper).refused == ()
    assert (project / name).read_text() == "x"


def test_a_file_that_nobody_may_read_comes_back(upper, project, bench):
    """With its mode; its owner did not have to be able to read it."""
    (upper / "closed").write_text("x")
    (upper / "closed").chmod(0)

    done = bench.write_back(upper)

    assert (done.refused, mode(project / "closed"), mode(upper / "closed")) == ((), 0, 0)
    (project / "closed").chmod(0o600)
    assert (project / "closed").read_text() == "x"


letters = st.characters(blacklist_categories=("Cs",), blacklist_characters="/\0")
names = st.text(letters, min_size=1, max_size=20).filter(lambda name: name not in (".", ".."))


@given(tree=st.dictionaries(names, st.binary(max_size=64)))
def test_whatever_the_names_and_bytes_files_arrive_as_they_are(tmp_path_factory, tree):
    """Bringing back is the identity on files."""
    bench = LayeredProject(tmp_path_factory.mktemp("tree"))
    upper = bench.layer()
    made = {}
    for name, data in tree.items():
        try:
            (upper / name).write_bytes(data)
        except OSError:  # too long for this file system
            continue
        made[name] = data

    bench.write_back(upper)

    assert {path.name: path.read_bytes() for path in bench.project.iterdir()} == made


# --- what somebody else changed


def test_what_changed_on_the_host_meanwhile_is_not_overwritten(upper, project, bench, tmp_path):
    """A file that was written since the run began keeps the host's text; ours is set aside."""
    bench.begin()
    (project / "kept/old").write_text("theirs")
    (upper / "kept").mkdir()
    (upper / "kept/old").write_text("ours")

    done = bench.write_back(upper)

    assert done.conflicts == ("kept/old",)
    assert (project / "kept/old").read_text() == "theirs"
    assert (tmp_path / "conflicts/kept/old").read_text() == "ours"


@pytest.mark.parametrize("change", ["type", "mode", "older file", "link"])
def test_each_kind_of_change_by_somebody_else_counts(upper, project, bench, change):
    """The type, the mode, a file that is older than the run, a link's target."""
    place = project / "kept/old"
    bench.begin()
    if change == "mode":
        place.chmod(0o600)
    elif change == "older file":
        (bench.base / "before").write_text("theirs")
        os.utime(bench.base / "before", (1, 1))
        (bench.base / "before").rename(place)
    else:
        place.unlink()
        place.symlink_to("theirs") if change == "link" else place.mkdir()
    before = snapshot(project)
    (upper / "kept").mkdir()
    ours = upper / "kept/old"
    ours.symlink_to("ours") if change == "link" else ours.write_text("x")
    if change == "type":
        (project / "kept/old/file").write_text("theirs")
        before = snapshot(project)

    done = bench.write_back(upper)

    assert done.conflicts in (("kept/old",), ("kept/old/file",))
    assert snapshot(project) == before


def test_what_somebody_else_made_of_a_folder_stops_all_that_would_be_below(
    upper, project, bench, tmp_path
):
    """A file in the place of a folder: what was to be in it is set aside, each by its path."""
    bench.begin()
    (project / "kept/old").unlink()
    (project / "kept").rmdir()
    (project / "kept").write_text("theirs")
    (upper / "kept").mkdir()
    (upper / "kept/a").write_text("ours a")
    (upper / "kept/b").write_text("ours b")

    done = bench.write_back(upper)

    assert (done.conflicts, (project / "kept").read_text()) == (("kept",), "theirs")
    assert (tmp_path / "conflicts/kept/a").read_text() == "ours a"
    assert (tmp_path / "conflicts/kept/b").read_text() == "ours b"


def test_the_same_bytes_are_no_conflict(upper, project, bench):
    """Two runs at once, or a tool beside one, may make the same file, link and folder."""
    bench.begin()
    for place in (project, upper):
        (place / "out").mkdir()
        (place / "out/file").write_text("made")
        (place / "out/link").symlink_to("file")

    done = bench.write_back(upper)

    assert (done.conflicts, done.files, done.bytes) == ((), 0, 0)


def test_the_same_bytes_with_another_mode_are_one(upper, project, bench):
    """Who made it private meant it."""
    bench.begin()
    for place, bits in ((project, 0o600), (upper, 0o644)):
        (place / "file").write_text("made")
        (place / "file").chmod(bits)

    assert bench.write_back(upper).conflicts == ("file",)
    assert mode(project / "file") == 0o600


def test_our_own_last_write_is_no_conflict(project, bench):
    """A second phase may rewrite, chmod, relink and remove what the first one brought back."""
    bench.begin()
    first, second, third = bench.layer(), bench.layer(), bench.layer()
    for name in "abcd":
        (first / name).write_text("one")
    os.link(first / "a", first / "e")
    (first / "dir/in").mkdir(parents=True)
    (first / "dir/in/f").write_text("")
    bench.write_back(first)
    (second / "a").write_text("two")
    (second / "b").mkdir()
    (second / "c").symlink_to("b")
    os.link(second / "a", second / "d")
    (second / "e").write_text("two more")
    (second / "dir").mkdir(0o700)
    bench.write_back(second)
    for name in ("a", "b", "c", "d", "dir", "e"):
        whiteout(third / name)

    done = bench.write_back(third)

    assert (done.conflicts, done.refused) == ((), ())
    assert sorted(os.listdir(project)) == ["kept"]


@pytest.mark.parametrize("what", ["added", "changed", "moved in"])
def test_a_folder_with_something_of_somebody_else_s_is_not_deleted(upper, project, bench, what):
    """Nothing in it is, and the conflict names theirs."""
    (project / "kept/deep").mkdir()
    (project / "kept/deep/file").write_text("")
    (bench.base / "deep").mkdir()
    (bench.base / "deep/file").write_text("theirs")
    bench.begin()
    if what == "moved in":
        (project / "kept/deep").rename(bench.base / "away")
        (bench.base / "deep").rename(project / "kept/deep")
    else:
        name = "file" if what == "changed" else "new"
        (project / "kept/deep" / name).write_text("theirs")
    before = snapshot(project)
    whiteout(upper / "kept")

    done = bench.write_back(upper)

    named = {"added": "kept/deep/new", "changed": "kept/deep/file", "moved in": "kept/deep"}
    assert (done.conflicts, done.deleted) == ((named[what],), 0)
    assert snapshot(project) == before


def test_each_file_that_holds_a_removal_back_is_named(upper, project, bench, tmp_path):
    """Not only the first; the removal itself is named too, and nothing is kept of it."""
    for name in ("a", "b", "c"):
        (project / "kept" / name).write_text("")
    (project / "file").write_text("")
    bench.begin()
    for name in ("kept/a", "kept/c", "file"):
        (project / name).write_text("theirs")
    whiteout(upper / "kept")
    whiteout(upper / "file")

    done = bench.write_back(upper)

    assert sorted(done.conflicts) == ["file", "kept/a", "kept/c"]
    assert done.unkept == done.conflicts
    assert sorted(done.unremoved) == ["file", "kept"]
    assert not (tmp_path / "conflicts").exists()


def test_what_was_to_take_a_folder_s_place_is_kept(upper, project, bench, tmp_path):
    """It is no removal: ours can be compared."""
    bench.begin()
    (project / "kept/old").write_text("theirs")
    (upper / "kept").write_text("ours")

    done = bench.write_back(upper)

    assert (done.conflicts, done.unkept, done.unremoved) == (("kept/old",), (), ())
    assert (tmp_path / "conflicts/kept").read_text() == "ours"


def test_a_folder_in_which_somebody_else_only_removed_something_is_deleted(upper, project, bench):
    """Nothing of theirs is in it."""
    (project / "kept/more").write_text("")
    bench.begin()
    (project / "kept/more").unlink()
    whiteout(upper / "kept")

    done = bench.write_back(upper)

    assert (done.conflicts, os.listdir(project)) == ((), [])


def test_a_file_in_a_folder_that_somebody_moved_there_is_theirs(upper, project, bench):
    """However old it is: it is not what was there when the run began."""
    (bench.base / "other").mkdir()
    (bench.base / "other/old").write_text("theirs")
    bench.begin()
    (project / "kept").rename(bench.base / "away")
    (bench.base / "other").rename(project / "kept")
    (upper / "kept").mkdir()
    (upper / "kept/old").write_text("ours")

    assert bench.write_back(upper).conflicts == ("kept/old",)
    assert (project / "kept/old").read_text() == "theirs"


def test_a_mode_that_somebody_gave_a_folder_stays(upper, project, bench):
    """Where a phase gave it another."""
    bench.begin()
    (project / "kept").chmod(0o750)
    (upper / "kept").mkdir(0o700)

    assert bench.write_back(upper).conflicts == ("kept",)
    assert mode(project / "kept") == 0o750
    assert mode(bench.base / "conflicts/kept") == 0o700


def test_a_link_that_conflicts_is_set_aside_as_a_text(upper, project, bench, tmp_path):
    """A link there would lead elsewhere than it did."""
    bench.begin()
    (project / "link").write_text("theirs")
    (upper / "link").symlink_to("kept/old")

    assert bench.write_back(upper).conflicts == ("link",)
    assert (tmp_path / "conflicts/link").read_text() == "a link to kept/old\n"


def test_a_name_that_somebody_gave_a_file_is_no_change_of_its_content(upper, project, bench):
    """It has another ctime then: its bytes decide."""
    bench.begin()
    os.link(project / "kept/old", bench.base / "a backup")
    (upper / "kept").mkdir()
    (upper / "kept/old").write_text("old\n")

    assert bench.write_back(upper).conflicts == ()


# --- whoever swaps what is on the way


def test_a_link_of_the_project_is_never_followed(upper, project, bench, tmp_path):
    """What was to be in a folder whose place a link has taken is refused; its target stays."""
    target = tmp_path / "precious"
    target.mkdir()
    os.symlink(target, project / "cache")
    (upper / "cache").mkdir()
    (upper / "cache/file").write_text("x")

    done = bench.write_back(upper, only=["cache/file"])

    assert os.listdir(target) == []
    assert [entry.path for entry in done.refused] == ["cache/file"]


def test_a_project_that_is_moved_away_gets_its_changes_where_it_is(upper, project, bench, tmp_path):
    """A link in its place gets nothing: the folder was opened when the run began."""
    (tmp_path / "precious").mkdir()
    (upper / "file").write_text("x")
    project.rename(tmp_path / "moved")
    project.symlink_to("precious")

    bench.write_back(upper)

    assert os.listdir(tmp_path / "precious") == []
    assert (tmp_path / "moved/file").exists()


@pytest.mark.parametrize("place", ["conflicts", "conflicts/kept", "conflicts/kept/old"])
def test_a_link_in_the_run_s_folder_is_never_followed(upper, project, bench, tmp_path, place):
    """What conflicts, and what is kept, goes through none that somebody put there."""
    bench.begin()
    (project / "kept/old").write_text("theirs")
    (upper / "kept").mkdir()
    (upper / "kept/old").write_text("ours")
    precious = tmp_path / "precious"
    (precious / "kept").mkdir(parents=True)
    (precious / "old").write_text("precious")
    (precious / "kept/old").write_text("precious")
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).symlink_to(precious / "old" if place.endswith("old") else precious)

    bench.write_back(upper)
    with Folder.at(upper) as layer, Folder.at(tmp_path) as run:
        saved_changes.save(layer, bench.changes(upper), run, "conflicts")

    assert (precious / "old").read_text() == (precious / "kept/old").read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of others")
def test_what_is_saved_belongs_to_whoever_the_runs_folder_is(upper, bench, tmp_path):
    """Files and folders that root saves in an owner's evidence, and an older one that it meets."""
    (upper / "folder").mkdir()
    (upper / "folder/file").write_text("x")
    run = tmp_path / "run"
    (run / "diff").mkdir(parents=True)
    os.chown(run, 54321, 54321)
    with Folder.at(upper) as layer, Folder.at(run, inherit_owner=True) as folder:
        for inside in ("conflicts", "diff"):
            saved_changes.save(layer, bench.changes(upper), folder, inside)

    def owners(inside: str) -> set[int]:
        return {path.lstat().st_uid for path in (run / inside, *(run / inside).rglob("*"))}

    assert owners("conflicts") == {54321}
    assert owners("diff") == {0}


def test_a_link_in_the_layer_is_never_read_through(upper, project, bench, tmp_path):
    """A folder that is a link when its files are fetched gives none of the host's."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/file").write_text("the host's own")
    (upper / "folder").mkdir()
    (upper / "folder/file").write_text("x")
    found = bench.changes(upper)
    (upper / "folder").rename(upper / "away")
    (upper / "folder").symlink_to(tmp_path / "secret")

    with Folder.at(upper) as layer, Folder.at(tmp_path) as run:
        done = bench.writer.apply(layer, found, run)
        saved_changes.save(layer, found, run, "diff")

    assert [entry.path for entry in done.refused] == ["folder", "folder/file"]
    assert not (project / "folder/file").exists()
    assert not (tmp_path / "diff/folder/file").exists()


def test_a_device_or_fifo_that_takes_a_file_s_place_holds_nobody_up(
    upper, project, bench, tmp_path
):
    """It is refused by its kind when it is opened."""
    (upper / "file").write_text("x")
    found = bench.changes(upper)
    (upper / "file").unlink()
    os.mkfifo(upper / "file")

    with Folder.at(upper) as layer, Folder.at(tmp_path) as run:
        done = bench.writer.apply(layer, found, run)

    assert [entry.path for entry in done.refused] == ["file"]


def test_a_link_that_leads_out_through_another_of_its_layer_is_refused(upper, project, bench):
    """By its text `passage/../../../x` stays inside; through the link it does not."""
    (upper / "deep/er").mkdir(parents=True)
    (upper / "passage").symlink_to("deep/er")
    (upper / "deep/up").symlink_to("../passage/../../../x")
    (upper / "out").symlink_to("deep/er/out")
    (upper / "deep/er/out").symlink_to("../../../x")

    done = bench.write_back(upper)

    assert sorted(entry.path for entry in done.refused) == ["deep/er/out", "deep/up", "out"]


def test_a_link_is_judged_by_what_comes_back_with_it(project, bench):
    """What would make it harmless stays out: the project has a link that leads out there."""
    upper = bench.layer()
    (project / "data").symlink_to("/etc")
    (upper / "data").mkdir()
    (upper / "link").symlink_to("data/passwd")

    done = bench.write_back(upper, only=["link"])

    assert [entry.path for entry in done.refused] == ["link"]
    assert not (project / "link").is_symlink()


def test_links_to_folders_that_a_phase_was_shown_come_back(upper, project, bench, tmp_path):
    """A virtual environment has its interpreter in the caller's tools."""
    (upper / "bin").mkdir()
    (upper / "bin/python").symlink_to("/home/u/.pyenv/versions/3.11/bin/python3")
    visible = ("/home/u/.pyenv",)
    found = bench.changes(upper, visible)

    with Folder.at(upper) as layer, Folder.at(tmp_path) as run:
        done = bench.writer.apply(layer, found, run, visible)

    assert (done.refused, os.readlink(project / "bin/python")[:14]) == ((), "/home/u/.pyenv")


def test_what_is_kept_has_no_mode_that_harms(upper, bench, tmp_path):
    """No set-user-id bit, and nobody but its owner can write it."""
    (upper / "tool").write_text("#!/bin/sh\n")
    (upper / "tool").chmod(0o6777)
    (upper / "closed").write_text("x")
    (upper / "closed").chmod(0)

    with Folder.at(upper) as layer, Folder.at(tmp_path) as run:
        saved_changes.save(layer, bench.changes(upper), run, "diff/phase")

    assert mode(tmp_path / "diff/phase/tool") == 0o755
    assert (tmp_path / "diff/phase/closed").read_text() == "x"


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's files are that user's anyway")
def test_root_gives_a_project_s_owner_what_it_made_and_nothing_else(upper, project, bench):
    """Files, folders and links become the project's owner's; what was there keeps its own."""
    os.chown(project, 1, 1)
    bench = LayeredProject(bench.base)
    (upper / "folder").mkdir()
    (upper / "folder/file").write_text("x")
    (upper / "link").symlink_to("folder")

    bench.write_back(upper)

    owners = {path.name: path.lstat().st_uid for path in project.rglob("*")}
    assert owners == {"kept": 0, "old": 0, "folder": 1, "file": 1, "link": 1}


def test_nothing_is_left_beside_what_came_back(upper, project, bench):
    """Also where it was refused or conflicted half-way."""
    bench.begin()
    (project / "kept/old").unlink()
    (project / "kept/old").mkdir()
    (project / "kept/old/theirs").write_text("")
    (upper / "kept").mkdir()
    (upper / "kept/old").write_text("a file over a folder that is theirs")

    assert bench.write_back(upper).conflicts == ("kept/old/theirs",)
    assert snapshot(project).keys() == {"kept", "kept/old", "kept/old/theirs"}
