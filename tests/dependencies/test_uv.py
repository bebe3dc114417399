"""uv's lock: which packages are fetched, and what is refused by name."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.dependencies.inside import serve
from cleanroom.dependencies.model import Artifact, Found, Lock, Stored
from cleanroom.dependencies.python_tags import Interpreter
from cleanroom.dependencies.settings import Settings
from cleanroom.dependencies.uv import Uv, _led_to_server, _proxied
from cleanroom.dependencies.uv_lock import built, may_be_built, packages, unfit, wheel
from cleanroom.model.errors import ProjectError

URL = "https://files.example/packages/a-1.0-py3-none-any.whl"
REGISTRY = 'source = { registry = "https://pypi.example/simple" }'
WHEEL = f'wheels = [{{ url = "{URL}", hash = "sha256:{"0" * 64}", size = 7 }}]'
PACKAGE = f'[[package]]\nname = "a"\nversion = "1.0"\n{REGISTRY}\n{WHEEL}\n'
MANAGER = Uv(Settings({}, Path("/nonexistent")))


def found(text: str) -> Found:
    return Found("uv", "", {"uv.lock": text.encode()})


def test_packages_of_registries_are_to_be_fetched():
    """Those of the project itself are not."""
    text = PACKAGE + '[[package]]\nname = "p"\nversion = "0"\nsource = { editable = "." }\n'
    assert MANAGER.read(found(text)).unresolved == ("a 1.0",)


def test_a_wheel_has_address_digest_and_size():
    """As the lock has them."""
    import tomllib

    package = tomllib.loads(PACKAGE)["package"][0]
    artifact = wheel(package, Interpreter("cpython", 3, 12, "x86_64"))
    assert artifact is not None
    assert (artifact.url, artifact.digest, artifact.size) == (URL, "sha256:" + "0" * 64, 7)
    assert (artifact.file, artifact.purl) == ("a-1.0-py3-none-any.whl", "pkg:pypi/a@1.0")


@pytest.mark.parametrize(
    "source",
    [
        'source = { git = "https://host.example/a?rev=1#1" }',
        'source = { url = "https://host.example/a.whl" }',
        'source = { url = 1 }\nwheels = [{ hash = "sha256:" }]',
        REGISTRY,
    ],
)
def test_what_cannot_be_had_without_running_its_code_is_named(source: str):
    """Sources beside registries, and packages without a file."""
    text = f'[[package]]\nname = "a"\nversion = "1.0"\n{source}\n'
    assert [one.entry for one in MANAGER.read(found(text)).problems] == ["a 1.0"]


@pytest.mark.parametrize(
    "text", ["x =", "package = 1", "package = [1]", '[[package]]\nname = "a"\n', "\0"]
)
def test_what_is_no_lock_is_refused_by_name(text: str):
    """CR-FETCH-006, at the file."""
    with pytest.raises(ProjectError) as refused:
        MANAGER.read(found(text))
    assert refused.value.code == "CR-FETCH-006"


@given(st.binary())
def test_any_bytes_are_read_or_refused(content: bytes):
    """A lock comes with the project: it may say anything."""
    with suppress(ProjectError):
        MANAGER.read(Found("uv", "", {"uv.lock": content}))


def test_in_the_copy_of_a_lock_addresses_lead_to_the_loopback():
    """Only those of files that were fetched."""
    artifact = Artifact(name="a", version="1.0", file="a.whl", url=URL)
    stored = Stored(artifact=artifact, sha256="0" * 64, size=7)
    other = URL.replace("a-1.0", "b-1.0")
    text = _led_to_server(f'x = "{URL}"\ny = "{other}"\n'.encode(), [stored]).decode()
    assert '"{served}/files.example/packages/a-1.0-py3-none-any.whl"' in text
    assert f'"{other}"' in text


@pytest.mark.parametrize(
    "name", ["a; true", "a$(true)", "-a", "a\\u001b[31m", "a\\n::error::b", ""]
)
def test_a_name_that_uv_has_not_refuses_the_lock(name: str):
    """It would be a word of a command, and a line of the log."""
    with pytest.raises(ProjectError, match="name, version or source"):
        MANAGER.read(found(f'[[package]]\nname = "{name}"\nversion = "1.0"\n{REGISTRY}\n'))


@pytest.mark.parametrize(
    "listed",
    [
        f'url = "{URL}"',
        f'url = "{URL}", hash = "md5:{"0" * 32}"',
        f'url = "{URL}", hash = "sha256:/etc/passwd"',
        f'url = "https://[", hash = "sha256:{"0" * 64}"',
        f'url = "file:///a-1.0-py3-none-any.whl", hash = "sha256:{"0" * 64}"',
    ],
)
def test_a_wheel_without_a_strong_digest_or_an_address_is_not_fetched(listed: str):
    """It is named."""
    import tomllib

    text = f'[[package]]\nname = "a"\nversion = "1.0"\n{REGISTRY}\nwheels = [{{ {listed} }}]\n'
    assert [one.entry for one in MANAGER.read(found(text)).problems] == ["a 1.0"]
    package = tomllib.loads(text)["package"][0]
    assert wheel(package, Interpreter("cpython", 3, 12, "x86_64")) is None


def test_a_lock_of_deep_brackets_is_refused_by_name():
    """And not by Python's own limit."""
    with pytest.raises(ProjectError, match="found another file"):
        MANAGER.read(found("x = " + "[" * 50_000))


# --- packages without a wheel

CPYTHON = Interpreter("cpython", 3, 12, "x86_64")
DIGEST = f"sha256:{'0' * 64}"
PROJECT = '[[package]]\nname = "p"\nversion = "0"\nsource = { virtual = "." }\n'


def source_of(name: str) -> str:
    """A package of which there is a source archive alone."""
    url = f"https://files.example/packages/{name}-1.0.tar.gz"
    sdist = f'sdist = {{ url = "{url}", hash = "{DIGEST}", size = 7 }}'
    return f'[[package]]\nname = "{name}"\nversion = "1.0"\n{REGISTRY}\n{sdist}\n'


def listed(text: str) -> list[dict[str, Any]]:
    """The packages of a lock."""
    return packages("uv.lock", text.encode())


def test_a_source_archive_is_fetched_where_there_is_no_wheel():
    """And nothing is named."""
    text = f'{PROJECT}dependencies = [{{ name = "a" }}]\n{source_of("a")}'
    assert MANAGER.read(found(text)) == Lock(unresolved=("a 1.0",))
    (archive,) = built(listed(text), CPYTHON)
    assert (archive.file, archive.digest, archive.size) == ("a-1.0.tar.gz", DIGEST, 7)


@pytest.mark.parametrize(
    ("tag", "expected"),
    [("py3-none-any", []), ("cp312-cp312-linux_x86_64", []), ("cp312-cp312-win32", ["a"])],
)
def test_a_source_archive_is_left_where_a_wheel_fits(tag: str, expected: list[str]):
    """One for another platform does not."""
    url = f"https://files.example/packages/a-1.0-{tag}.whl"
    text = f'{PROJECT}dependencies = [{{ name = "a" }}]\n{source_of("a")}'
    text += f'wheels = [{{ url = "{url}", hash = "{DIGEST}" }}]\n'
    assert [one.name for one in built(listed(text), CPYTHON)] == expected
    assert may_be_built(listed(text)) is (tag != "py3-none-any")


def test_a_package_without_a_file_for_the_interpreter_is_named():
    """Where a marker leads to it; never skipped in silence."""
    edges = """dependencies = [
    { name = "a" }, { name = "w", marker = "sys_platform == 'win32'" },
]
"""
    text = PROJECT + edges
    for name in ("a", "w"):
        url = f"https://files.example/packages/{name}-1.0-cp313-cp313-linux_x86_64.whl"
        text += f'[[package]]\nname = "{name}"\nversion = "1.0"\n{REGISTRY}\n'
        text += f'wheels = [{{ url = "{url}", hash = "{DIGEST}" }}]\n'
    (problem,) = unfit(listed(text), CPYTHON)
    assert problem.entry == "a 1.0"
    assert f"Python {CPYTHON.version} on {CPYTHON.machine}" in problem.why


def test_a_file_of_an_address_is_fetched_from_there():
    """By the lock's digest; one without, or in a folder of an archive, is named."""
    text = (
        '[[package]]\nname = "a"\nversion = "1.0"\n'
        f'source = {{ url = "{URL}" }}\nwheels = [{{ hash = "{DIGEST}" }}]\n'
    )
    (package,) = listed(text)
    artifact = wheel(package, CPYTHON)
    assert artifact is not None
    assert (artifact.url, artifact.digest) == (URL, DIGEST)
    assert MANAGER.read(found(text)) == Lock(unresolved=("a 1.0",))
    inside = 'source = { url = "https://h.example/a.zip", subdirectory = "x" }\nsdist = '
    text = f'[[package]]\nname = "a"\nversion = "1.0"\n{inside}{{ hash = "{DIGEST}" }}\n'
    assert [one.entry for one in MANAGER.read(found(text)).problems] == ["a 1.0"]


def test_what_no_marker_of_this_platform_leads_to_is_not_built():
    """However long the way there is."""
    edges = """dependencies = [
    { name = "a" }, { name = "w", marker = "sys_platform == 'win32'" },
]
[package.dev-dependencies]
dev = [{ name = "d" }]
"""
    inner = 'dependencies = [{ name = "i" }]\n'
    text = PROJECT + edges + source_of("a") + source_of("w") + inner + source_of("i")
    assert [one.name for one in built(listed(text + source_of("d")), CPYTHON)] == ["a", "d"]


@pytest.mark.parametrize(
    "sdist",
    [
        f'url = "https://files.example/a-1.0.exe", hash = "{DIGEST}"',
        f'url = "https://files.example/..%2f..%2fa-1.0.tar.gz%00.zip", hash = "{DIGEST}"',
        'url = "https://files.example/a-1.0.tar.gz"',
        f'url = 1, hash = "{DIGEST}"',
    ],
)
def test_a_source_archive_without_a_digest_or_a_name_is_named(sdist: str):
    """As wheels are."""
    text = f'[[package]]\nname = "a"\nversion = "1.0"\n{REGISTRY}\nsdist = {{ {sdist} }}\n'
    assert [one.entry for one in MANAGER.read(found(text)).problems] == ["a 1.0"]


IN_TREE = """[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "a"
version = "1.0"
"""
BACKEND = "open({ran!r}, 'w').write('it ran')\n"


def test_uv_keeps_a_source_archive_and_runs_nothing_of_it(tmp_path: Path):
    """Also a back end that lies in the archive and asks for nothing does not run."""
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.is_file() else shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    ran, archive = tmp_path / "ran", tmp_path / "a-1.0.tar.gz"
    contents = {"pyproject.toml": IN_TREE, "backend.py": BACKEND.format(ran=str(ran))}
    with tarfile.open(archive, "w:gz") as made:
        for name, text in {**contents, "PKG-INFO": "Metadata-Version: 2.1\n"}.items():
            member = tarfile.TarInfo(f"a-1.0/{name}")
            member.size = len(text)
            made.addfile(member, io.BytesIO(text.encode()))
    digest = f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"
    edge = 'dependencies = [{ name = "a" }]\n'
    text = f'version = 1\nrequires-python = ">=3.11"\n{PROJECT}{edge}{source_of("a")}'
    text = text.replace(DIGEST, digest).replace(", size = 7", "")
    project = '[project]\nname = "p"\nversion = "0"\nrequires-python = ">=3.11"\n'
    work = tmp_path / "work"
    work.mkdir()
    (work / "uv.lock").write_text(text)
    (work / "pyproject.toml").write_text(f'{project}dependencies = ["a"]\n')
    (source,) = built(listed(text), CPYTHON)
    served = {"/files.example/packages/a-1.0.tar.gz": str(archive)}
    (tmp_path / "served.json").write_text(json.dumps({"files": served}))
    words = _proxied(listed(text), Stored(artifact=source, sha256="0" * 64, size=7))
    done = subprocess.run(
        [sys.executable, serve.__file__, tmp_path / "served.json", *words],
        cwd=work,
        env={"PATH": f"{Path(uv).parent}:/usr/bin:/bin", "UV_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "No module named 'encodings'" in done.stderr
    assert not ran.exists()
    kept = [path.relative_to(tmp_path) for path in tmp_path.glob("cache/**/src/backend.py")]
    assert len(kept) == 1, done.stderr
