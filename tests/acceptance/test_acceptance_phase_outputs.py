"""What phases make is what the project has afterwards; through the real command, with namespaces
and without."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.command_harness import Project
from support.paths import OLDER_KERNEL

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]
RUN_SECONDS = 100
each_way = pytest.mark.parametrize("missing", ["", "namespaces"], ids=["overlay", "copy"])
each_level = pytest.mark.parametrize(
    ("missing", "policy"),
    [("", "Medium"), ("", "High"), ("namespaces", "Medium")],
    ids=["Medium", "High", "Medium-E3"],
)

# What one phase makes in a folder `o`, and how a later one of the run builds it again.
MAKES = "mkdir -p o/in/deep && echo 1 > o/f && echo 1 > o/in/g && echo 1 > o/in/deep/h"
REBUILDS = {
    "remove and make": "rm -rf o && mkdir o && echo 2 > o/new",
    "remove and make, deeper": "rm -rf o && mkdir -p o/in/deep && echo 2 > o/in/deep/h",
    "remove and make the same": f"rm -rf o && {MAKES}",
    "remove": "rm -rf o",
    "remove what is in it": "rm -rf o/*",
    "remove a folder in it": "rm -rf o/in",
    "write": "echo 2 > o/f && echo 2 > o/in/g",
    "append": "echo 2 >> o/f && echo 2 >> o/in/deep/h",
    "rename over": "echo 2 > o/f.new && mv o/f.new o/f",
    "rename over, deeper": "echo 2 > o/x && mv o/x o/in/g",
    "touch then remove": "touch o/f o/in/g && rm -r o",
    "touch": "touch o/f o/in",
    "chmod": "chmod 600 o/f && chmod 700 o/in",
    "chmod then remove": "chmod 700 o o/in && rm -r o",
    "a file in a folder's place": "rm -r o/in && echo 2 > o/in",
    "a folder in a file's place": "rm o/f && mkdir o/f && echo 2 > o/f/new",
    "a link in a folder's place": "rm -r o/in && ln -s f o/in",
    "copy and swap": "cp -r o n && echo 2 > n/f && rm -r o && mv n o",
    "link": "ln o/f o/twin && ln o/in/g o/in/twin",
    "link then replace": "ln -f o/f o/in/g && echo 2 > o/x && mv o/x o/f",
    "read-only": "chmod 444 o/f && chmod 555 o/in/deep o/in",
}
CLEARS = "(chmod -R u+w o/in; rm -r o/in) 2> /dev/null || true"
THIRD = f"for d in */; do (cd $d && test ! -d o || {CLEARS}); done"


class Said(NamedTuple):
    code: int
    result: dict[str, Any]
    err: str


def run(project: Project, missing: str, *words: str) -> Said:
    argv = project.argv(*words, "--output", "json")
    if missing:
        argv = [sys.executable, str(OLDER_KERNEL), missing, "--", *argv]
    done = subprocess.run(
        argv,
        cwd=project.root,
        env=project.variables(),
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.stdout.startswith("{"), done.stderr
    return Said(done.returncode, json.loads(done.stdout), done.stderr)


def found(root: Path) -> dict[str, tuple[object, ...]]:
    """Each path with its type and mode, and a file's text and number of names."""
    rows: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        inside, info = str(path.relative_to(root)), path.lstat()
        if inside.split("/")[0] in (".ggen", "make.toml"):
            continue
        if path.is_symlink():
            rows[inside] = ("link", os.readlink(path))
        elif path.is_dir():
            rows[inside] = (oct(info.st_mode),)
        else:
            rows[inside] = (oct(info.st_mode), path.read_text(), info.st_nlink)
    return rows


def each_in_its_folder(texts: dict[str, str]) -> str:
    """All of them, one beside the other."""
    places = {name: f"d{number}" for number, name in enumerate(REBUILDS)}
    parts = [f"mkdir -p {places[name]} && (cd {places[name]} && {texts[name]})" for name in texts]
    return "set -e; " + "; ".join(parts)


@each_level
def test_a_run_does_not_conflict_with_itself(
    project: Project, missing: str, policy: str, tmp_path: Path
):
    """However a phase builds again, changes or removes what an earlier one of the run made: it
    passes, and the project has what the same commands leave without a run."""
    phases = {
        "build": each_in_its_folder(dict.fromkeys(REBUILDS, MAKES)),
        "again": each_in_its_folder(REBUILDS),
        "third": THIRD,
    }
    (tmp_path / "plain").mkdir()
    for text in phases.values():
        plain = ["sh", "-c", f"umask 022; {text}"]
        subprocess.run(plain, cwd=tmp_path / "plain", check=True, capture_output=True)
    commands = {name: f"umask 022; {text}" for name, text in phases.items()}
    project.write(commands, policy=json.dumps(policy))

    said = run(project, missing, "pipeline", "build", "again", "third")

    assert (said.code, said.result["brought_back"].get("conflicts", 0)) == (0, 0), said.err
    assert "not brought back" not in said.err
    assert found(project.root) == found(tmp_path / "plain")


@each_way
def test_a_virtual_environment_comes_back_with_its_interpreter(project: Project, missing: str):
    """Its link leads to a tool of the caller's, which phases are shown: the next run uses it."""
    tool = project.home / "tools/python-9/bin"
    tool.mkdir(parents=True)
    (tool / "python9").write_text("#!/bin/sh\necho it is nine\n")
    (tool / "python9").chmod(0o755)
    for folder in (project.home, *project.home.rglob("*")):
        folder.chmod(0o755)
    project.caller["PATH"] = f"{tool}:{os.environ['PATH']}"
    inside = shlex.quote(str(tool / "python9"))
    setup = f"mkdir -p .venv/bin && ln -s {inside} .venv/bin/python"
    project.write({"setup": setup, "test": ".venv/bin/python -c pass"})

    made = run(project, missing, "pipeline", "setup")
    used = run(project, missing, "pipeline", "test")

    assert (made.code, used.code) == (0, 0), made.err + used.err
    assert os.readlink(project.root / ".venv/bin/python") == str(tool / "python9")


@each_way
def test_a_link_that_does_not_come_back_is_said(project: Project, missing: str):
    """The run passes, as its commands did, and names the link and where it leads."""
    links = "ln -s /etc/passwd out; ln -s a/b via; ln -s via/../../x up"
    project.write({"test": f"mkdir -p a/b; {links}"})

    said = run(project, missing, "pipeline", "test")

    assert said.code == 0, said.err
    assert "out (a link that leads out, to /etc/passwd)" in said.err
    assert "up (a link that goes up again after it went down, via/../../x)" in said.err
    assert not (project.root / "out").is_symlink()
    assert not (project.root / "up").is_symlink()
    assert (project.root / "via").is_symlink()


def test_a_name_that_parts_from_its_file_is_said(project: Project):
    """CR-WORKSPACE-007: a phase wrote to both names, and one of them is declared."""
    (project.root / "first").write_text("1\n")
    os.link(project.root / "first", project.root / "second")
    project.write({"test": "echo 2 >> first && cmp first second"}, outputs='["first"]')

    said = run(project, "", "pipeline", "test")

    assert "CR-WORKSPACE-007" in said.err
    assert "first (of second)" in said.err
    assert (project.root / "second").read_text() == "1\n"


@pytest.mark.parametrize(
    ("status", "command", "settings", "told"),
    [
        (1, "cp first x; mv x first", {}, "in this run: first (of second)"),
        (1, "echo 2 >> first", {}, ""),
        (0, "echo 2 >> first", {"outputs": '["other"]'}, ""),
    ],
)
def test_a_parted_name_that_did_not_come_back_is_said_where_it_may_be_why(
    project: Project,
    status: int,
    command: str,
    settings: dict[str, str],
    told: str,
):
    """Of a failed phase as what its commands saw, of one with other outputs not at all.

    The host's names are still one file.
    """
    (project.root / "first").write_text("1\n")
    os.link(project.root / "first", project.root / "second")
    project.write({"test": f"{command}; exit {status}"}, **settings)

    said = run(project, "", "run", "test")

    assert ("CR-WORKSPACE-007" in said.err, told in said.err) == (bool(told), True)
    assert os.path.samefile(project.root / "first", project.root / "second")


def test_without_an_overlay_names_of_one_file_stay_so(project: Project):
    """A copy keeps them together, inside and when they come back."""
    (project.root / "first").write_text("1\n")
    os.link(project.root / "first", project.root / "second")
    project.write({"test": "echo 2 >> first && cmp first second"})

    said = run(project, "namespaces", "pipeline", "test")

    assert said.code == 0, said.err
    assert os.path.samefile(project.root / "first", project.root / "second")
    assert (project.root / "second").read_text() == "1\n2\n"


@each_way
def test_a_phase_on_the_host_is_nobody_else(project: Project, missing: str):
    """What it wrote between two others the second of them may write as well."""
    project.write({"one": "echo 1 > file", "host": "echo 2 > file", "two": "echo 3 > file"})
    make = project.root / "make.toml"
    table = "[lifecycle.host]\n"
    make.write_text(make.read_text().replace(table, f"{table}cleanroom.enabled = false\n"))

    said = run(project, missing, "pipeline", "one", "host", "two")

    assert said.code == 0, said.err
    assert (project.root / "file").read_text() == "3\n"


def folders_of_files(root: Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir()
        for number in range(400):
            (root / name / str(number)).touch()


# Orphans end meanwhile, which are children of the environment's first process by then.
RENAMES_BESIDE_ORPHANS = """
import os
if not os.fork():
    while True:
        if not os.fork():
            os.fork()
            os._exit(0)
        os.wait()
os.rename("a", "moved")
"""

# Another process is not ready when the phase is, and a second one waits for it.
RENAMES_AND_ENDS = """
import os, time
if not os.fork():
    os.rename("a", "moved")
    os._exit(0)
while not any(name.startswith(".cleanroom") for name in os.listdir(".")):
    pass
if not os.fork():
    os.rename("b", "other")
    os._exit(0)
time.sleep(0.05)
"""


@pytest.mark.slow
def test_a_folder_is_renamed_while_other_processes_end(project: Project):
    """Their ends disturb nothing of what is done ahead of the rename."""
    folders_of_files(project.root, "a")
    (project.root / "renames.py").write_text(RENAMES_BESIDE_ORPHANS)
    project.write({"test": "python3 renames.py"})

    said = run(project, "", "pipeline", "test")

    assert said.code == 0, said.err
    assert len(list((project.root / "moved").iterdir())) == 400


@pytest.mark.slow
def test_a_folder_that_is_renamed_as_the_phase_ends_comes_back_whole(project: Project):
    """Under one name or the other, and nothing of the way between."""
    folders_of_files(project.root, "a", "b")
    (project.root / "renames.py").write_text(RENAMES_AND_ENDS)
    project.write({"test": "python3 renames.py"})

    said = run(project, "", "pipeline", "test")

    assert said.code == 0, said.err
    counts = {path.name: len(os.listdir(path)) for path in project.root.iterdir() if path.is_dir()}
    counts.pop(".ggen")
    first = "a" if "a" in counts else "moved"
    second = "b" if "b" in counts else "other"
    assert counts == {first: 400, second: 400}
