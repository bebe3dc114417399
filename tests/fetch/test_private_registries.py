"""A company's registry with a private address, which only the caller's own configuration names.

For each manager: what the lock names is fetched from there; another file under its name is not
taken. And for pip, which may have several indexes, an index of strangers that has a higher version.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from cleanroom.dependencies.go_hashes import of_go_mod, of_zip
from support import ecosystems_document
from support.lying_registry import PORT, Answer
from support.node_projects import installed
from support.registry_project import RegistryProject

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0, reason="makes network namespaces, as root"
    ),
]

OURS = f"https://private.test:{PORT}"
MAKE = '[project]\nname = "p"\n[lifecycle.test]\ncommand = "true"\n'
THEIRS = f"https://registry.test:{PORT}"


class Case(NamedTuple):
    """A project of a manager, and the registry that has its one package."""

    files: dict[str, str]
    answers: dict[str, bytes]
    file: str  # the path of the package's file among the answers
    variables: dict[str, str] = {}
    home: dict[str, str] = {}  # files of the caller's home


def wheel(name: str, version: str) -> bytes:
    """A wheel of a package that has nothing but its name; the same bytes each time."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for path, content in files.items():
            archive.writestr(zipfile.ZipInfo(path), content)
    return written.getvalue()


def page(base: str, name: str, files: Mapping[str, bytes]) -> bytes:
    """What an index says of a package (PEP 691)."""
    listed = [
        {
            "filename": file,
            "url": f"{base}/files/{file}",
            "hashes": {"sha256": hashlib.sha256(content).hexdigest()},
        }
        for file, content in files.items()
    ]
    return json.dumps({"meta": {"api-version": "1.0"}, "name": name, "files": listed}).encode()


def pip(folder: Path) -> Case:
    file, content = "ours-1.0-py3-none-any.whl", wheel("ours", "1.0")
    digest = hashlib.sha256(content).hexdigest()
    return Case(
        {"requirements.txt": f"ours==1.0 --hash=sha256:{digest}\n"},
        {"/simple/ours/": page(OURS, "ours", {file: content}), f"/files/{file}": content},
        f"/files/{file}",
        {"PIP_INDEX_URL": f"{OURS}/simple"},
    )


def npm(folder: Path) -> Case:
    content = b"a package\n"
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    packages = {"": {}, "node_modules/ours": {"version": "1.0.0", "integrity": integrity}}
    return Case(
        {"package-lock.json": json.dumps({"lockfileVersion": 3, "packages": packages})},
        {"/ours/-/ours-1.0.0.tgz": content},
        "/ours/-/ours-1.0.0.tgz",
        home={".npmrc": f"registry={OURS}/\n"},
    )


def tarball(files: Mapping[str, bytes]) -> bytes:
    """A package of these files."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return written.getvalue()


def node_package() -> tuple[bytes, str]:
    """A package of npm's, and the digest of it that locks have."""
    content = tarball({"package/package.json": b'{"name": "ours", "version": "1.0.0"}'})
    return content, "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()


def pnpm(folder: Path) -> Case:
    content, integrity = node_package()
    needs = "      ours:\n        specifier: ^1\n        version: 1.0.0\n"
    lock = (
        f"lockfileVersion: '9.0'\nimporters:\n  .:\n    dependencies:\n{needs}"
        f"packages:\n  ours@1.0.0:\n    resolution: {{integrity: {integrity}}}\n"
        "snapshots:\n  ours@1.0.0: {}\n"
    )
    programs = installed(folder / "tools", "pnpm@10")
    return Case(
        {"pnpm-lock.yaml": lock, "package.json": '{"dependencies": {"ours": "^1"}}'},
        {"/ours/-/ours-1.0.0.tgz": content},
        "/ours/-/ours-1.0.0.tgz",
        {"PATH": f"{programs}:{os.environ['PATH']}"},
        {".npmrc": f"registry={OURS}/\n"},
    )


def yarn(folder: Path) -> Case:
    content, _ = node_package()
    # of the archive that yarn makes of it
    checksum = (
        "10c0/fa8dc8591a8d284282c606753e584dc4112fe4aa38c1a1960cdb261a6dd99847"
        "08c95d04d4a5a965381e2355d02b53e80395c35da792eab2be35d971c6f8b0d2"
    )
    lock = {
        "__metadata": {"version": "10", "cacheKey": "10c0"},
        "ours@npm:^1": {
            "version": "1.0.0",
            "resolution": "ours@npm:1.0.0",
            "checksum": checksum,
            "languageName": "node",
            "linkType": "hard",
        },
    }
    programs = installed(folder / "tools", "@yarnpkg/cli-dist@4.17.1")
    return Case(
        {"yarn.lock": json.dumps(lock), "package.json": '{"dependencies": {"ours": "^1"}}'},
        {"/ours/-/ours-1.0.0.tgz": content},
        "/ours/-/ours-1.0.0.tgz",
        {"PATH": f"{programs}:{os.environ['PATH']}"},
        {".yarnrc.yml": f"npmRegistryServer: {OURS}\n"},
    )


def yarn_classic(folder: Path) -> Case:
    content, integrity = node_package()
    lock = (
        '# yarn lockfile v1\n\n\nours@^1:\n  version "1.0.0"\n'
        f'  resolved "{OURS}/ours/-/ours-1.0.0.tgz"\n  integrity {integrity}\n'
    )
    return Case(
        {"yarn.lock": lock, "package.json": '{"dependencies": {"ours": "^1"}}'},
        {"/ours/-/ours-1.0.0.tgz": content},
        "/ours/-/ours-1.0.0.tgz",
        home={".npmrc": f"registry={OURS}/\n"},
    )


def cargo(folder: Path) -> Case:
    manifest = b'[package]\nname = "ours"\nversion = "1.0.0"\n'
    crate = tarball({"ours-1.0.0/Cargo.toml": manifest, "ours-1.0.0/src/lib.rs": b""})
    lock = (
        'version = 4\n[[package]]\nname = "ours"\nversion = "1.0.0"\n'
        'source = "registry+https://github.com/rust-lang/crates.io-index"\n'
        f'checksum = "{hashlib.sha256(crate).hexdigest()}"\n'
    )
    template = {"dl": f"{OURS}/crates/{{crate}}-{{version}}.crate"}
    return Case(
        {"Cargo.lock": lock},
        {
            "/index/config.json": json.dumps(template).encode(),
            "/crates/ours-1.0.0.crate": crate,
        },
        "/crates/ours-1.0.0.crate",
        {"CARGO_HOME": str(folder / "cargo")},
        {
            "cargo/config.toml": '[source.crates-io]\nreplace-with = "ours"\n'
            f'[source.ours]\nregistry = "sparse+{OURS}/index/"\n'
        },
    )


def go(folder: Path) -> Case:
    path, version = "ours.example/lib", "v1.0.0"
    mod, zipped = folder / "go.mod", folder / "module.zip"
    mod.write_text(f"module {path}\n")
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr(f"{path}@{version}/go.mod", mod.read_text())
    sums = f"{path} {version} h1:{of_zip(zipped)}\n{path} {version}/go.mod h1:{of_go_mod(mod)}\n"
    at = f"/{path}/@v/{version}"
    return Case(
        {"go.mod": f"module a\n\nrequire {path} {version}\n", "go.sum": sums},
        {f"{at}.zip": zipped.read_bytes(), f"{at}.mod": mod.read_bytes()},
        f"{at}.zip",
        {"GOPROXY": OURS},
    )


def uv(folder: Path) -> Case:
    file, content = "ours-1.0-py3-none-any.whl", wheel("ours", "1.0")
    digest = hashlib.sha256(content).hexdigest()
    lock = f"""version = 1
revision = 3
requires-python = ">=3.11"

[[package]]
name = "ours"
version = "1.0"
source = {{ registry = "{OURS}/simple" }}
wheels = [{{ url = "{OURS}/files/{file}", hash = "sha256:{digest}", size = {len(content)} }}]

[[package]]
name = "p"
version = "1"
source = {{ virtual = "." }}
dependencies = [{{ name = "ours" }}]

[package.metadata]
requires-dist = [{{ name = "ours" }}]
"""
    project = '[project]\nname = "p"\nversion = "1"\nrequires-python = ">=3.11"\n'
    project += 'dependencies = ["ours"]\n'
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if found is None:
        pytest.skip("uv is not installed")
    (folder / "tools").mkdir()
    shutil.copy2(found, folder / "tools/uv")
    return Case(
        {"uv.lock": lock, "pyproject.toml": project},
        {f"/files/{file}": content},
        f"/files/{file}",
        {
            "PATH": f"{folder / 'tools'}:{os.environ['PATH']}",
            "UV_DEFAULT_INDEX": f"{OURS}/simple",
        },
    )


CASES: dict[str, Callable[[Path], Case]] = {
    "pip": pip,
    "npm": npm,
    "pnpm": pnpm,
    "yarn": yarn,
    "yarn-classic": yarn_classic,
    "cargo": cargo,
    "go": go,
    "uv": uv,
}


def project_of(folder: Path, case: Case) -> RegistryProject:
    for name, text in case.home.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return RegistryProject(folder)


def answers_of(case: Case) -> dict[str, Answer]:
    return {path: Answer(body=content.hex()) for path, content in case.answers.items()}


NODE = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
MANAGERS = [pytest.param(one, marks=[NODE] if one in ("pnpm", "yarn") else []) for one in CASES]
# yarn's locks have no digest of the registry's file: test_yarn_registry.py.
VERIFIED = [one for one in MANAGERS if one.values != ("yarn",)]


@pytest.mark.parametrize("manager", MANAGERS)
def test_the_callers_own_registry_is_used(tmp_path: Path, manager: str):
    """Its address is a private one, which the caller's configuration names."""
    case = CASES[manager](tmp_path)
    project = project_of(tmp_path, case)
    said = project.call(
        answers_of(case), {**case.files, "make.toml": MAKE}, "fetch", **case.variables
    )
    assert said.code == 0, said.err
    assert f"- {case.file}" in said.requests
    ecosystems_document.record(manager, "private mirror")


@pytest.mark.parametrize("manager", VERIFIED)
def test_another_file_than_the_lock_names_is_not_taken(tmp_path: Path, manager: str):
    """Exit 3, with the code, and the store has nothing of it."""
    case = CASES[manager](tmp_path)
    project = project_of(tmp_path, case)
    answers = answers_of(case) | {case.file: Answer(body=b"another".hex())}
    said = project.call(answers, {**case.files, "make.toml": MAKE}, "fetch", **case.variables)
    assert said.code == 3, said.err
    assert "CR-FETCH-001" in said.err
    stored = {path.read_bytes() for path in tmp_path.glob("cache/dependencies/files/*/*")}
    assert b"another" not in stored
    ecosystems_document.record(manager, "verified")


# --- an index of strangers beside the company's own

INDEXES = {"PIP_INDEX_URL": f"{OURS}/simple", "PIP_EXTRA_INDEX_URL": f"{THEIRS}/public"}
OUR_FILE, THEIR_FILE = "ours-1.0-py3-none-any.whl", "ours-99.0-py3-none-any.whl"


def confusing() -> dict[str, Answer]:
    """Both indexes have the package; that of strangers a higher version of it."""
    ours, theirs = wheel("ours", "1.0"), wheel("ours", "99.0")
    found = {
        "/simple/ours/": page(OURS, "ours", {OUR_FILE: ours}),
        "/public/ours/": page(THEIRS, "ours", {THEIR_FILE: theirs}),
        f"/files/{OUR_FILE}": ours,
        f"/files/{THEIR_FILE}": theirs,
    }
    return {path: Answer(body=content.hex()) for path, content in found.items()}


def test_what_is_locked_comes_from_no_other_index(tmp_path: Path):
    """Its digest decides: a higher version elsewhere is not even asked for."""
    files = {**pip(tmp_path).files, "make.toml": MAKE}
    said = RegistryProject(tmp_path).call(confusing(), files, "fetch", **INDEXES)
    assert said.code == 0, said.err
    assert f"- /files/{OUR_FILE}" in said.requests
    assert f"- /files/{THEIR_FILE}" not in said.requests


def test_the_same_version_of_strangers_is_not_taken(tmp_path: Path):
    """They have the very name and version; the file that is fetched is that of the lock."""
    files = {**pip(tmp_path).files, "make.toml": MAKE}
    lie = wheel("ours", "1.0") + b"x"
    answers = confusing()
    answers["/public/ours/"] = Answer(body=page(THEIRS, "ours", {OUR_FILE: lie}).hex())
    first = {
        **INDEXES,
        "PIP_INDEX_URL": f"{THEIRS}/public",
        "PIP_EXTRA_INDEX_URL": f"{OURS}/simple",
    }
    said = RegistryProject(tmp_path).call(answers, files, "fetch", **first)
    assert said.code == 0, said.err


def test_what_no_lock_pins_is_said_to_come_from_any_index(tmp_path: Path):
    """pip takes the highest version of all indexes; `plan` says so before it happens."""
    files = {"make.toml": MAKE, "requirements.txt": "ours\n"}
    project = RegistryProject(tmp_path)
    planned = project.call(confusing(), files, "plan", **INDEXES)
    assert planned.code == 0, planned.err
    assert "any of 2 indexes may give" in planned.out
    fetched = project.call(confusing(), files, "fetch", **INDEXES)
    assert fetched.code == 0, fetched.err
    assert "CR-FETCH-020" in fetched.err
    assert f"- /files/{THEIR_FILE}" in fetched.requests


@pytest.mark.slow
@pytest.mark.parametrize("digest", ["", "sha256="])
def test_pip_has_a_wheel_whose_address_leads_to_another_host(tmp_path: Path, digest: str):
    """As releases of GitHub do; pip itself asks neither of the hosts."""
    content = wheel("ours", "1.0")
    pinned = f"#{digest}{hashlib.sha256(content).hexdigest()}" if digest else ""
    released = f"/releases/download/v1/{OUR_FILE}"
    answers = {
        released: Answer(status=302, location=f"https://objects.test:{PORT}/stored?signed=1"),
        "/stored?signed=1": Answer(body=content.hex()),
    }
    files = {
        "requirements.txt": f"ours @ https://registry.test:{PORT}{released}{pinned}\n",
        "make.toml": MAKE,
    }
    project = RegistryProject(tmp_path)
    said = project.call(answers, files, "fetch", PIP_INDEX_URL=f"{OURS}/simple")
    assert said.code == 0, said.err
    assert "CR-FETCH" not in said.err, said.err
    assert said.requests.count("- /stored?signed=1") == 1
    (record,) = (tmp_path / "project/.ggen/cleanroom/runs").glob("*/dependencies.json")
    (stored,) = json.loads(record.read_text())[0]["files"]
    assert stored["artifact"]["url"] == f"https://registry.test:{PORT}{released}"
    assert stored["sha256"] == hashlib.sha256(content).hexdigest()
