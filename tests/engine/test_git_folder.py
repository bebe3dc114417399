"""The git folder outside of a project: what is shown of it, and what a hostile `.git` does not get.

Real git makes the repositories; the engine starts none.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from cleanroom.engine.phases import git_folder, git_index
from cleanroom.engine.phases.git_folder import Unproven

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="no git")


def git(*words: str, at: Path) -> str:
    settings = ("user.name=a", "user.email=a@example.org", "protocol.file.allow=always")
    given = [word for setting in settings for word in ("-c", setting)]
    empty = {"PATH": os.environ["PATH"], "HOME": str(at), "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", *given, *words], cwd=at, env=empty, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture
def main(tmp_path: Path) -> Path:
    """A repository with a commit, and a project in its folder `sub`."""
    made = Path(os.path.realpath(tmp_path)) / "main"
    (made / "sub").mkdir(parents=True)
    (made / "sub/make.toml").write_text("[project]\n")
    (made / "other").write_text("1\n")
    git("init", "-q", at=made)
    git("add", ".", at=made)
    git("commit", "-qm", "one", at=made)
    git("remote", "add", "origin", "https://user:planted@example.org/x", at=made)
    git("config", "core.hooksPath", "/evil", at=made)
    git("config", "core.sshCommand", "/evil", at=made)
    git("config", "core.abbrev", "12", at=made)
    return made


@pytest.fixture
def tree(main: Path) -> Path:
    """A linked worktree of it."""
    git("worktree", "add", "-q", "../tree", at=main)
    return main.parent / "tree"


def shown(project: Path) -> list[str]:
    found = git_folder.find(str(project))
    assert found is not None
    return [os.path.relpath(path, project.parent) for path in found.shown]


def refused(project: Path) -> str:
    with pytest.raises(Unproven) as raised:
        git_folder.find(str(project))
    return str(raised.value.args[1])


def test_a_worktree_is_shown_its_own_folder_and_what_all_share(tree: Path):
    """No hooks, no logs, no other worktree, no configuration but a made one."""
    names = shown(tree)

    assert "main/.git/objects" in names
    assert "main/.git/worktrees/tree/HEAD" in names
    assert not [name for name in names if "hooks" in name or "logs" in name or "config" in name]


def test_the_made_configuration_has_neither_remotes_nor_programs(tree: Path, main: Path):
    """Settings that start nothing are kept."""
    found = git_folder.find(str(tree))

    assert found is not None
    text = found.texts[str(main / ".git/config")].decode()
    assert "abbrev = 12" in text
    assert not [word for word in ("planted", "evil", "origin", "remote") if word in text]


def test_a_project_that_has_its_git_folder_needs_nothing(main: Path):
    """It is in the workspace."""
    assert git_folder.find(str(main)) is None


def test_a_project_in_a_folder_of_its_repository_has_a_narrowed_index(main: Path):
    """Git does not miss the files that are not shown."""
    found = git_folder.find(str(main / "sub"))

    assert found is not None
    index = main.parent / "narrowed"
    index.write_bytes(found.texts[str(main / ".git/index")])
    listed = subprocess.run(
        ["git", "ls-files", "-t"],
        cwd=main,
        env={"PATH": os.environ["PATH"], "GIT_INDEX_FILE": str(index)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed.stdout.splitlines() == ["S other", "H sub/make.toml"]


@pytest.mark.parametrize("version", ["2", "4"])
def test_an_index_of_each_version_is_read_as_git_reads_it(main: Path, version: str):
    """Its paths are those of git."""
    git("update-index", "--index-version", version, at=main)

    assert git_index.paths((main / ".git/index").read_bytes()) == [b"other", b"sub/make.toml"]


def test_an_untracked_folder_in_somebodys_repository_sees_nothing_of_it(main: Path):
    """A stranger's project that was unpacked in a home folder under git is not its project."""
    (main / "stranger").mkdir()

    assert refused(main / "stranger") == "nothing of this project is tracked there"


@pytest.mark.parametrize("named", ["/etc", "../outside", "../main/.git"])
def test_a_git_file_that_names_a_folder_which_does_not_lead_back_gets_nothing(
    main: Path, named: str
):
    """A folder of the system, one of the user's, another repository of theirs."""
    project = main.parent / "hostile"
    for folder in (project, main.parent / "outside"):
        folder.mkdir()
    (project / ".git").write_text(f"gitdir: {named}\n")

    assert refused(project)


def test_a_copied_git_file_of_a_worktree_gets_nothing(tree: Path):
    """The worktree's folder leads back to the first one."""
    copied = tree.parent / "copied"
    copied.mkdir()
    shutil.copy(tree / ".git", copied / ".git")

    assert refused(copied) == "its worktree is another one"


def test_a_made_worktree_folder_cannot_name_another_repository(main: Path):
    """What is beside a hostile project may say that it shares the objects of any folder."""
    project, own = main.parent / "hostile", main.parent / "fake/worktrees/x"
    project.mkdir()
    own.mkdir(parents=True)
    (project / ".git").write_text(f"gitdir: {own}\n")
    (own / "gitdir").write_text(f"{project}/.git\n")
    (own / "HEAD").write_text("ref: refs/heads/main\n")
    (own / "commondir").write_text(f"{main}/.git\n")

    assert refused(project) == "it is no worktree of the folder that it names"


def test_names_that_are_links_are_not_shown(tree: Path, main: Path):
    """A link among them could lead anywhere; one in place of objects refuses the whole."""
    (main / ".git/packed-refs").symlink_to("/etc/passwd")
    assert "main/.git/packed-refs" not in shown(tree)

    (main / ".git/objects").rename(main / "objects")
    (main / ".git/objects").symlink_to("../objects")
    assert refused(tree) == "it is no git folder of the project's owner"


def test_a_link_is_followed_where_the_index_knows_the_files(main: Path):
    """The same link from a copy of the project leads nowhere."""
    moved = main.parent / "moved.git"
    (main / ".git").rename(moved)
    (main / ".git").symlink_to("../moved.git")
    copied = main.parent / "copied"
    shutil.copytree(main, copied, symlinks=True)

    assert "moved.git/objects" in shown(main)
    assert refused(copied) == "nothing in it says that this is its worktree"


def test_a_link_to_a_folder_of_another_worktree_proves_nothing(main: Path):
    """A hostile project shows the files of the victim's as its own, and gets no history of it."""
    project = main.parent / "hostile"
    project.mkdir()
    (project / ".git").write_text(f"gitdir: {main}/.git\n")
    (project / "sub").symlink_to("../main/sub")
    git("status", at=main)

    assert refused(project) == "nothing in it says that this is its worktree"


def test_a_second_name_of_a_file_of_another_worktree_proves_nothing(main: Path):
    """Also when git has looked at the file since it got that name."""
    project = main.parent / "hostile"
    project.mkdir()
    (project / ".git").symlink_to("../main/.git")
    (project / "other").hardlink_to(main / "other")
    os.utime(main / "other", (1e9, 1e9))  # git takes no time that is as new as its index
    git("status", at=main)

    assert refused(project) == "nothing in it says that this is its worktree"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes owners")
def test_another_users_git_folder_is_not_shown(tree: Path, main: Path):
    """Even where it leads back."""
    os.chown(main / ".git", 4242, 4242)

    assert refused(tree) == "it is no git folder of the project's owner"


@pytest.mark.parametrize("content", [b"", b"gitdir:", b"gitdir: a\0b", b"\xff" * 100, b"x" * 9999])
def test_what_is_no_git_file_leads_nowhere(tmp_path: Path, content: bytes):
    """No error, and nothing is shown."""
    (tmp_path / ".git").write_bytes(content)

    assert git_folder.find(os.path.realpath(tmp_path)) is None


def test_a_git_that_would_block_is_not_opened(tmp_path: Path):
    """A FIFO has no content."""
    os.mkfifo(tmp_path / ".git")

    assert git_folder.find(os.path.realpath(tmp_path)) is None


def index_of_version_4(entries: bytes, count: int) -> bytes:
    return struct.pack(">4sII", b"DIRC", 4, count) + entries


# one byte more than the path before
GROWING = bytes(60 + 2 + 1) + b"a\0"


@pytest.mark.timeout(10)
def test_an_index_whose_paths_grow_without_end_is_read_as_far_as_paths_go():
    """Five megabytes would stand for three gigabytes, and take memory for all of them."""
    index = index_of_version_4(GROWING * 80_000, 80_000)

    assert max(map(len, git_index.paths(index))) == 4096
    assert git_index.narrowed(index, b"a") == b""
    assert not git_index.has_inside(index, b"b")


@pytest.mark.timeout(10)
def test_an_index_that_stands_for_more_paths_than_any_is_read_in_part(
    monkeypatch: pytest.MonkeyPatch,
):
    """However short each of them is."""
    monkeypatch.setattr(git_index, "_PATHS_BYTES_MAX", 6)

    assert git_index.paths(index_of_version_4(GROWING * 9, 9)) == [b"a", b"aa", b"aaa"]


@pytest.mark.timeout(10)
@pytest.mark.parametrize("dropped", [b"\x01", b"\xff" * 2_000_000])
def test_an_index_that_drops_more_than_there_is_has_no_paths(dropped: bytes):
    """Neither less than nothing, nor a number of a million digits."""
    entry = bytes(60 + 2) + dropped + b"a\0"

    assert git_index.paths(index_of_version_4(entry, 1)) == []


@pytest.mark.timeout(10)
def test_a_configuration_with_a_long_row_of_spaces_is_read_at_once(main: Path):
    """A pattern took the square of its length: a megabyte held the engine up for hours."""
    with (main / ".git/config").open("a") as file:
        file.write("[core]\n\tabbrev = 9" + " " * 500_000 + "9\n")

    assert "abbrev = 9 " not in git_folder._settings((main / ".git/config").read_text())
