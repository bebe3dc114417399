"""The folders that environments without namespaces have on the host."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cleanroom.backends.base import Mount
from cleanroom.backends.embedded.run_area import RunArea, make_area_folder
from cleanroom.backends.embedded.spec_hostns import _write_files
from support.open_folders import open_folder


@pytest.fixture
def ground(tmp_path: Path) -> RunArea:
    around = open_folder(tmp_path)
    return RunArea(
        make_area_folder(around, "large", os.geteuid()),
        make_area_folder(around, "short", os.geteuid()),
        os.geteuid(),
    )


def shown(folder: Path, name: str) -> Mount:
    """A folder of a service with one file that has its name."""
    (folder / name).mkdir()
    (folder / name / name).write_text(name)
    return Mount(source=str(folder / name), target=f"/run/{name}", writable=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's environments have copies")
def test_what_is_given_back_takes_no_other_folder_along(ground: RunArea, tmp_path: Path):
    """In whatever order services come and go: a copy that is used is never another one's."""
    (tmp_path / "template").mkdir()
    template = Mount(source=str(tmp_path / "template"), target="/data", writable=True)
    ground.host_path(template)
    kept = ground.host_path(shown(tmp_path, "kept"))
    ground.copy_back(template)
    later = ground.host_path(shown(tmp_path, "later"))
    assert (list(kept.iterdir()), list(later.iterdir())) == ([kept / "kept"], [later / "later"])


def test_a_ground_is_closed_to_all_but_its_run(tmp_path: Path):
    """Where everybody makes folders: root's, which the run's user passes through by its group;
    an ordinary user's own.
    """
    user = 54321 if os.geteuid() == 0 else os.geteuid()
    made = make_area_folder(open_folder(tmp_path), "ground", user)
    found = (tmp_path / "ground").stat()
    mode = stat.S_IMODE(found.st_mode)
    assert (mode, found.st_uid, found.st_gid) == (
        (0o710, 0, user) if os.geteuid() == 0 else (0o700, user, os.getegid())
    )
    own = RunArea(made, made, user).private_folder("roots", "phase")
    assert (stat.S_IMODE(own.stat().st_mode), own.stat().st_uid) == (0o700, user)


@pytest.mark.parametrize("kind", ["folder", "link", "file"])
def test_a_ground_that_somebody_made_before_is_not_used(tmp_path: Path, kind: str):
    """Its name can be guessed: what is there already is nobody's to use,
    and nothing of it is changed.
    """
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    place = tmp_path / "ground"
    {"folder": place.mkdir, "link": lambda: place.symlink_to("elsewhere"), "file": place.touch}[
        kind
    ]()
    before = place.lstat()
    with pytest.raises(FileExistsError):
        make_area_folder(open_folder(tmp_path), "ground", os.geteuid())
    assert place.lstat() == before
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o755


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_what_an_environment_left_in_the_place_of_a_text_is_not_written_through(
    tmp_path: Path, kind: str
):
    """Files for an environment are made anew: a name that is taken is refused."""
    (tmp_path / "victim").write_text("theirs")
    made = make_area_folder(open_folder(tmp_path), "ground", os.geteuid())
    etc = made.folder("etc", make=True)
    {
        "link": lambda: (etc.path / "hosts").symlink_to(tmp_path / "victim"),
        "folder": (etc.path / "hosts").mkdir,
    }[kind]()
    with pytest.raises(FileExistsError):
        _write_files(etc, {"/etc/hosts": "ours"})
    assert (tmp_path / "victim").read_text() == "theirs"


def test_an_ordinary_user_has_a_copy_of_what_is_shown_copy_on_write(
    ground: RunArea, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """In the folder of the run that the mount names, which nobody has made: no overlay is."""
    monkeypatch.setattr(ground, "_owner", None)
    view = tmp_path / "view"
    view.mkdir()
    (view / "package").write_text("as it was")
    source = tmp_path / "dependencies" / "1" / "0"

    at = ground.host_path(Mount(source=str(source), target="/v", above=str(view), writable=True))
    (at / "package").write_text("changed")

    assert at == source
    assert (view / "package").read_text() == "as it was"
