"""What a phase left behind harms nobody on the host's side; through the real command, with
namespaces and without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import NamedTuple

import pytest

from support.command_harness import Project
from support.paths import OLDER_KERNEL

NEEDS = pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux")
pytestmark = [pytest.mark.sandbox, NEEDS]

RUN_SECONDS = 100


class Way(NamedTuple):
    """How a run is held."""

    policy: str
    missing: str = ""  # as `older_kernel` takes it

    @property
    def spares_ignored(self) -> bool:
        """Whether additions to ignored paths come back from a phase that failed."""
        return self.policy == "Medium"

    def __str__(self) -> str:
        return f"{self.policy}-E3" if self.missing else self.policy


WAYS = (Way("Medium"), Way("High"), Way("Medium", "namespaces"))
each_way = pytest.mark.parametrize("way", WAYS, ids=str)


class Said(NamedTuple):
    code: int
    result: dict
    err: str


def run(project: Project, way: Way, *words: str) -> Said:
    argv = project.argv(*words, "--output", "json")
    if way.missing:
        argv = [sys.executable, str(OLDER_KERNEL), way.missing, "--", *argv]
    done = subprocess.run(
        argv,
        cwd=project.root,
        env=project.variables(),
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )
    assert done.stdout.startswith("{"), done.stderr
    return Said(done.returncode, json.loads(done.stdout), done.stderr)


def write(project: Project, way: Way, **phases: str) -> None:
    project.write(phases, policy=f'"{way.policy}"')


def git(project: Project, *words: str) -> None:
    nothing = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(("git", *words), cwd=project.root, env={**os.environ, **nothing}, check=True)


def with_packages(project: Project, count: int = 50) -> list[str]:
    """A repository that ignores its installed packages; what is in them."""
    git(project, "init", "-q", ".")
    (project.root / ".gitignore").write_text("node_modules/\n*.log\n/tmp-*\n")
    for number in range(count):
        file = project.root / f"node_modules/p{number % 5}/f{number}.js"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    return tree(project, "node_modules")


def tree(project: Project, folder: str) -> list[str]:
    found = (project.root / folder).rglob("*")
    return sorted(str(path.relative_to(project.root)) for path in found)


DELETING = {
    "removed": "rm -rf node_modules/p*",
    "made anew": "rm -rf node_modules && mkdir node_modules",
    "made anew inside": "for d in node_modules/*; do rm -rf $d; mkdir $d; done",
    "a file in its place": "rm -rf node_modules/p1 && echo x > node_modules/p1",
    "a link in its place": "rm -rf node_modules/p1 && ln -s p2 node_modules/p1",
    "a folder in a file's place": "rm node_modules/p1/f1.js; mkdir -p node_modules/p1/f1.js/x",
    "renamed away": "mv node_modules/p1 node_modules/q1",
    "renamed over": "mv node_modules/p1/f1.js node_modules/p1/f6.js",
}


@each_way
def test_a_failed_phase_costs_the_developer_no_file(project: Project, way: Way):
    """However a failed phase removes ignored files, each is there afterwards; what it added to
    them came."""
    before = with_packages(project)
    for what, command in DELETING.items():
        adding = "mkdir -p node_modules; echo new > node_modules/new.js; echo new > other"
        write(project, way, ci=f"{command}; {adding}; exit 1")
        said = run(project, way, "run", "ci")
        assert said.code == 1, said.err
        assert set(before) <= set(tree(project, "node_modules")), what
        assert (project.root / "node_modules/p1/f1.js").is_file(), what
        assert (project.root / "node_modules/p1").is_dir(), what
        assert not (project.root / "node_modules/p1").is_symlink(), what
        assert (project.root / "node_modules/new.js").exists() == way.spares_ignored, what
        assert not (project.root / "other").exists(), what
        assert said.result["brought_back"].get("deleted", 0) == 0


def test_a_failed_phase_that_broke_a_rule_brings_nothing_that_is_ignored(project: Project):
    """What is ignored stays away with the rest."""
    with_packages(project)
    attempt = "touch /usr/x; echo new > node_modules/new.js; exit 1"
    write(project, Way("Medium"), ci=attempt)
    said = run(project, Way("Medium"), "run", "ci")
    assert said.code == 1
    assert not (project.root / "node_modules/new.js").exists()


@each_way
def test_a_passed_phase_that_deletes_says_how_many_files_went(project: Project, way: Way):
    """A folder of fifty files is fifty files, in the line, the result and the page."""
    with_packages(project)
    write(project, way, clean="rm -rf node_modules && echo 123 > made")
    said = run(project, way, "run", "clean")
    assert said.code == 0, said.err
    assert said.result["brought_back"] == {"files": 1, "bytes": 4, "deleted": 50}
    assert "brought back 1 file, 4 B; deleted 50" in said.err
    assert "deleted 50" in (project.root / said.result["reports"]["html"]).read_text()
    assert not (project.root / "node_modules").exists()


def test_what_a_folder_replaced_is_said_to_have_gone(project: Project):
    """Also where a FIFO in the new folder stays away."""
    (project.root / "old").write_text("x")
    write(project, Way("Medium"), change="rm old && mkdir old && mkfifo old/fifo")
    said = run(project, Way("Medium"), "run", "change")
    assert said.code == 0, said.err
    assert said.result["brought_back"]["deleted"] == 1
    assert (project.root / "old").is_dir()


PROGRAMS = (".venv/bin", "node_modules/.bin")


@pytest.mark.parametrize("way", [*WAYS, Way("Low")], ids=str)
def test_no_program_that_a_phase_wrote_is_started_on_the_host(project: Project, way: Way):
    """A git of the phase's own on the caller's PATH, in a repository, is not what looks for
    ignored files."""
    with_packages(project)
    marker = project.home / "started"
    places = [project.root / place for place in PROGRAMS]
    project.caller["PATH"] = os.pathsep.join([*map(str, places), os.environ["PATH"]])
    script = f"#!/bin/sh\\ntouch {marker}\\n"
    made = "mkdir -p {0}; printf '{1}' > {0}/git; chmod 755 {0}/git"
    plant = "; ".join(made.format(place, script) for place in PROGRAMS)
    write(project, way, plant=plant, fail="echo new > a.log; exit 1")
    assert run(project, way, "run", "plant").code == 0
    assert all(os.access(place / "git", os.X_OK) for place in places)
    assert run(project, way, "run", "fail").code == 1
    assert (project.root / "a.log").exists() == (way.spares_ignored or way.policy == "Low")
    assert not marker.exists()


BARE = (
    "mkdir -p {0}objects/info {0}refs/heads {0}hooks && echo 'ref: refs/heads/main' > {0}HEAD && "
    "printf '[core]\\nrepositoryformatversion = 0\\nbare = true\\n' > {0}config && "
    "echo x > {0}refs/x && echo x > {0}objects/info/x && echo x > {0}hooks/pre-commit && "
    "echo y > {0}beside"
)


@each_way
@pytest.mark.parametrize("folder", ["", "vendor/mirror/"], ids=["top", "below"])
def test_what_git_would_take_for_a_repository_does_not_come_back(project, way, folder):
    """At the top and below, at once and in pieces over three phases; what lies beside it comes."""
    made = f"mkdir -p ./{folder} && " + BARE.format(folder)
    pieces = made.split(" && ")
    write(project, way, all=made, a=" && ".join(pieces[:3]), b=pieces[3], c=made)
    for phases in (["all"], ["a"], ["b"], ["c"]):
        said = run(project, way, "run", *phases)
        shape = [(project.root / folder / part).exists() for part in ("HEAD", "objects", "refs")]
        assert not all(shape), (phases, said.err)
    assert (project.root / folder / "beside").exists()
    assert "[CR-WORKSPACE-006]" in said.err


@each_way
def test_history_does_not_come_back_by_a_pattern(project: Project, way: Way):
    """Not from any depth, not where an output covers it, in no spelling, and a repository
    inside does not go either."""
    (project.root / "own/.git").mkdir(parents=True)
    (project.root / "own/.git/HEAD").write_text("ref: refs/heads/main")
    hooks = "mkdir -p $d/$g/hooks; echo x > $d/$g/hooks/x.sample"
    made = f"for d in . a a/b; do for g in .git .GIT git~1 .ggen; do {hooks}; done; done"
    for outputs in (None, ["."], ["*"], ["**"], ["*.sample"], ["a/"], ["a/b"]):
        settings = {} if outputs is None else {"outputs": json.dumps(outputs)}
        phases = {"t": f"{made}; rm -rf own; echo x > a/y"}
        project.write(phases, policy=f'"{way.policy}"', **settings)
        said = run(project, way, "run", "t")
        assert said.code == 0, said.err
        found = list(project.root.rglob("*.sample"))
        assert found == [], (outputs, found)
        assert (project.root / "own/.git/HEAD").exists()


DEPLOY = """[lifecycle.deploy]
command = "sh scripts/deploy.sh"
cleanroom.enabled = false
"""


@each_way
def test_make_toml_and_what_it_names_stay_as_they_are(project: Project, way: Way):
    """However a phase replaces them; and the run says what stayed."""
    (project.root / "scripts").mkdir()
    (project.root / "scripts/deploy.sh").write_text("exit 0\n")
    for attack in (
        "echo '# more' >> make.toml; echo touch /tmp/x >> scripts/deploy.sh",
        "rm make.toml; mkdir make.toml; echo x > make.toml/x; rm -r scripts; echo x > scripts",
        "ln -sf elsewhere make.toml; rm -r scripts; ln -s . scripts",
        "mv make.toml other; rm -r scripts; mkdir scripts",
    ):
        write(project, way, t=attack)
        project.add(DEPLOY)
        text = (project.root / "make.toml").read_text()
        said = run(project, way, "run", "t")
        assert said.code == 0, said.err
        assert (project.root / "make.toml").read_text() == text
        assert (project.root / "scripts/deploy.sh").read_text() == "exit 0\n"
        assert not (project.root / "scripts").is_symlink()
        assert "may not bring back" in said.err


@each_way
def test_what_starts_by_itself_is_listed_when_it_comes_back(project: Project, way: Way):
    """From a phase that passed: one line that names some and counts all, the result and the
    page; from one that failed: nothing."""
    with_packages(project)
    (project.root / ".gitignore").write_text("*\n")
    files = ".envrc conftest.py .husky/pre-commit .vscode/tasks.json bin/a bin/b bin/c plain"
    made = f"mkdir -p .husky .vscode bin; for f in {files}; do echo x > $f; done"
    write(project, way, fail=f"{made}; exit 1", ok=made)
    assert run(project, way, "run", "fail").code == 1
    assert (project.root / "plain").exists() == way.spares_ignored
    assert not (project.root / ".envrc").exists()
    assert not (project.root / "bin/a").exists()
    said = run(project, way, "run", "ok")
    assert said.code == 0, said.err
    assert said.result["brought_back"]["autorun"] == 7
    assert {row["path"]: row["by"] for row in said.result["autorun"]}[".envrc"] == "direnv"
    line = next(line for line in said.err.splitlines() if "[CR-WORKSPACE-005]" in line)
    assert ".envrc (direnv)" in line
    assert line.endswith("and 2 more [CR-WORKSPACE-005]")
    page = (project.root / said.result["reports"]["html"]).read_text()
    assert all(name in page for name in (".envrc", ".husky/pre-commit", "bin/c"))


@each_way
def test_an_ignore_file_of_the_phase_brings_nothing(project: Project, way: Way):
    """What a failed phase, or one before it in the run, calls ignored is not what the host
    ignores."""
    with_packages(project)
    files = "d/.gitignore .gitignore .git/info/exclude"
    own = f"mkdir -p d .git/info; for f in {files}; do echo '*' > $f; done"
    write(project, way, plant=own, fail=f"{own}; echo x > d/a; echo x > a; echo x > b.log; exit 1")
    before = tree(project, ".")
    came = {"b.log"} if way.spares_ignored else set()
    said = run(project, way, "run", "fail")
    assert said.code == 1
    now = {path for path in tree(project, ".") if not path.startswith(".ggen")}
    assert now - set(before) == came
    assert run(project, way, "pipeline", "plant", "fail").code == 1
    assert not (project.root / "d/a").exists()
    assert not (project.root / "a").exists()


@each_way
def test_a_commit_that_stays_away_is_said_and_a_look_is_not(project: Project, way: Way):
    """One word for a commit and a tag; none for a `git status` that writes the index anew."""
    named = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    alone = "export GIT_CONFIG_NOSYSTEM=1"
    made = " ".join(("git", *named, "commit -qm 2 --allow-empty && git tag t"))
    write(project, way, look=f"{alone}; touch file && git status", commit=f"{alone}; {made}")
    (project.root / "file").write_text("")
    git(project, "init", "-q")
    git(project, "add", "-A")
    git(project, *named, "commit", "-qm", "1")
    looked = run(project, way, "run", "look")
    assert (looked.code, "CR-WORKSPACE-006" in looked.err) == (0, False), looked.err
    committed = run(project, way, "run", "commit")
    assert committed.code == 0, committed.err
    (line,) = [line for line in committed.err.splitlines() if "CR-WORKSPACE-006" in line]
    assert ".git (objects, refs changed" in line
    assert not (project.root / ".git/refs/tags/t").exists()


BEHIND = {
    "made": "mkdir cfg && ln -s cfg .cargo && ln -s cfg .vscode && echo x > cfg/config.toml",
    "changed": "echo y >> cfg/config.toml",
    "again": "mkdir -p a && ln -sfn ../cfg a/.cargo && ln -sfn a/.cargo b && ln -sfn b .husky",
}


@each_way
def test_what_starts_through_a_link_is_listed(project: Project, way: Way):
    """The run that makes the link lists it and what lies behind; a later one what it changes
    there; one that links what an earlier one made lists the link."""
    write(project, way, **BEHIND)
    said = {name: run(project, way, "run", name) for name in BEHIND}
    listed = {
        name: {row["path"]: row["by"] for row in each.result["autorun"]}
        for name, each in said.items()
    }
    assert listed["made"].keys() == {".cargo", ".vscode", "cfg/config.toml"}
    assert " through ." in listed["made"]["cfg/config.toml"]
    assert listed["changed"].keys() == {"cfg/config.toml"}
    assert listed["again"].keys() == {"a/.cargo", ".husky"}


@each_way
def test_a_failed_phase_writes_nothing_that_starts_through_a_link(project: Project, way: Way):
    """Ignored additions of a phase that failed come back but for what the host's tools start,
    by whatever name."""
    with_packages(project)
    (project.root / ".gitignore").write_text("*\n")
    (project.root / "cfg").mkdir()
    (project.root / ".vscode").symlink_to("cfg")
    write(
        project,
        way,
        fail="echo x > cfg/tasks.json; ln -s in .cargo; mkdir in; echo x > in/y; exit 1",
    )
    assert run(project, way, "run", "fail").code == 1
    assert not (project.root / "cfg/tasks.json").exists()
    assert not (project.root / ".cargo").is_symlink()
    assert (project.root / "in/y").exists() == way.spares_ignored


@each_way
def test_rights_to_write_that_others_get_are_named(project: Project, way: Way):
    """Of a file and of a folder that were there, by whatever way, and of new ones that anybody
    may write; what its owner alone may write is no news."""
    for name in ("file", "replaced", "closed", "taken"):
        (project.root / name).write_text("x")
        (project.root / name).chmod(0o600 if name == "closed" else 0o644)
    for name in ("folder", "shared"):
        (project.root / name).mkdir()
        (project.root / name).chmod(0o777 if name == "shared" else 0o755)
    widened = "chmod 777 folder; chmod g+w file; cp file n; mv n replaced; chmod 666 replaced"
    others = (
        "chmod 644 closed; chmod 600 taken; touch shared/x new; mkdir -m 777 wide; chmod 755 shared"
    )
    write(project, way, t=f"{widened}; {others}", plain="echo y >> file; touch folder/new")
    said = run(project, way, "run", "t")
    assert said.code == 0, said.err
    (line,) = [line for line in said.err.splitlines() if "[CR-WORKSPACE-008]" in line]
    named = line.partition("written by others: ")[2].partition(" [CR")[0]
    assert sorted(named.split(", ")) == ["file", "folder", "replaced", "wide"]
    assert "[CR-WORKSPACE-008]" not in run(project, way, "run", "plain").err


@each_way
def test_names_that_a_phase_made_stay_on_the_line_that_names_them(project: Project, way: Way):
    """Neither a line end nor a terminal sequence in a name changes what is read: no line of the
    phase's own (`::error::` is a command to GitHub), no name that is not there."""
    made = ("x\n::error::forged", "\x1b[31mMakefile")
    program = f"import os; [os.mkfifo(n) for n in {made!r}]"
    (project.root / "make.py").write_text(program)
    write(project, way, t="python3 make.py")
    said = run(project, way, "run", "t")
    (line,) = [line for line in said.err.splitlines() if "[CR-WORKSPACE-002]" in line]
    assert "x\\x0a::error::forged" in line
    assert "\\x1b[31mMakefile" in line


@each_way
def test_words_of_a_process_left_running_stay_on_the_line_that_names_it(project: Project, way: Way):
    """Its arguments come from inside: a line end in them begins no line of ours."""
    program = (
        "import os\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    os.execv('/bin/sh', ['x\\n::error::a', '-c', 'sleep 9; :', '\\n::error::b'])\n"
    )
    (project.root / "leave.py").write_text(program)
    write(project, way, t="python3 leave.py")
    said = run(project, way, "run", "t").err.splitlines()
    assert [line for line in said if "[CR-PHASE-007]" in line]
    assert not [line for line in said if line.strip().startswith("::error::")]


@each_way
def test_a_dry_run_changes_nothing_and_says_what_it_would(project: Project, way: Way):
    """All phases run, the project and its state stay as they are, and the changes are listed."""
    project.write({"build": "mkdir dist && echo x > dist/out", "test": "test -s dist/out"})
    before = sorted(path.name for path in project.root.iterdir())
    done = run(project, way, "pipeline", "build", "test", "--dry-run", "--policy", way.policy)

    assert done.code == 0, done.err
    assert [phase["result"] for phase in done.result["phases"]] == ["passed", "passed"]
    assert sorted(path.name for path in project.root.iterdir()) == sorted({*before, ".ggen"})
    assert not (project.root / ".ggen" / "state.json").exists()
    assert done.result["dry_run"]
    assert [(row["kind"], row["path"]) for row in done.result["would_change"]] == [
        ("directory", "dist"),
        ("file", "dist/out"),
    ]


def test_a_dry_run_is_refused_where_a_phase_writes_in_place(project: Project):
    """Of a phase on the host or at Low nothing could be held back: it does not run."""
    for setting in ({"policy": '"Low"'}, {"enabled": "false"}):
        project.write({"build": "touch built"}, **setting)
        done = subprocess.run(
            project.argv("run", "build", "--dry-run"),
            cwd=project.root,
            env=project.variables(),
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
        )
        assert done.returncode == 3
        assert "error[CR-POLICY-006]: make.toml:4:1: " in done.stderr
        assert not (project.root / "built").exists()
