"""Cargo's lock and configuration: what is fetched, from where, and what cargo reads offline."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.core.beneath import Folder
from cleanroom.dependencies.cargo import Cargo, Crate, _address, _unpackings, read_lock
from cleanroom.dependencies.cargo_config import (
    CargoSettings,
    offline_config,
    replacements,
    sources,
    vendored,
)
from cleanroom.dependencies.discovery import ProjectFolder
from cleanroom.dependencies.model import Artifact, Complete, Fetched, Found, Stored
from cleanroom.dependencies.session import Page
from cleanroom.dependencies.settings import Settings
from cleanroom.model.errors import DependencyRejected, DependencyUnavailable, ProjectError

LOCK = Path(__file__).parents[1] / "fixtures/dependencies/workspace.Cargo.lock"
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"
OWN = "sparse+https://crates.example/index/"
DIGEST = "0" * 64


def package(**fields: str) -> str:
    known = {"name": "a", "version": "1.0.0", "source": CRATES_IO, "checksum": DIGEST} | fields
    return "[[package]]\n" + "".join(f'{key} = "{value}"\n' for key, value in known.items())


def found(text: str, **further: str) -> Found:
    files = {"Cargo.lock": text.encode(), **{k: v.encode() for k, v in further.items()}}
    return Found("cargo", "", files)


def manager(home: Path, **variables: str) -> Cargo:
    return Cargo(Settings(variables, home))


class Pages:
    """A session that answers with one document."""

    def __init__(self, page: bytes) -> None:
        self.page = page
        self.asked: list[str] = []

    async def read(self, pages: list[Page]) -> list[bytes]:
        self.asked += [page.url for page in pages]
        return [self.page for _ in pages]


def test_a_real_lock_is_read(tmp_path: Path):
    """All packages of crates.io, and none of the workspace or of a path."""
    lock = manager(tmp_path).read(Found("cargo", "", {"Cargo.lock": LOCK.read_bytes()}))
    by_name = {one.name: one for one in lock.artifacts}
    assert len(by_name) == 49
    assert not {"shop-cli", "shop-lib", "itoa"} & by_name.keys()
    assert (lock.problems, lock.unresolved, lock.unpinned) == ((), (), ())
    assert by_name["wasi"].url == (
        "https://static.crates.io/crates/wasi/wasi-0.11.1%2Bwasi-snapshot-preview1.crate"
    )
    assert by_name["regex"].purl.startswith("pkg:cargo/regex@1.")


@pytest.mark.parametrize("source", [CRATES_IO, "sparse+https://index.crates.io/"])
def test_crates_io_has_two_names(tmp_path: Path, source: str):
    """One of each protocol."""
    (one,) = manager(tmp_path).read(found(package(source=source))).artifacts
    assert one.url == "https://static.crates.io/crates/a/a-1.0.0.crate"


def test_a_lock_of_an_old_cargo_has_its_digests_at_the_end(tmp_path: Path):
    """Version 1, before cargo 1.41."""
    text = f'[[package]]\nname = "a"\nversion = "1.0.0"\nsource = "{CRATES_IO}"\n'
    text += f'[metadata]\n"checksum a 1.0.0 ({CRATES_IO})" = "{DIGEST}"\n'
    (one,) = manager(tmp_path).read(found(text)).artifacts
    assert one.digest == f"sha256:{DIGEST}"


@pytest.mark.parametrize(
    "fields",
    [
        {"source": "git+https://host.example/a?rev=1#1"},
        {"source": "registry+https://host.example/index"},
        {"source": "sparse+https://user:password@host.example/"},
        {"source": "else"},
        {"checksum": ""},
        {"checksum": "<none>"},
        {"name": "../a"},
        {"name": "a\\n"},
        {"version": "1.0/.."},
        {"version": "1\\u0000"},
    ],
)
def test_an_entry_that_cannot_be_fetched_is_named(tmp_path: Path, fields: dict[str, str]):
    """Nothing is left out silently."""
    lock = manager(tmp_path).read(found(package(**fields)))
    assert (lock.artifacts, lock.unresolved, len(lock.problems)) == ((), (), 1)


@pytest.mark.parametrize(
    "text", ["x =", "package = 1", "package = [1]", "\0", "x = " + "[" * 5000, "x = " + "9" * 5000]
)
def test_what_is_no_lock_is_refused_by_name(tmp_path: Path, text: str):
    """CR-FETCH-006, at the file."""
    with pytest.raises(ProjectError) as refused:
        manager(tmp_path).read(found(text))
    assert (refused.value.code, refused.value.where) == ("CR-FETCH-006", "Cargo.lock:1:1")


@given(st.binary())
def test_any_bytes_are_read_or_refused(content: bytes):
    """A lock comes with the project: it may say anything."""
    with suppress(ProjectError):
        read_lock("l", content)


VALUE: st.SearchStrategy[Any] = st.one_of(
    st.just(1 << 20000), st.integers(), st.booleans(), st.just("[]"), st.text()
)


@given(st.dictionaries(st.sampled_from(["name", "version", "source", "checksum"]), VALUE))
def test_any_fields_are_read_or_named(fields: dict[str, Any]):
    """Whatever types they have; the name of a folder is only ever that."""
    from cleanroom.dependencies.cargo import _crate

    one = _crate({"name": "a", "version": "1.0.0", "source": CRATES_IO, **fields}, {})
    assert not isinstance(one, Crate) or "/" not in one.folder


# --- other registries


@pytest.mark.parametrize(
    ("template", "address"),
    [
        ("https://h/api", "https://h/api/Abcd/1.0.0/download"),
        ("https://h/{crate}-{version}.crate", "https://h/Abcd-1.0.0.crate"),
        ("https://h/{prefix}/{lowerprefix}/x", "https://h/Ab/cd/ab/cd/x"),
        ("https://h/{sha256-checksum}", f"https://h/{DIGEST}"),
    ],
)
def test_an_archive_is_where_the_registrys_configuration_says(template: str, address: str):
    """As the Cargo Book describes `dl`."""
    assert _address(template, Crate("Abcd", "1.0.0", OWN, DIGEST)) == address


async def test_a_registry_of_the_callers_gets_its_token_and_may_be_private(tmp_path: Path):
    """Index and archives; nobody else gets it."""
    (tmp_path / ".cargo").mkdir()
    (tmp_path / ".cargo/config.toml").write_text(f'[registries.own]\nindex = "{OWN}"\n')
    (tmp_path / ".cargo/credentials.toml").write_text('[registries.own]\ntoken = "T"\n')
    one = manager(tmp_path)
    text = found(package(source=OWN))
    lock = one.read(text)
    assert (lock.artifacts, lock.unresolved) == ((), ("a-1.0.0",))
    session: Any = Pages(b'{"dl": "https://files.example/dl", "auth-required": true}')
    (artifact,) = await one.resolve(session, text, lock)
    assert session.asked == ["https://crates.example/index/config.json"]
    assert artifact.url == "https://files.example/dl/a/1.0.0/download"
    assert one.named_hosts() == {"crates.example:443"}
    assert one.credentials("https://crates.example/index/config.json") == {"Authorization": "T"}
    assert one.credentials(artifact.url) == {"Authorization": "T"}
    assert one.credentials("https://static.crates.io/crates/a") == {}


async def test_a_mirror_of_the_callers_stands_for_crates_io(tmp_path: Path):
    """The digests of the lock still decide."""
    (tmp_path / "config.toml").write_text(
        '[source.crates-io]\nreplace-with = "m"\n[source.m]\nregistry = "sparse+https://m.example/"'
    )
    one = manager(tmp_path, CARGO_HOME=str(tmp_path))
    lock = one.read(found(package()))
    session: Any = Pages(b'{"dl": "https://m.example/dl"}')
    (artifact,) = await one.resolve(session, found(package()), lock)
    assert artifact.url == "https://m.example/dl/a/1.0.0/download"
    assert one.named_hosts() == {"m.example:443"}


@pytest.mark.parametrize("page", [b"", b"[]", b'{"dl": 1}', b'{"dl": "file:///etc"}', b"\xff"])
async def test_a_registry_that_does_not_say_where_its_archives_are(tmp_path: Path, page: bytes):
    """CR-FETCH-003."""
    session: Any = Pages(page)
    text = found(package(source=OWN))
    with pytest.raises(DependencyUnavailable):
        await manager(tmp_path).resolve(session, text, manager(tmp_path).read(text))


@given(st.text())
def test_any_configuration_is_read(text: str):
    """The project's comes with the project."""
    assert isinstance(vendored(sources(text.encode(errors="replace"))), str)


def test_a_configuration_of_the_callers_that_cannot_be_read_says_nothing(tmp_path: Path):
    """cargo itself refuses it when it is used."""
    (tmp_path / "config.toml").write_text("[registries]\nx = 1\n[")
    assert CargoSettings.of(Settings({"CARGO_HOME": str(tmp_path)}, tmp_path)) == CargoSettings()


# --- what cargo reads


def project(tmp_path: Path, files: dict[str, str], path: str = "") -> Found | None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with Folder.at(tmp_path) as root:
        return manager(tmp_path / "home").find(ProjectFolder(root, path))


VENDORED = '[source.crates-io]\nreplace-with = "v"\n[source.v]\ndirectory = "third"\n'


def test_a_project_that_has_its_packages_needs_none(tmp_path: Path):
    """`cargo vendor` printed this configuration; one above the lock's folder counts too."""
    files = {"app/Cargo.lock": "", ".cargo/config.toml": VENDORED, "third/a/Cargo.toml": ""}
    assert project(tmp_path, files, "app") is None


def test_a_folder_of_packages_that_is_not_there_does_not_count(tmp_path: Path):
    """Such as one that was left out of the repository."""
    files = {"Cargo.lock": "", ".cargo/config.toml": VENDORED}
    one = project(tmp_path, files)
    assert one is not None
    assert list(one.files) == ["Cargo.lock", ".cargo/config.toml"]
    assert replacements(sources(one.files[".cargo/config.toml"])) == {"v": ""}


def test_the_configuration_replaces_each_registry_and_each_replacement():
    """A project that names a mirror has its word before ours, so the mirror is replaced too."""
    text = offline_config(
        {"crates-io": "/v/0", OWN: "/v/1"},
        {"own": OWN},
        {"ustc": "sparse+https://ustc.example/", "vendored": ""},
    )
    document = tomllib.loads(text.decode())
    assert document["source"] == {
        "cleanroom-0": {"directory": "/v/0"},
        "crates-io": {"replace-with": "cleanroom-0"},
        "ustc": {"registry": "sparse+https://ustc.example/", "replace-with": "cleanroom-0"},
        "vendored": {"directory": "/v/0", "replace-with": "cleanroom-0"},
        "cleanroom-1": {"directory": "/v/1"},
        OWN: {"registry": OWN, "replace-with": "cleanroom-1"},
    }
    assert document["registries"] == {"own": {"index": OWN}}


@given(st.dictionaries(st.text(), st.text()), st.dictionaries(st.text(), st.text()))
def test_names_of_a_project_stay_names(registries: dict[str, str], mirrors: dict[str, str]):
    """Whatever they are, the configuration can be read and says nothing else."""
    mirrors = {name: index for name, index in mirrors.items() if name not in ("crates-io",)}
    mirrors = {name: index for name, index in mirrors.items() if not name.startswith("cleanroom-")}
    document = tomllib.loads(offline_config({"crates-io": "/v"}, registries, mirrors).decode())
    assert document.keys() <= {"net", "source", "registries"}


def test_two_archives_for_one_version_are_refused():
    """One folder cannot hold both."""
    sets = []
    for digest in ("0" * 64, "1" * 64):
        artifact = Artifact(
            name="a", version="1.0.0", file="a-1.0.0.crate", url="", digest=f"sha256:{digest}"
        )
        stored = Stored(artifact=artifact, sha256=digest, size=1)
        fetched = Fetched(manager="cargo", folder="", name="Cargo.lock", files=(stored,))
        sets.append(Complete(found(package(checksum=digest)), fetched))
    with pytest.raises(DependencyRejected) as refused:
        _unpackings(sets)
    assert refused.value.code == "CR-FETCH-012"


def test_two_crates_that_unpack_to_one_folder_are_refused():
    """Also where the lock gives both the same archive."""
    content = package(name="foo", version="1-1.0") + package(name="foo-1", version="1.0")
    one = found(content)
    lock = read_lock(one.name, one.files[one.name])
    stored = [
        Stored(
            artifact=Artifact(
                name=crate.name,
                version=crate.version,
                file=f"{crate.folder}.crate",
                url="",
                digest=f"sha256:{crate.digest}",
            ),
            sha256=crate.digest,
            size=1,
        )
        for crate in lock.crates
    ]
    assert len(stored) == 2
    fetched = Fetched(manager="cargo", folder="", name=one.name, files=tuple(stored))
    with pytest.raises(DependencyRejected, match=r"foo 1-1\.0 unpacks to the same folder"):
        _unpackings([Complete(one, fetched)])
