"""Git sources through the real command, from a server of the test's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from support.lying_registry import PORT, make_certificates
from support.paths import ROOT

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0, reason="makes network namespaces, as root"
    ),
]
needs_cargo = pytest.mark.skipif(shutil.which("cargo") is None, reason="cargo is not installed")

SERVER = f"https://registry.test:{PORT}"
AUTHOR = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}
# A workspace, whose members take versions from its root and lie at different depths.
CRATES = {
    "Cargo.toml": '[workspace]\nmembers = ["crates/*", "top"]\nresolver = "2"\n'
    '[workspace.package]\nversion = "0.3.0"\nedition = "2021"\n'
    '[workspace.dependencies]\ninner = { path = "crates/inner" }\n',
    "crates/outer/Cargo.toml": '[package]\nname = "outer"\nversion.workspace = true\n'
    "edition.workspace = true\n[dependencies]\ninner.workspace = true\n"
    'top = { path = "../../top" }\n',
    "crates/outer/src/lib.rs": "pub fn seven() -> u32 { inner::SIX + top::ONE }\n"
    'pub const TEXT: &str = include_str!("../../../words.txt");\n',
    "crates/inner/Cargo.toml": '[package]\nname = "inner"\nversion.workspace = true\n'
    "edition.workspace = true\n",
    "crates/inner/src/lib.rs": "pub const SIX: u32 = 6;\n",
    "top/Cargo.toml": '[package]\nname = "top"\nversion = "1.0.0"\nedition = "2021"\n',
    "top/src/lib.rs": "pub const ONE: u32 = 1;\n",
    "words.txt": "words",
}


class Said(NamedTuple):
    code: int
    text: str
    requests: list[str]


class World:
    """Repositories, a project, and the command on their network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = folder / "server"
        self.repositories = folder / "repositories"
        self.project = folder / "project"
        for one in (self.server, self.repositories, self.project):
            one.mkdir()
        self.certificate = make_certificates(self.server)
        (self.server / "answers").write_text(json.dumps(str(self.repositories)))

    def repository(self, name: str, files: dict[str, str], *further: str) -> str:
        """A repository with one commit, which it returns."""
        work = self.folder / f"work-{name}"
        write(work, files)
        for command in (
            "git init -q -b main",
            "git add -A",
            *further,
            "git commit -q --allow-empty -m one",
            "git commit -q --allow-empty -m two",
            f"git clone -q --bare . {self.repositories}/{name}.git",
        ):
            subprocess.run(command, shell=True, cwd=work, env={**os.environ, **AUTHOR}, check=True)
        words = ["git", "rev-parse", "HEAD"]
        return subprocess.run(words, cwd=work, capture_output=True, text=True).stdout.strip()

    def network(self, words: Iterable[str], **more: str) -> Said:
        """Run a command where the server is."""
        program = [sys.executable, "-m", "support.git_server", str(self.server / "answers")]
        done = subprocess.run(
            [*program, str(self.server), *words],
            cwd=self.project,
            env={
                "PATH": os.environ["PATH"],
                "HOME": os.environ["HOME"],
                "NETRC": str(self.folder / ".netrc"),
                "PYTHONPATH": str(ROOT / "tests"),
                "CLEANROOM_CACHE": str(self.folder / "cache"),
                "SSL_CERT_FILE": str(self.certificate),
                **{name: os.environ[name] for name in KEPT if name in os.environ},
                **more,
            },
            capture_output=True,
            text=True,
            timeout=300,
        )
        log = self.server / "requests"
        requests = log.read_text().splitlines() if log.exists() else []
        return Said(done.returncode, done.stdout + done.stderr, requests)

    def engine(self, *words: str, **more: str) -> Said:
        """The engine's command."""
        return self.network([sys.executable, "-m", "cleanroom", *words], **more)


KEPT = ("CARGO_HOME", "RUSTUP_HOME", "PYENV_ROOT")


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@needs_cargo
def test_cargo_builds_a_workspace_of_a_repository_without_a_network(world: World):
    """Members take what they inherit from its root, and files beside them; then offline."""
    commit = world.repository("crates", CRATES)
    rust = {name: os.environ.get(name, str(Path.home() / f".{name[:-5].lower()}")) for name in KEPT}
    write(
        world.project,
        {
            "Cargo.toml": '[package]\nname = "app"\nversion = "0.1.0"\nedition = "2021"\n'
            f'[dependencies]\nouter = {{ git = "{SERVER}/crates.git", branch = "main" }}\n',
            "src/main.rs": 'fn main() { println!("{} {}", outer::seven(), outer::TEXT); }\n',
            "make.toml": '[project]\nname = "p"\n'
            '[lifecycle.init]\ncommand = "cargo fetch --locked"\n'
            '[lifecycle.test]\ncommand = "cargo run -q --locked > said.txt"\n',
        },
    )
    locking = world.network(
        ["cargo", "generate-lockfile"],
        CARGO_HTTP_CAINFO=str(world.certificate),
        **{**rust, "CARGO_HOME": str(world.folder / "cargo")},
    )
    assert locking.code == 0, locking.text
    lock = (world.project / "Cargo.lock").read_bytes()
    assert commit.encode() in lock
    for further in ((), ("--offline",)):
        said = world.engine("pipeline", "init", "test", *further, **rust)
        assert said.code == 0, said.text
        assert (world.project / "said.txt").read_text() == "7 words\n"
    assert (world.project / "Cargo.lock").read_bytes() == lock


# No index answers on this network: what builds the package lies in the package itself.
BACKEND = """
import base64, hashlib, zipfile

def _wheel(folder):
    text = open("{name}.py").read()
    files = {{
        "{name}.py": text,
        "{name}-1.dist-info/METADATA": "Metadata-Version: 2.1\\nName: {name}\\nVersion: 1\\n",
        "{name}-1.dist-info/WHEEL": "Wheel-Version: 1.0\\nGenerator: x\\n"
        "Root-Is-Purelib: true\\nTag: py3-none-any\\n",
    }}
    record = "{name}-1.dist-info/RECORD"
    with zipfile.ZipFile(f"{{folder}}/{name}-1-py3-none-any.whl", "w") as archive:
        lines = []
        for path, content in files.items():
            archive.writestr(path, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest())
            lines.append(f"{{path}},sha256={{digest.decode().rstrip('=')}},{{len(content)}}")
        archive.writestr(record, "\\n".join([*lines, record + ",,"]) + "\\n")
    return "{name}-1-py3-none-any.whl"

def build_wheel(folder, *arguments):
    return _wheel(folder)
"""


def package(name: str, **more: str) -> dict[str, str]:
    return {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "own"\n'
        'backend-path = ["."]\n'
        f'[project]\nname = "{name}"\nversion = "1"\n',
        "own.py": BACKEND.format(name=name),
        f"{name}.py": "SEVEN = 7\n",
        **more,
    }


MAKE = """
[project]
name = "p"
[lifecycle.init]
command = "python3 -m venv .venv && .venv/bin/pip install -q {words}"
[lifecycle.test]
command = ".venv/bin/python -c 'import seven; print(seven.SEVEN)' > said.txt"
"""


@pytest.mark.parametrize("reference", ["commit", "main", "v1", ""])
def test_pip_installs_from_a_repository_without_a_network(world: World, reference: str):
    """By a commit, a branch, a tag or nothing; with a submodule; then offline."""
    inner = world.repository("inner", {"words.txt": "words"})
    modules = '[submodule "inner"]\n\tpath = inner\n\turl = ../inner.git\n'
    commit = world.repository(
        "seven",
        package("seven", **{".gitmodules": modules, ".gitattributes": "* filter=evil\n"}),
        f"git update-index --add --cacheinfo 160000,{inner},inner",
        "git commit -q --allow-empty -m zero && git tag -a v1 -m v1 && git config x.y z",
    )
    at = {"commit": f"@{commit}", "": ""}.get(reference, f"@{reference}")
    requirement = f"seven @ git+{SERVER}/seven.git{at}\n"
    make = MAKE.format(words="-r requirements.txt")
    write(world.project, {"requirements.txt": requirement, "make.toml": make})
    for further in ((), ("--offline",)):
        said = world.engine("pipeline", "init", "test", *further)
        assert said.code == 0, said.text
        assert (world.project / "said.txt").read_text() == "7\n"
    assert (world.project / "requirements.txt").read_text() == requirement
    assert any("/inner.git" in line for line in said.requests)


def test_credentials_reach_their_repository_only(world: World):
    """Those of netrc, as a header; no file of the run has them."""
    world.repository("seven", package("seven"))
    (world.folder / ".netrc").write_text(
        f"machine registry.test:{PORT} login me password hunter2-2\n"
    )
    make = MAKE.format(words="-r requirements.txt")
    write(world.project, {"requirements.txt": f"git+{SERVER}/seven.git\n", "make.toml": make})
    said = world.engine("pipeline", "init", "test")
    assert said.code == 0, said.text
    assert said.requests
    assert all(line.startswith("Basic ") for line in said.requests)
    kept = [
        path
        for folder in (world.project, world.folder / "cache")
        for path in folder.rglob("*")
        if path.is_file() and b"hunter2-2" in path.read_bytes()
    ]
    assert (kept, "hunter2-2" in said.text) == ([], False)


def test_a_submodule_that_would_run_a_program_is_named_and_runs_nothing(world: World):
    """`ext::` is a command line to git where it is allowed; here the set is not fetched."""
    evil = f"ext::sh -c touch% {world.folder}/evil"
    inner = world.repository("inner", {"f": ""})
    modules = f'[submodule "inner"]\n\tpath = inner\n\turl = {evil}\n'
    world.repository(
        "seven",
        package("seven", **{".gitmodules": modules}),
        f"git update-index --add --cacheinfo 160000,{inner},inner",
    )
    make = MAKE.format(words="-r requirements.txt")
    write(world.project, {"requirements.txt": f"git+{SERVER}/seven.git\n", "make.toml": make})
    said = world.engine("fetch")
    assert said.code == 5, said.text
    assert "CR-FETCH-003" in said.text
    assert "submodule" in said.text
    assert not (world.folder / "evil").exists()


def test_a_commit_that_the_repository_lacks_is_named(world: World):
    """A warning of a run, an error of fetch."""
    world.repository("seven", package("seven"))
    make = MAKE.format(words="-r requirements.txt")
    text = f"seven @ git+{SERVER}/seven.git@{'1' * 40}\n"
    write(world.project, {"requirements.txt": text, "make.toml": make})
    said = world.engine("fetch")
    assert said.code == 5, said.text
    assert "CR-FETCH-003" in said.text
    assert f"{SERVER}/seven.git" in said.text


@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")
def test_uv_syncs_from_a_repository_without_a_network(world: World):
    """As its lock has it, by a branch and its commit; then offline."""
    world.repository("seven", package("seven"))
    write(
        world.project,
        {
            "pyproject.toml": '[project]\nname = "app"\nversion = "1"\n'
            'requires-python = ">=3.11"\ndependencies = ["seven"]\n'
            '[build-system]\nrequires = []\nbuild-backend = "own"\nbackend-path = ["."]\n'
            "[tool.uv]\npackage = false\n"
            f'[tool.uv.sources]\nseven = {{ git = "{SERVER}/seven.git", branch = "main" }}\n',
            "make.toml": '[project]\nname = "p"\n[lifecycle.init]\ncommand = "uv sync --locked"\n'
            '[lifecycle.test]\ncommand = ".venv/bin/python -c '
            "'import seven; print(seven.SEVEN)' > said.txt\"\n",
        },
    )
    more = {"GIT_SSL_CAINFO": str(world.certificate), "UV_CACHE_DIR": str(world.folder / "uv")}
    locking = world.network(["uv", "lock"], **more)
    assert locking.code == 0, locking.text
    lock = (world.project / "uv.lock").read_bytes()
    for further in ((), ("--offline",)):
        said = world.engine("pipeline", "init", "test", *further)
        assert said.code == 0, said.text
        assert (world.project / "said.txt").read_text() == "7\n"
    assert (world.project / "uv.lock").read_bytes() == lock
