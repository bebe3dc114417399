"""yarn's lock: which packages are fetched, and what yarn is told of them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.dependencies import discovery
from cleanroom.dependencies.model import Artifact, Found, Lock, Stored
from cleanroom.dependencies.node_packages import ToolVersion
from cleanroom.dependencies.settings import Settings
from cleanroom.dependencies.yarn import (
    Yarn,
    _add_to_corepack,
    _failed,
    _integrity,
    _program,
)
from cleanroom.dependencies.yarn_lock import _is_for_this_platform, offered
from cleanroom.model.errors import DependencyRejected, ProjectError

REAL = (Path(__file__).parent.parent / "fixtures/dependencies/pnp.yarn.lock").read_bytes()
CHECKSUM = "10c0/" + "a" * 128
MANAGER = Yarn(Settings({}, Path("/nonexistent")))


def found(lock: bytes, manifest: bytes = b"{}", settings: bytes = b"") -> Found:
    files = {"yarn.lock": lock, ".yarnrc.yml": settings, "package.json": manifest}
    return Found("yarn", "", files)


def lock_of(**entries: dict[str, Any]) -> bytes:
    # JSON is YAML.
    return json.dumps({"__metadata": {"version": "10", "cacheKey": "10c0"}, **entries}).encode()


def read(resolution: str, **fields: Any) -> Lock:
    entry = {"version": "1.0.0", "resolution": resolution, **fields}
    return MANAGER.read(found(lock_of(a=entry)))


def test_a_real_lock_is_read_whole():
    """What other platforms need is left out; what no checksum pins is named."""
    lock = MANAGER.read(found(REAL))
    names = {one.name for one in lock.artifacts}
    assert lock.problems == ()
    assert {"nanoid", "typescript", "esbuild", "tsx", "fsevents"} <= names
    assert not any("darwin" in name for name in names)
    assert all(entry.startswith("@esbuild/") for entry in lock.unpinned)
    assert next(one.url for one in lock.artifacts if one.name == "@types/node").startswith(
        "https://registry.npmjs.org/@types/node/-/node-"
    )


@pytest.mark.parametrize(
    ("resolution", "fields"),
    [
        ("a@npm:1.0.0::__archiveUrl=https%3A%2F%2Fx%2Fa.tgz", {"checksum": CHECKSUM}),
        ("a@https://github.example/a.git#commit=1", {"checksum": CHECKSUM}),
        ("a@exec:./make.js", {}),
        ("../a@npm:1.0.0", {"checksum": CHECKSUM}),
        ("a@npm:../1", {"checksum": CHECKSUM}),
        ("a@npm:1\n", {"checksum": CHECKSUM}),
        ("a@npm:1.0.0", {"checksum": "10c0/short"}),
        ("", {}),
    ],
)
def test_an_entry_that_cannot_be_fetched_is_named(resolution: str, fields: dict[str, Any]):
    """Nothing is left out silently."""
    lock = read(resolution, **fields)
    assert (lock.artifacts, [problem.entry for problem in lock.problems]) == ((), ["a"])


@pytest.mark.parametrize("protocol", ["workspace:.", "link:../x", "portal:../x", "file:./x.tgz#"])
def test_what_lies_in_the_project_is_not_fetched(protocol: str):
    """Workspaces and links."""
    assert read(f"a@{protocol}") == Lock()


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ("", True),
        ("os=linux", True),
        ("os=darwin", False),
        ("os=linux & cpu=none", False),
        ("(os=darwin | os=linux)", True),
        ("os=!win32", True),
        ("os=!linux", False),
        ("what=ever", False),
    ],
)
def test_conditions_are_those_of_yarn(conditions: str, expected: bool):
    """Alternatives in parentheses, refusals with an exclamation mark."""
    assert _is_for_this_platform(conditions) == expected


def test_the_projects_and_the_callers_registries_are_used(tmp_path: Path):
    """The project's first."""
    (tmp_path / ".yarnrc.yml").write_text("npmRegistryServer: https://own.example/\n")
    lock = lock_of(a={"version": "1.0.0", "resolution": "@s/a@npm:1.0.0", "checksum": CHECKSUM})
    manager = Yarn(Settings({}, tmp_path))
    (one,) = manager.read(found(lock)).artifacts
    assert one.url == "https://own.example/@s/a/-/a-1.0.0.tgz"
    settings = b"npmScopes: {s: {npmRegistryServer: 'https://ours.example'}}"
    (one,) = manager.read(found(lock, settings=settings)).artifacts
    assert one.url == "https://ours.example/@s/a/-/a-1.0.0.tgz"
    assert manager.named_hosts() == {"own.example:443"}


@pytest.mark.parametrize(
    ("manifest", "settings", "version", "unpinned"),
    [
        (b'{"packageManager": "yarn@4.1.0"}', b"", "4.1.0", ("yarn 4.1.0",)),
        (b'{"packageManager": "yarn@4.1.0+sha224.ab"}', b"", "4.1.0", ()),
        (b"{}", b"yarnPath: .yarn/releases/yarn-3.6.0.cjs", "3.6.0", ("yarn 3.6.0",)),
    ],
)
def test_the_version_of_yarn_that_a_project_names_is_fetched(
    manifest: bytes, settings: bytes, version: str, unpinned: tuple[str, ...]
):
    """From the registry: a file of the project is not run in the fetch."""
    lock = MANAGER.read(found(lock_of(), manifest, settings))
    (one,) = lock.artifacts
    assert (one.name, one.version, lock.unpinned) == ("@yarnpkg/cli-dist", version, unpinned)


def test_yarn_is_told_of_packages_and_checksums_only():
    """No script, no plugin; patches are those that yarn brings."""
    lock, manifest = (json.loads(text) for text in offered(found(REAL)))
    assert set(manifest) == {"name", "dependencies"}
    entries = [entry for name, entry in lock.items() if name.startswith("p")]
    assert len(entries) == len(manifest["dependencies"])
    patched = [entry["resolution"] for entry in lock.values() if "@patch:" in str(entry)]
    assert any("builtin<compat/typescript>" in one for one in patched)


@pytest.mark.parametrize("where", ["~/../../secret", "./x.patch", "/etc/passwd"])
def test_a_patch_from_elsewhere_is_left_to_the_phases(where: str):
    """Only what `yarn patch-commit` writes is shown to yarn."""
    entry = {
        "version": "1.0.0",
        "resolution": f"a@patch:a@npm%3A1.0.0#{where}::version=1.0.0",
        "checksum": CHECKSUM,
    }
    lock = json.loads(offered(found(lock_of(a=entry)))[0])
    assert set(lock) == {"__metadata", "fetched@workspace:."}


def test_a_committed_patch_is_among_the_files(tmp_path: Path):
    """And a set of its own where it changes."""
    (tmp_path / ".yarn/patches").mkdir(parents=True)
    (tmp_path / ".yarn/patches/a.patch").write_text("x")
    base = {"version": "1.0.0", "resolution": "a@npm:1.0.0", "checksum": CHECKSUM}
    reference = "a@patch:a@npm%3A1.0.0#~/.yarn/patches/a.patch::version=1.0.0&hash=1"
    entry = {"version": "1.0.0", "resolution": reference, "checksum": CHECKSUM}
    (tmp_path / "yarn.lock").write_bytes(lock_of(**{"a": base, reference[:-16]: entry}))
    with discovery.opened(tmp_path) as root:
        one = MANAGER.find(next(discovery.folders(root)))
    assert one is not None
    assert one.files[".yarn/patches/a.patch"] == b"x"
    assert any("a.patch" in key for key in json.loads(offered(one)[0]))


@pytest.mark.parametrize("complete", [True, False])
def test_a_project_with_its_packages_checked_in_needs_no_fetch(tmp_path: Path, complete: bool):
    """If they are all there."""
    entries = {
        name: {"version": "1.0.0", "resolution": f"{name}@npm:1.0.0", "checksum": CHECKSUM}
        for name in ("@s/a", "b")
    }
    (tmp_path / "yarn.lock").write_bytes(lock_of(**entries))
    (tmp_path / ".yarn/cache").mkdir(parents=True)
    digests = "0123456789-0123456789.zip"
    (tmp_path / f".yarn/cache/@s-a-npm-1.0.0-{digests}").touch()
    if complete:
        (tmp_path / f".yarn/cache/b-npm-1.0.0-{digests}").touch()
    with discovery.opened(tmp_path) as root:
        one = MANAGER.find(next(discovery.folders(root)))
    assert (one is None) == complete


def test_yarn_itself_is_fetched_where_only_the_packages_are_checked_in(tmp_path: Path):
    """corepack looks for the version that package.json names."""
    entry = {"version": "1.0.0", "resolution": "b@npm:1.0.0", "checksum": CHECKSUM}
    (tmp_path / "yarn.lock").write_bytes(lock_of(b=entry))
    (tmp_path / "package.json").write_text('{"packageManager": "yarn@4.1.0"}')
    (tmp_path / ".yarn/cache").mkdir(parents=True)
    (tmp_path / ".yarn/cache/b-npm-1.0.0-0123456789-0123456789.zip").touch()
    with discovery.opened(tmp_path) as root:
        one = MANAGER.find(next(discovery.folders(root)))
    assert one is not None
    assert "@yarnpkg/cli-dist" in {artifact.name for artifact in MANAGER.read(one).artifacts}


class FilesOnly:
    """A session that has files and does nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, _stored: Stored) -> Path:
        return self.path


@pytest.mark.parametrize("right", [True, False])
async def test_yarn_itself_is_what_the_project_names(tmp_path: Path, right: bool):
    """The digest in packageManager is that of the program in the package."""
    package = tmp_path / "yarn.tgz"
    with tarfile.open(package, "w:gz") as archive:
        member = tarfile.TarInfo("package/bin/yarn.js")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"yes"))
    digest = hashlib.sha224(b"yes" if right else b"no").hexdigest()
    manifest = f'{{"packageManager": "yarn@4.1.0+sha224.{digest}"}}'.encode()
    one = found(lock_of(), manifest)
    artifact = Artifact(name="@yarnpkg/cli-dist", version="4.1.0", file="x", url="https://r/x")
    stored = [Stored(artifact=artifact, sha256="0" * 64, size=1)]
    session: Any = FilesOnly(package)
    if right:
        assert await _program(session, one, stored) == b"yes"
        return
    with pytest.raises(DependencyRejected) as refused:
        await _program(session, one, stored)
    assert refused.value.code == "CR-FETCH-001"


def test_a_file_that_yarn_refuses_is_a_rejected_download():
    """yarn's own words name the package."""
    text = "➤ YN0018: │ a@npm:4.0.1: The remote archive doesn't match the expected checksum\n"
    error = _failed(found(lock_of()), text.encode())
    assert isinstance(error, DependencyRejected)
    assert "a@npm:4.0.1" in str(error)


def test_corepack_finds_yarn_in_its_home(tmp_path: Path):
    """As corepack 0.19 and later have it."""
    _add_to_corepack(tmp_path, ToolVersion("yarn", "4.1.0"), b"x")
    folder = tmp_path / "corepack/v1/yarn/4.1.0"
    assert (folder / "yarn.js").read_bytes() == b"x"
    assert json.loads((folder / ".corepack").read_text())["bin"] == ["yarn", "yarnpkg"]


@pytest.mark.parametrize("text", [b"__metadata: 1", b"[]", b"__metadata: [", b"\xff", b"a: *x"])
def test_what_is_no_lock_is_refused_by_name(text: bytes):
    """CR-FETCH-006, at the file."""
    with pytest.raises(ProjectError) as refused:
        MANAGER.read(found(text))
    assert (refused.value.code, refused.value.where) == ("CR-FETCH-006", "yarn.lock:1:1")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    st.dictionaries(
        st.text(),
        JSON
        | st.fixed_dictionaries(
            {},
            optional={
                "resolution": JSON | st.text(alphabet="a@npm:/.1#~!patch&"),
                "version": JSON,
                "checksum": JSON,
                "conditions": JSON,
            },
        ),
    )
)
def test_any_content_is_read_or_refused(entries: dict[str, Any]):
    """A lock comes with the project: it may say anything."""
    one = found(lock_of(**entries))
    lock = Lock()
    with suppress(ProjectError):
        lock = MANAGER.read(one)
        offered(one)
    assert all("/" not in artifact.file for artifact in lock.artifacts)


@given(st.binary() | JSON.map(lambda value: json.dumps({"dist": value}).encode()))
def test_any_answer_of_a_registry_is_read(text: bytes):
    """It names a digest or none."""
    assert _integrity(text) == ""
