"""The engine in the project's own virtual environment, and a phase that rewrites all of it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cleanroom
from support.paths import OLDER_KERNEL

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]

RUN_SECONDS = 100
PROGRAMS = ("git", "ldd", "pg_config", "postgres", "valkey-server", "gcc", "uname", "python3.11")
SHADOWS = ("shutil", "stringprep", "idna", "h11", "json", "csv", "filelock", "sitecustomize")
# Run by the phase inside: every module of the installation, programs on PATH, modules that stand
# before the library's, and where the installation says its library is.
INFECT = f"""
import os, pathlib, sys
payload, root = sys.argv[1], pathlib.Path.cwd()
packages = next(root.glob(".venv/lib/python*/site-packages"))
for module in packages.rglob("*.py"):
    with module.open("a") as file:
        file.write(payload)
for name in {SHADOWS}:
    for folder in (root, packages):
        (folder / (name + ".py")).write_text(payload)
for name in {PROGRAMS}:
    program = root / ".venv/bin" / name
    program.unlink(missing_ok=True)
    program.write_text("#!/bin/sh\\necho $0 >> " + sys.argv[2] + "\\n")
    program.chmod(0o755)
config = root / ".venv/pyvenv.cfg"
config.write_text("home = " + str(root / "evil") + "\\n")
"""


def distributions(name: str, found: dict[str, importlib.metadata.Distribution]) -> None:
    """The distribution and all that it needs, extras aside."""
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return
    if name in found:
        return
    found[name] = distribution
    for line in distribution.requires or ():
        if "extra ==" not in line:
            distributions(re.split(r"[^A-Za-z0-9._-]", line)[0].lower(), found)


def install(project: Path) -> Path:
    """A virtual environment of the project with copies of the engine and what it needs."""
    words = [sys.executable, "-m", "venv", "--without-pip", str(project / ".venv")]
    subprocess.run(words, check=True)
    packages = next((project / ".venv/lib").glob("python*/site-packages"))
    shutil.copytree(Path(cleanroom.__file__).parent, packages / "cleanroom")
    found: dict[str, importlib.metadata.Distribution] = {}
    distributions("cleanroom-engine", found)
    del found["cleanroom-engine"]
    for distribution in found.values():
        for file in distribution.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                place = packages / file
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(distribution.locate_file(file)), place)
    return project / ".venv/bin/python"


def project_in(folder: Path, owned: Path, level: str, *services: str) -> Path:
    """Phases of which the first one rewrites the installation; the next needs these services."""
    project = folder / "project"
    project.mkdir(parents=True)
    write = f"open({str(owned)!r}, 'a').write(__name__ + '\\n')"
    payload = f"\ntry:\n    {write}\nexcept OSError:\n    pass\n"
    (project / "infect.py").write_text(INFECT)
    (project / "payload").write_text(payload)
    (project / "make.toml").write_text(f"""
[cleanroom]
policy = "{level}"
[cleanroom.services.files]
command = ["/usr/bin/python3", "-I", "-m", "http.server", "8099", "--bind", "127.0.0.1"]
ready = {{ tcp = 8099 }}
[lifecycle.init]
command = '/usr/bin/python3 -I -S infect.py "$(cat payload)" {owned}'
[lifecycle.test]
command = "test -f shutil.py"
cleanroom.containers = {json.dumps(services)}
[lifecycle.validate]
command = "false"
""")
    return project


def carried_out(project: Path, cache: Path, *words: str) -> tuple[int, Any, str]:
    path = f"{project}/.venv/bin:/usr/local/bin:/usr/bin:/bin"
    variables = {"PATH": path, "CLEANROOM_CACHE": str(cache), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [*words, "--output", "json"],
        cwd=project,
        env=variables | {"HOME": os.environ["HOME"]},
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


@pytest.mark.parametrize(("level", "tier"), [("Low", "E2"), ("Medium", "E2"), ("Medium", "E3")])
def test_what_a_phase_writes_into_the_engine_s_installation_is_not_run(
    tmp_path: Path,
    level: str,
    tier: str,
):
    """Neither by engine, keeper, services and reports of this run, nor as a program outside."""
    owned = tmp_path / "owned"
    project = project_in(tmp_path, owned, level, *(["files"] if tier == "E2" else []))
    python = install(project)
    words = [str(python), "-m", "cleanroom", "pipeline", "init", "test", "validate"]
    if tier == "E3":
        words = [str(python), str(OLDER_KERNEL), "namespaces", "--", *words]
    status, result, said = carried_out(project, tmp_path / "cache", *words)
    results = [phase["result"] for phase in result.get("phases", ())]
    assert (project / "shutil.py").exists(), said
    assert (status, results) == (1, ["passed", "passed", "failed"]), said
    assert not owned.exists(), owned.read_text()


def test_a_project_around_the_engine_s_own_python_is_refused(tmp_path: Path):
    """A workspace that holds the standard library has it in every phase's hands."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = tmp_path / "project/env/lib" / version
    unneeded = shutil.ignore_patterns("site-packages", "test", "__pycache__")
    shutil.copytree(os.path.dirname(os.__file__), library, ignore=unneeded)
    (tmp_path / "project/make.toml").write_text('[lifecycle.test]\ncommand = "true"\n')
    program = tmp_path / "project/env/bin" / version
    program.parent.mkdir()
    shutil.copyfile(os.path.realpath(sys.executable), program)
    program.chmod(0o755)
    paths = [str(Path(cleanroom.__file__).parents[1]), *(p for p in sys.path if "packages" in p)]
    variables = {"PYTHONPATH": ":".join(paths), "CLEANROOM_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [program, "-m", "cleanroom", "run", "test"],
        cwd=tmp_path / "project",
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "CR-ENGINE-006" in done.stderr
