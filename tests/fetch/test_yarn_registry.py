"""A company's registry that gives yarn another package than the lock names."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from support import ecosystems_document
from support.lying_registry import PORT, Answer, make_certificates
from support.node_projects import installed
from support.paths import ROOT

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0, reason="makes network namespaces, as root"
    ),
    pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed"),
]

LOCK = {
    "__metadata": {"version": "10", "cacheKey": "10c0"},
    "a@npm:^1": {
        "version": "1.0.0",
        "resolution": "a@npm:1.0.0",
        "checksum": "10c0/" + "a" * 128,
        "languageName": "node",
        "linkType": "hard",
    },
}
MAKE = '[project]\nname = "p"\n[lifecycle.test]\ncommand = "true"\n'


def package() -> bytes:
    """A package as registries have them."""
    content = b'{"name": "a", "version": "1.0.0"}'
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        member = tarfile.TarInfo("package/package.json")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def test_yarn_refuses_it_and_nothing_counts_as_fetched(tmp_path: Path):
    """Each run again; the caller's token goes to the registry, and into no file of the run."""
    programs = installed(tmp_path / "tools", "@yarnpkg/cli-dist@4.17.1")
    server, project, home = (tmp_path / name for name in ("server", "project", "home"))
    for folder in (server, project, home):
        folder.mkdir()
    make_certificates(server)
    answers = {"/a/-/a-1.0.0.tgz": Answer(body=package().hex())}
    (server / "answers").write_text(json.dumps(answers))
    (home / ".yarnrc.yml").write_text(
        f"npmRegistryServer: https://registry.test:{PORT}\nnpmAuthToken: s3cr3t-t0ken\n"
    )
    (project / "make.toml").write_text(MAKE)
    (project / "yarn.lock").write_text(json.dumps(LOCK))
    (project / "package.json").write_text('{"dependencies": {"a": "^1"}}')
    variables = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(home),
        "PYTHONPATH": str(ROOT / "tests"),
        "CLEANROOM_CACHE": str(tmp_path / "cache"),
        "SSL_CERT_FILE": str(server / "certificate.pem"),
    }
    program = [sys.executable, "-m", "support.lying_registry", str(server / "answers"), str(server)]
    for _ in range(2):
        done = subprocess.run(
            [*program, sys.executable, "-m", "cleanroom", "pipeline", "test"],
            cwd=project,
            env=variables,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 3, done.stdout + done.stderr
        assert "CR-FETCH-001" in done.stderr
        assert "a@npm:1.0.0" in done.stderr
    assert "Bearer s3cr3t-t0ken /a/-/a-1.0.0.tgz" in (server / "requests").read_text()
    for path in project.rglob("*"):
        assert not path.is_file() or b"s3cr3t-t0ken" not in path.read_bytes()
    ecosystems_document.record("yarn", "verified")
