"""The files of a project that decide what runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from cleanroom.project import load
from cleanroom.project.named_files import programs


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("./scripts/test.sh -x", ["./scripts/test.sh"]),
        ("python3 -u tools/run.py --a b", ["tools/run.py"]),
        ("go build -o bin/app && ./bin/app | tee log", ["./bin/app"]),
        ("cd sub && sh run.sh; . ./env.sh", ["sub/run.sh", "sub/./env.sh"]),
        ("A=1 exec env B=2 tools/x", ["tools/x"]),
        ("bash -c 'a/x y; sh z'", ["a/x", "z"]),
        ("uv run python t.py", ["t.py"]),
        ("if [ -x a ]; then a/b; fi", ["a/b"]),
        ("pytest tests/a.py > out.txt", []),
        ("ruff format src/a.py; sed -i s/a/b/ version.txt", []),
        ("sh 'unclosed", []),
    ],
)
def test_what_is_run_is_named_and_what_it_works_on_is_not(command: str, named: list[str]):
    """A word counts where a program's file or an interpreter's script stands."""
    assert list(programs(command)) == named


FILE = """
[project]
name = "named"
[lifecycle.test]
command = "true"
[lifecycle.deploy]
command = "sh scripts/deploy.sh"
cleanroom.enabled = false
[lifecycle.seed]
command = "true"
cleanroom.command = "tools/seed"
[cleanroom.services.mail]
command = ["./maild", "--port", "1025"]
ready = { tcp = 1025 }
[cleanroom.services.postgres]
init = ["sql/a.sql"]
[workspace.api]
path = "api"
"""


def test_every_phase_and_service_of_the_file_counts(tmp_path: Path):
    """Also those that this run did not ask for; words outside the project do not."""
    (tmp_path / "make.toml").write_text(FILE)
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql/a.sql").write_text("")
    (tmp_path / "api").mkdir()
    own = '[lifecycle.test]\ncommand = "bin/own; /bin/true; ../../x"\n'
    (tmp_path / "api/make.toml").write_text(own)
    plan = load(tmp_path, ["test"], caller={}, floor=tmp_path / "none")
    assert plan.files == (str(tmp_path / "make.toml"), str(tmp_path / "api/make.toml"))
    assert str(tmp_path / "api/bin/own") in plan.named
    single = load(tmp_path, ["test"], caller={}, floor=tmp_path / "none", single=True)
    named = {str(Path(path).relative_to(tmp_path)) for path in single.named}
    assert named == {"scripts/deploy.sh", "tools/seed", "maild", "sql/a.sql"}
