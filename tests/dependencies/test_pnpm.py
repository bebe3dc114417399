"""pnpm's lock: which packages are fetched, and what pnpm is told of them."""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.dependencies import discovery
from cleanroom.dependencies.model import Found, Lock, Stored
from cleanroom.dependencies.pnpm import Pnpm, offered
from cleanroom.dependencies.settings import Settings
from cleanroom.model.errors import ProjectError

FIXTURES = Path(__file__).parent.parent / "fixtures/dependencies"
DIGEST = "sha512-" + base64.b64encode(hashlib.sha512(b"x").digest()).decode()
MANAGER = Pnpm(Settings({}, Path("/nonexistent")))


def found(lock: bytes, manifest: bytes = b"{}", settings: bytes = b"") -> Found:
    files = {"pnpm-lock.yaml": lock, ".npmrc": settings, "package.json": manifest}
    return Found("pnpm", "", files)


def read(packages: dict[str, Any], **fields: Any) -> Lock:
    # JSON is YAML.
    document = {"lockfileVersion": "9.0", "packages": packages, **fields}
    return MANAGER.read(found(json.dumps(document).encode()))


def entry(**fields: Any) -> dict[str, Any]:
    return {"resolution": {"integrity": DIGEST}, **fields}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("workspace.pnpm-lock.yaml", {"ms", "react", "scheduler", "typescript", "@types/ms"}),
        ("single.pnpm-lock-6.yaml", {"nanoid", "esbuild", "@esbuild/linux-x64", "tsx"}),
    ],
)
def test_real_locks_are_read_whole(name: str, expected: set[str], monkeypatch: pytest.MonkeyPatch):
    """Of both versions; each has a digest, and files of other platforms are left out."""
    monkeypatch.setattr("cleanroom.dependencies.node_packages.cpu_name", lambda: "x64")
    lock = MANAGER.read(found((FIXTURES / name).read_bytes()))
    assert lock.problems == ()
    assert expected <= {one.name for one in lock.artifacts}
    assert all(one.digest.startswith("sha512:") for one in lock.artifacts)
    assert not any("darwin" in one.name for one in lock.artifacts)


def test_what_a_project_installs_for_all_platforms_is_fetched():
    """`supportedArchitectures` in its settings."""
    lock = (FIXTURES / "single.pnpm-lock-6.yaml").read_bytes()
    lock_all = MANAGER.read(found(lock, b'{"supportedArchitectures": true}'))
    assert any("darwin" in one.name for one in lock_all.artifacts)


def test_packages_that_configure_pnpm_are_named():
    """They are in no lock of the project's packages."""
    lock = (FIXTURES / "single.pnpm-lock-6.yaml").read_bytes()
    named = MANAGER.read(found(lock, b'{"configDependencies": true}')).problems
    assert [one.entry for one in named] == ["configDependencies"]


def test_an_entry_has_address_and_purl():
    """A scope, peers behind the version, an address of its own."""
    packages = {
        "@scope/a@1.2.3": entry(),
        "b@1.0.0": {"resolution": {"integrity": DIGEST, "tarball": "https://r.example/b.tgz"}},
    }
    first = read({"@scope/a@1.2.3(react@18.0.0)": packages["@scope/a@1.2.3"]}).artifacts[0]
    assert first.url == "https://registry.npmjs.org/@scope/a/-/a-1.2.3.tgz"
    assert first.purl == "pkg:npm/%40scope/a@1.2.3"
    assert read({"b@1.0.0": packages["b@1.0.0"]}).artifacts[0].url == "https://r.example/b.tgz"


def test_the_projects_registries_are_used():
    """Those of its `.npmrc`, by scope."""
    lock = json.dumps({"lockfileVersion": "9.0", "packages": {"@s/a@1.0.0": entry()}}).encode()
    settings = b"@s:registry=https://ours.example/npm/\n"
    (one,) = MANAGER.read(found(lock, settings=settings)).artifacts
    assert one.url == "https://ours.example/npm/@s/a/-/a-1.0.0.tgz"


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        ("a@1.0.0", {"resolution": {"integrity": ""}}),
        ("a@1.0.0", {"resolution": {"type": "git", "repo": "x", "commit": "y"}}),
        ("a@https://codeload.example/a", {"resolution": {"tarball": "https://codeload.example/a"}}),
        ("../a@1.0.0", entry()),
        ("a@../../1", entry()),
        ("a@1\n", entry()),
        ("..@1.0.0", entry()),
        ("a@1.0.0", {"resolution": {"integrity": DIGEST, "tarball": "https://[/a.tgz"}}),
        ("a@1.0.0", {"resolution": {"integrity": DIGEST, "tarball": "https://x/a\n.tgz"}}),
        ("a@1.0.0", {"resolution": {"integrity": DIGEST, "tarball": "file:../a.tgz"}}),
        ("a@1.0.0", {}),
    ],
)
def test_an_entry_that_cannot_be_fetched_is_named(key: str, fields: dict[str, Any]):
    """Nothing is left out silently."""
    lock = read({key: fields})
    assert (lock.artifacts, [problem.entry for problem in lock.problems]) == ((), [key])


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"a", b"lockfileVersion: 5.4\n", b"\xff", b"a: *x\n", b"{", b"[" * 10**5]
)
def test_what_is_no_lock_is_refused_by_name(text: bytes):
    """CR-FETCH-006, at the file."""
    with pytest.raises(ProjectError) as refused:
        MANAGER.read(found(text))
    assert (refused.value.code, refused.value.where) == ("CR-FETCH-006", "pnpm-lock.yaml:1:1")


def test_pnpms_own_document_before_the_lock_is_passed_over():
    """pnpm 11 writes what it needs for itself before the lock."""
    lock = (
        b"---\nlockfileVersion: '9.0'\nimporters: {}\n---\n"
        + json.dumps({"lockfileVersion": "9.0", "packages": {"a@1.0.0": entry()}}).encode()
    )
    assert [one.name for one in MANAGER.read(found(lock)).artifacts] == ["a"]


@pytest.mark.parametrize(
    ("text", "digest", "unpinned"),
    [
        ("pnpm@9.15.9+sha512." + "a" * 128, "sha512:" + "a" * 128, ()),
        ("pnpm@9.15.9", "", ("pnpm 9.15.9 (packageManager)",)),
    ],
)
def test_the_version_of_pnpm_that_a_project_names_is_fetched(
    text: str, digest: str, unpinned: tuple[str, ...]
):
    """With the digest that the project names, where it has one."""
    lock = json.dumps({"lockfileVersion": "9.0"}).encode()
    result = MANAGER.read(found(lock, json.dumps({"packageManager": text}).encode()))
    (one,) = result.artifacts
    assert (one.name, one.digest) == ("pnpm", digest)
    assert one.url == "https://registry.npmjs.org/pnpm/-/pnpm-9.15.9.tgz"
    assert result.unpinned == unpinned


@pytest.mark.parametrize(
    "text", ['"yarn@4.0.0"', '"pnpm@https://x/"', '"pnpm@../9"', "1", "{}", '"pnpm@latest"']
)
def test_other_managers_and_addresses_are_no_version_of_pnpm(text: str):
    """Code from anywhere is not what a project may have fetched so."""
    lock = json.dumps({"lockfileVersion": "9.0"}).encode()
    assert MANAGER.read(found(lock, f'{{"packageManager": {text}}}'.encode())).artifacts == ()


@pytest.mark.parametrize("name", ["workspace.pnpm-lock.yaml", "single.pnpm-lock-6.yaml"])
def test_pnpm_is_told_of_verified_files_only(name: str):
    """Each under the key that the lock has for it, at the server; no script, no patch, no hook."""
    one = found((FIXTURES / name).read_bytes(), b'{"packageManager": "pnpm@9.1.0"}')
    artifacts = MANAGER.read(one).artifacts
    files = [Stored(artifact=a, sha256="0" * 64, size=1) for a in artifacts]
    lock, manifest = (json.loads(text) for text in offered(one, files, "http://served/0"))
    assert len(lock["packages"]) == len(artifacts) - 1  # pnpm itself is none of them
    for entry_ in lock["packages"].values():
        assert entry_["resolution"]["tarball"].startswith("http://served/0/")
        assert entry_["resolution"]["integrity"].startswith("sha512-")
    assert manifest["packageManager"] == "pnpm@9.1.0"
    assert "scripts" not in manifest


def test_found_is_the_lock_and_what_matters_to_it(tmp_path: Path):
    """A changed script in package.json has nothing laid out anew."""
    (tmp_path / "pnpm-lock.yaml").write_text("lockfileVersion: '9.0'\n")
    seen = []
    for script in ("a", "b"):
        manifest = {"scripts": {"x": script}, "packageManager": "pnpm@9.1.0"}
        (tmp_path / "package.json").write_text(json.dumps(manifest))
        with discovery.opened(tmp_path) as root:
            (folder, *_) = discovery.folders(root)
            seen.append(MANAGER.find(folder))
    assert seen[0] == seen[1]
    assert seen[0] is not None
    assert json.loads(seen[0].files["package.json"]) == {"packageManager": "pnpm@9.1.0"}


@pytest.mark.parametrize(("version", "prefix"), [("v3", "npm"), ("v10", "npm"), ("v11", "pnpm")])
def test_phases_have_the_store_copy_on_write_at_one_place(
    tmp_path: Path, version: str, prefix: str
):
    """And the variables that pnpm's version reads: npm warns of unknown ones."""
    (tmp_path / "store" / version).mkdir(parents=True)
    access = MANAGER.access(str(tmp_path))
    (overlay,) = access.overlays
    assert overlay.source == str(tmp_path / "store")
    assert access.variables[f"{prefix}_config_store_dir"] == overlay.target
    assert len({name.partition("_")[0] for name in access.variables}) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    st.dictionaries(
        st.sampled_from(["a@1.0.0", "/a@1.0.0(b@1)", "@/@", "", "a@https://x/y@z"]),
        JSON | st.dictionaries(st.sampled_from(["resolution", "os", "version"]), JSON),
    ),
    st.sampled_from(["6.0", "9.0"]),
    JSON,
)
def test_any_content_is_read_or_refused(packages: dict[str, Any], version: str, snapshots: Any):
    """A lock comes with the project: it may say anything."""
    document = {"lockfileVersion": version, "packages": packages, "snapshots": snapshots}
    lock = Lock()
    with suppress(ProjectError):
        lock = MANAGER.read(found(json.dumps(document).encode()))
    assert all("/" not in one.file and "\n" not in one.url for one in lock.artifacts)
