"""Which folders of programs a phase may see."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cleanroom.model.errors import ProjectError
from cleanroom.project.tools import is_private, visible_tools
from support.project_builder import HEAD, planned


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def tools(tmp_path: Path, *folders: Path, project: str = "project") -> list[str]:
    """What is visible, relative to the test's folder."""
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / project).mkdir(parents=True, exist_ok=True)
    caller = {"HOME": str(tmp_path / "home"), "PATH": ":".join(map(str, folders))}
    return [
        str(Path(found).relative_to(tmp_path))
        for found in visible_tools(caller, tmp_path / project)
    ]


def test_an_installation_is_shown_whole_and_a_mere_folder_alone(tmp_path: Path):
    """bin beside lib belongs to an installation; a bin among other things is only itself."""
    program(tmp_path / "opt/x/bin/x")
    (tmp_path / "opt/x/lib").mkdir()
    program(tmp_path / "things/bin/y")
    assert tools(tmp_path, tmp_path / "opt/x/bin", tmp_path / "things/bin") == [
        "opt/x",
        "things/bin",
    ]


def test_system_missing_and_relative_folders_are_left_out(tmp_path: Path):
    """What every environment has, what does not exist and what is not absolute needs no mount."""
    assert tools(tmp_path, Path("/usr/bin"), tmp_path / "nowhere", Path("bin"), Path("/bin")) == []


def test_cargo_shows_programs_and_toolchains_but_no_credentials(tmp_path: Path):
    """Of ~/.cargo only bin; the toolchains of rustup come with it."""
    home = tmp_path / "home"
    program(home / ".cargo/bin/cargo")
    (home / ".cargo/credentials.toml").write_text("secret")
    (home / ".rustup/toolchains").mkdir(parents=True)
    assert tools(tmp_path, home / ".cargo/bin") == ["home/.cargo/bin", "home/.rustup"]


def test_version_managers_are_shown_from_their_root(tmp_path: Path):
    """pyenv's shims and nvm's versions lead to the whole installation."""
    home = tmp_path / "home"
    program(home / ".pyenv/shims/python")
    program(home / ".nvm/versions/node/v22/bin/node")
    assert tools(tmp_path, home / ".pyenv/shims", home / ".nvm/versions/node/v22/bin") == [
        "home/.nvm",
        "home/.pyenv",
    ]


def test_links_in_local_bin_lead_to_tools_of_uv(tmp_path: Path):
    """A linked program, the environment it lies in and that one's interpreter are all there."""
    home = tmp_path / "home"
    program(home / ".local/share/uv/tools/ruff/bin/ruff")
    program(tmp_path / "python/3.12/bin/python3.12")
    (tmp_path / "python/3.12/lib").mkdir()
    (home / ".local/share/uv/tools/ruff/pyvenv.cfg").write_text(
        f"home = {tmp_path}/python/3.12/bin\n"
    )
    (home / ".local/bin").mkdir()
    (home / ".local/bin/ruff").symlink_to(home / ".local/share/uv/tools/ruff/bin/ruff")
    (home / ".local/share/uv/tools/ruff/bin/python").symlink_to(
        tmp_path / "python/3.12/bin/python3.12"
    )
    assert tools(tmp_path, home / ".local/bin") == [
        "home/.local/bin",
        "home/.local/share/uv/tools",
        "python/3.12",
    ]
    assert tools(tmp_path, home / ".local/share/uv/tools/ruff/bin") == [
        "home/.local/share/uv/tools",
        "python/3.12",
    ]


def test_the_projects_environment_brings_its_interpreter(tmp_path: Path):
    """.venv lies in the workspace; what it was made from is shown, through every link."""
    program(tmp_path / "real/py/bin/python3")
    (tmp_path / "real/py/lib/python3.12").mkdir(parents=True)
    (tmp_path / "real/py/lib/python3.12/os.py").write_text("")
    (tmp_path / "named").symlink_to(tmp_path / "real/py")
    (tmp_path / "project/.venv/bin").mkdir(parents=True)
    (tmp_path / "project/.venv/pyvenv.cfg").write_text(
        f"home = {tmp_path}/named/bin\nversion = 3\n"
    )
    (tmp_path / "project/.venv/bin/python").symlink_to(tmp_path / "named/bin/python3")
    assert tools(tmp_path) == ["named", "real/py"]


@pytest.mark.parametrize(
    "name", ["", ".ssh", ".config/composer/bin", ".cargo", ".aws/bin", ".local", ".local/share"]
)
def test_what_is_private_is_never_shown(tmp_path: Path, name: str):
    """The home folder, credential folders and folders that hold both are not mounted,
    even if PATH names them.
    """
    folder = tmp_path / "home" / name
    folder.mkdir(parents=True)
    assert tools(tmp_path, folder) == []
    assert is_private(str(folder), str(tmp_path / "home"))


def test_a_link_to_what_is_private_is_not_shown(tmp_path: Path):
    """Judged by where a folder really is."""
    (tmp_path / "home/.ssh").mkdir(parents=True)
    (tmp_path / "harmless").symlink_to(tmp_path / "home/.ssh")
    assert tools(tmp_path, tmp_path / "harmless") == []


def test_a_project_inside_a_tool_folder_and_the_reverse(tmp_path: Path):
    """Neither the folder around the project nor one within it is mounted over the workspace."""
    program(tmp_path / "around/bin/x")
    (tmp_path / "around/lib").mkdir()
    program(tmp_path / "around/project/bin/y")
    folders = (tmp_path / "around/bin", tmp_path / "around/project/bin")
    assert tools(tmp_path, *folders, project="around/project") == ["around/bin"]


def test_circles_of_links_end(tmp_path: Path):
    """Links that lead to themselves are followed no further."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/a").symlink_to(tmp_path / "bin/b")
    (tmp_path / "bin/b").symlink_to(tmp_path / "bin/a")
    assert tools(tmp_path, tmp_path / "bin") == ["bin"]


def test_tools_of_a_phase_exist_and_are_not_private(tmp_path: Path):
    """`cleanroom.tools` adds folders, relative to the project, and cannot name the home folder."""
    (tmp_path / "kit").mkdir()
    (tmp_path / "home/.ssh").mkdir(parents=True)
    caller = {"HOME": str(tmp_path / "home")}
    text = HEAD + '[lifecycle.test]\ncommand = "t"\ncleanroom.tools = ["kit"]\n'
    assert planned(tmp_path, text, "test", caller=caller).phases[0].tools == (
        str(tmp_path / "kit"),
    )
    with pytest.raises(ProjectError):
        planned(tmp_path, text.replace('"kit"', '"~/.ssh"'), "test", caller=caller)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into any folder")
def test_a_folder_that_the_caller_may_not_enter_shows_nothing(tmp_path: Path):
    """Such as that of an interpreter in somebody else's home, which a virtual environment names."""
    program(tmp_path / "theirs/bin/python3")
    environment = tmp_path / "project/.venv"
    program(environment / "bin/python")
    (environment / "pyvenv.cfg").write_text(f"home = {tmp_path}/theirs/bin\n")
    (tmp_path / "theirs").chmod(0)
    try:
        assert tools(tmp_path, environment / "bin") == []
    finally:
        (tmp_path / "theirs").chmod(0o700)


def test_uv_shows_its_interpreters_and_tools_but_no_credentials(tmp_path: Path):
    """Wherever uv itself is installed."""
    share = tmp_path / "home/.local/share/uv"
    for name in ("python/cpython-3.12/bin", "tools/ruff", "credentials"):
        (share / name).mkdir(parents=True)
    program(tmp_path / "things/bin/uv")
    assert tools(tmp_path, tmp_path / "things/bin") == [
        "home/.local/share/uv/python",
        "home/.local/share/uv/tools",
        "things/bin",
    ]
    for private in (share, share / "credentials"):
        assert is_private(str(private), str(tmp_path / "home"))


def test_a_program_from_a_package_of_npms_has_the_packages_around_it(tmp_path: Path):
    """Its link leads to a part of its package, which loads the rest and its dependencies."""
    package = tmp_path / "prefix/node_modules/@scope/tool"
    program(package / "bin/tool.js")
    program(package / "node_modules/inner/index.js")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/tool").symlink_to(package / "bin/tool.js")
    assert tools(tmp_path, tmp_path / "bin") == ["bin", "prefix/node_modules"]


def test_packages_that_the_project_links_to_are_not_shown(tmp_path: Path):
    """A link in the project brings an interpreter's installation and nothing else."""
    program(tmp_path / "elsewhere/node_modules/x/bin/x.js")
    (tmp_path / "project/node_modules/.bin").mkdir(parents=True)
    (tmp_path / "project/node_modules/.bin/x").symlink_to(
        tmp_path / "elsewhere/node_modules/x/bin/x.js"
    )
    assert tools(tmp_path, tmp_path / "project/node_modules/.bin") == []
