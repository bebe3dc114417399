"""The composite action: its steps, run as GitHub's runner runs them, in a made-up workspace."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from support.paths import ROOT


def read_action() -> dict[str, Any]:
    import yaml

    found: dict[str, Any] = yaml.safe_load((ROOT / "ci" / "action.yml").read_text())
    return found


ACTION = read_action()
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
_EXPRESSION = re.compile(r"\$\{\{\s*([\w.-]+)\s*\}\}")
MAKE_TOML = """
[project]
name = "small"
[lifecycle.build]
command = "echo built > made"
[lifecycle.test]
command = "test -f made && echo '::error::forged'"
[lifecycle.broken]
command = "exit 3"
"""


class Runner:
    """A job on GitHub's runner, as far as the action sees it."""

    def __init__(self, folder: Path) -> None:
        self.workspace = folder / "work space"
        self.workspace.mkdir()
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self.action = ROOT / "ci"
        self.outputs: dict[str, dict[str, str]] = {}
        self.summary = folder / "summary.md"
        self._files = folder

    def project(self, make_toml: str = MAKE_TOML, root: str = ".") -> Path:
        folder = self.workspace / root
        folder.mkdir(exist_ok=True)
        (folder / "make.toml").write_text(make_toml)
        return folder

    def use_this_engine(self) -> None:
        """What `install.sh` would make."""
        programs = self.temporary / "cleanroom-engine" / "bin"
        programs.mkdir(parents=True)
        for name in ("cleanroom-engine", "python"):
            (programs / name).symlink_to(Path(sys.executable).parent / name)

    def step(self, name: str, inputs: Mapping[str, str], **further: str) -> Any:
        """Run a step with these inputs, the others at their defaults."""
        step = next(step for step in STEPS if name in step["run"])
        defaults = {key: one.get("default", "") for key, one in ACTION["inputs"].items()}
        values = {f"inputs.{key}": value for key, value in {**defaults, **inputs}.items()}
        for identity, outputs in self.outputs.items():
            values |= {f"steps.{identity}.outputs.{key}": value for key, value in outputs.items()}
        script, output = self._files / "step.sh", self._files / "output"
        script.write_text(step["run"])
        output.write_text("")
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._files),
            "RUNNER_TEMP": str(self.temporary),
            "GITHUB_ACTION_PATH": str(self.action),
            "GITHUB_WORKSPACE": str(self.workspace),
            "GITHUB_OUTPUT": str(output),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_ACTIONS": "true",
            "CI": "true",
            **{
                key: _EXPRESSION.sub(lambda found: values.get(found[1], ""), value)
                for key, value in step["env"].items()
            },
            **further,
        }
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", script],
            cwd=self.workspace,
            env=environ,
            capture_output=True,
            text=True,
            timeout=300,
        )
        pairs = (line.partition("=") for line in output.read_text().splitlines())
        self.outputs[step.get("id", name)] = {key: value for key, _, value in pairs}
        return done


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def test_no_step_uses_an_action_of_others_and_no_text_of_an_input_is_code() -> None:
    """Inputs reach the shell by variables only, and what is used is declared."""
    for step in STEPS:
        assert "uses" not in step
        assert step["shell"] == "bash"
        assert "${{" not in step["run"]
    written = (ROOT / "ci" / "action.yml").read_text()
    used = set(re.findall(r"inputs\.([\w-]+)", written))
    assert used == set(ACTION["inputs"])
    known = {step["id"] for step in STEPS if "id" in step}
    assert set(re.findall(r"steps\.([\w-]+)\.", written)) == known


def test_every_variable_of_a_step_is_read_by_its_script() -> None:
    """None is left over from an input that is gone."""
    texts = {path.name: path.read_text() for path in (ROOT / "ci").iterdir() if path.is_file()}
    for step in STEPS:
        script = next(text for name, text in texts.items() if name in step["run"])
        for variable in step["env"]:
            assert variable in script or variable == "CLEANROOM_CACHE"


@pytest.mark.sandbox
@pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux")
def test_phases_run_and_the_reports_are_outputs(runner: Runner) -> None:
    """In a folder below the workspace, with a summary, and nothing that a phase prints obeyed."""
    folder = runner.project(root="sub folder")
    runner.use_this_engine()
    done = runner.step("run.sh", {"phases": "build\n  test", "root": "sub folder"})

    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "made").read_text() == "built\n"
    outputs = runner.outputs["run"]
    assert (outputs["outcome"], outputs["exit-code"]) == ("passed", "0")
    for kind in ("junit", "sarif"):
        assert (runner.workspace / outputs[kind]).is_file()
    assert "PASSED" in runner.summary.read_text()
    lines = done.stdout.splitlines()
    stopped = next(n for n, line in enumerate(lines) if line.startswith("::stop-commands::"))
    assert all(stopped < n for n, line in enumerate(lines) if "forged" in line)


@pytest.mark.sandbox
@pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux")
def test_a_failed_phase_fails_the_step_and_has_reports(runner: Runner) -> None:
    """The exit status is the engine's; a run that never began leaves no earlier one's reports."""
    runner.project()
    runner.use_this_engine()
    assert runner.step("run.sh", {"phases": "broken"}).returncode == 1
    assert runner.outputs["run"]["outcome"] == "failed"
    assert runner.step("run.sh", {"phases": "nowhere"}).returncode == 2
    assert runner.outputs["run"] == {"exit-code": "2"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("phases", "test;touch$IFS../gone"),
        ("phases", "$(touch ../gone)"),
        ("phases", "`touch ../gone` --keep=always"),
        ("phases", "--backend memory"),
        ("policy", "Medium --allow-degraded=network"),
        ("policy", "$(touch ../gone)"),
        ("root", "--help"),
        ("root", "no\nwhere"),
    ],
)
def test_an_input_is_one_argument_and_never_a_command(
    runner: Runner, name: str, value: str
) -> None:
    """Whatever a pull request puts into it: refused as usage, and nothing done."""
    runner.project()
    runner.use_this_engine()
    done = runner.step("run.sh", {"phases": "test", name: value})

    assert done.returncode == 2, done.stdout + done.stderr
    assert not (runner.workspace.parent / "gone").exists()
    assert set(runner.outputs["run"]) <= {"exit-code"}


@pytest.mark.parametrize(
    ("name", "value"), [("extras", "a] evil[b"), ("extras", "$(id)"), ("cache", "a\nb=c")]
)
def test_what_cannot_be_installed_is_refused_before_anything_is(
    runner: Runner, name: str, value: str
) -> None:
    """An input that pip or the output file would read as more than one thing."""
    assert runner.step("install.sh", {name: value}).returncode == 2
    assert not (runner.temporary / "cleanroom-engine").exists()


def test_the_install_runs_no_module_of_the_checkout(runner: Runner) -> None:
    """`python -m` looks into the current folder first, and that is a pull request's."""
    for name in ("venv", "pip", "ensurepip", "logging"):
        (runner.workspace / f"{name}.py").write_text("open('../ran', 'a')\n")
    done = runner.step("install.sh", {"extras": "", "python": sys.executable}, PIP_NO_INDEX="1")

    assert "install build dependencies" in done.stderr, done.stdout + done.stderr
    assert (runner.temporary / "cleanroom-engine" / "bin" / "python").exists()
    assert not (runner.workspace.parent / "ran").exists()


@contextmanager
def code_scanning(status: int) -> Iterator[tuple[str, list[tuple[str, str, dict[str, Any]]]]]:
    """GitHub's REST interface: its address, and what it was asked."""
    asked: list[tuple[str, str, dict[str, Any]]] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, self.headers["Authorization"], body))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(("status", "expected"), [(202, 0), (403, 0), (500, 1)])
def test_code_scanning_gets_places_of_the_repository(
    runner: Runner, status: int, expected: int
) -> None:
    """A project in a subfolder has its lines there; where a fork may not, it is a warning."""
    runner.use_this_engine()
    file = runner.workspace / "r.sarif"
    place = {"physicalLocation": {"artifactLocation": {"uri": "make.toml"}}}
    file.write_text(json.dumps({"runs": [{"results": [{"locations": [place]}]}]}))
    runner.outputs["run"] = {"sarif": "r.sarif"}
    with code_scanning(status) as (address, asked):
        done = runner.step(
            "upload_sarif.py",
            {"token": "secret-token", "root": "sub folder"},
            GITHUB_API_URL=address,
            GITHUB_REPOSITORY="me/it",
            GITHUB_SHA="0" * 40,
            GITHUB_REF="refs/heads/main",
        )
    ((path, authorization, body),) = asked
    sent = json.loads(gzip.decompress(base64.b64decode(body["sarif"])))
    (location,) = sent["runs"][0]["results"][0]["locations"]

    assert done.returncode == expected, done.stdout + done.stderr
    assert path == "/repos/me/it/code-scanning/sarifs"
    assert authorization == "Bearer secret-token"
    assert location["physicalLocation"]["artifactLocation"]["uri"] == "sub%20folder/make.toml"
    assert "secret-token" not in done.stdout + done.stderr


def test_an_upload_without_a_token_says_so(runner: Runner) -> None:
    """Before anything is asked."""
    runner.use_this_engine()
    done = runner.step("upload_sarif.py", {})
    assert done.returncode == 2
    assert "expected a token" in done.stdout


@pytest.mark.slow
@pytest.mark.sandbox
@pytest.mark.timeout(400)
def test_the_action_installs_its_own_checkout_and_runs_a_project(runner: Runner) -> None:
    """From an empty machine: install, then run."""
    ignored = shutil.ignore_patterns(
        ".venv", ".git", ".ggen", "tests", "__pycache__", ".mypy_cache"
    )
    shutil.copytree(ROOT, runner.temporary / "action", ignore=ignored)
    runner.action = runner.temporary / "action" / "ci"
    runner.project()
    installed = runner.step("install.sh", {"extras": "", "python": sys.executable})
    assert installed.returncode == 0, installed.stdout + installed.stderr
    assert runner.outputs["install"]["cache"] == str(runner.temporary / "cleanroom-cache")
    assert installed.stdout.splitlines()[-1].startswith("cleanroom-engine ")
    done = runner.step("run.sh", {"phases": "build test"})
    assert done.returncode == 0, done.stdout + done.stderr
