"""pip's requirement files, pyproject.toml, and the report of its resolver."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.dependencies.discovery import ProjectFolder, opened
from cleanroom.dependencies.model import Found
from cleanroom.dependencies.pip import Pip, _groups, _reported
from cleanroom.dependencies.requirements import read_project, read_requirements
from cleanroom.dependencies.settings import Settings
from cleanroom.model.errors import DependencyRejected, ProjectError

HEX = "0" * 64
LOCKED = f"a==1 \\\n    --hash=sha256:{HEX} \\\n    --hash=sha256:{'1' * 64}\n"


def manager(tmp_path: Path, **variables: str) -> Pip:
    return Pip(Settings(variables, tmp_path))


def find(root: Path, own: Pip) -> Found | None:
    with opened(root) as held:
        return own.find(ProjectFolder(held, ""))


def test_names_digests_hosts_and_other_files_are_read():
    """Continued lines, comments, markers and extras are as pip has them."""
    text = (
        "# a comment\n-r base.txt\n-c ../constraints.txt\n--index-url https://i.example/simple\n"
        "-e .\n./local\ngit+https://h.example/g.git@1\n"
        'B.b[x]>=2 ; python_version > "3" # why\n' + LOCKED
    )
    found = read_requirements(text)
    assert found.nested == ("base.txt", "../constraints.txt")
    assert found.indexes == ("https://i.example/simple",)
    assert found.names == ("b-b", "a")
    assert found.unpinned == ("b-b",)
    assert found.repositories == ("git+https://h.example/g.git@1",)
    assert found.digests == {"a": {f"sha256:{HEX}", f"sha256:{'1' * 64}"}}
    assert "-e ." not in found.kept
    assert "git+" not in found.kept


@given(st.text())
def test_any_text_is_read(text: str):
    """It comes with the project, and pip is who judges it."""
    read_requirements(text)


def test_a_project_names_extras_groups_and_what_its_back_end_asks_for():
    """A group that includes itself ends; an extra that names the project adds nothing."""
    needs = read_project(
        '[build-system]\nrequires = ["hatchling"]\n[project]\nname = "P_p"\n'
        'dependencies = ["a"]\n[project.optional-dependencies]\nall = ["p-p[x]"]\nx = ["b"]\n'
        '[dependency-groups]\ndev = ["c", {include-group = "dev"}, {include-group = "t"}]\n'
        't = ["d"]\n'
    )
    assert needs is not None
    assert needs.build == ("hatchling", "editables")
    assert needs.optional == {"x": ("b",), "group dev": ("c", "d"), "group t": ("d",)}


@pytest.mark.parametrize("text", ["", "[tool.x]\na = 1\n"])
def test_a_pyproject_that_only_configures_tools_names_nothing(text: str):
    """Nothing is installed from it."""
    assert read_project(text) is None


def test_files_that_others_name_come_with_them_and_are_no_groups_of_their_own(tmp_path: Path):
    """pip reads them where the first one says."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/base.txt").write_text("a\n")
    (tmp_path / "requirements/dev.txt").write_text("-r base.txt\n-c ../limits.txt\nb\n")
    (tmp_path / "limits.txt").write_text("a<2\n")
    found = find(tmp_path, manager(tmp_path))
    assert found is not None
    assert set(found.files) == {"requirements/base.txt", "requirements/dev.txt", "limits.txt"}
    assert [group.title for group in _groups(found)] == ["requirements/dev.txt"]


def test_with_a_lock_of_uvs_only_the_back_end_is_pips(tmp_path: Path):
    """The lock names the rest, and uv's manager fetches it."""
    (tmp_path / "uv.lock").touch()
    project = '[project]\nname = "p"\ndependencies = ["a"]\n'
    (tmp_path / "pyproject.toml").write_text(project)
    found = find(tmp_path, manager(tmp_path))
    assert found is not None
    assert [group.title for group in _groups(found)] == ["pyproject.toml: build-system.requires"]


def test_a_project_file_that_is_no_toml_is_an_error_at_the_file(tmp_path: Path):
    """CR-FETCH-006."""
    found = Found("pip", "", {"pyproject.toml": b"x ="})
    with pytest.raises(ProjectError) as refused:
        manager(tmp_path).read(found)
    assert refused.value.code == "CR-FETCH-006"


def report(url: str, digest: str = HEX) -> bytes:
    entry = {
        "metadata": {"name": "A", "version": "1"},
        "download_info": {"url": url, "archive_info": {"hashes": {"sha256": digest}}},
    }
    return json.dumps({"install": [entry]}).encode()


def group(text: str = LOCKED):
    (found,) = _groups(Found("pip", "", {"requirements.txt": text.encode()}))
    return found


def test_a_file_of_the_report_has_no_login_in_its_address():
    """The caller's credentials are in no record."""
    (one,) = _reported(report("https://me:secret@i.example/A-1-py3-none-any.whl#x"), group())
    assert (one.url, one.file) == (
        "https://i.example/A-1-py3-none-any.whl",
        "A-1-py3-none-any.whl",
    )
    assert (one.digest, one.purl) == (f"sha256:{HEX}", "pkg:pypi/a@1")


@pytest.mark.parametrize(
    "content",
    [
        report("https://i.example/A-1-py3-none-any.whl", "2" * 64),
        report("https://i.example/A-1-py3-none-any.exe"),
        report("https://i.example/..%2fA.whl", "3" * 64),
    ],
)
def test_what_the_files_do_not_allow_is_rejected(content: bytes):
    """An index that names another digest, or a file that is no package."""
    with pytest.raises(DependencyRejected):
        list(_reported(content, group()))


def test_the_callers_indexes_are_used_with_their_logins_for_their_hosts_only(tmp_path: Path):
    """From the variable, else from pip.conf."""
    (tmp_path / ".pip").mkdir()
    (tmp_path / ".pip/pip.conf").write_text(
        "[global]\nextra-index-url = https://u:p%40@i.example/simple\n"
    )
    own = manager(tmp_path)
    assert own.named_hosts() == {"i.example:443"}
    assert own.credentials("https://i.example/a.whl") == {"Authorization": "Basic dTpwQA=="}
    assert own.credentials("https://files.example/a.whl") == {}
    other = manager(tmp_path, PIP_INDEX_URL="https://j.example/simple")
    assert "j.example:443" in other.named_hosts()
