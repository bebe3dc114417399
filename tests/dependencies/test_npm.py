"""npm's lock: which packages are fetched, from where, under which digest."""

from __future__ import annotations

import base64
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.dependencies.model import Artifact, Complete, Fetched, Found, Lock, Stored
from cleanroom.dependencies.npm import Npm, _packuments
from cleanroom.dependencies.npmrc import Npmrc
from cleanroom.dependencies.settings import Settings
from cleanroom.dependencies.store import Store
from cleanroom.model.errors import ProjectError

DIGEST = "sha512-" + base64.b64encode(hashlib.sha512(b"x").digest()).decode()
SHOWN = f"sha512:{hashlib.sha512(b'x').hexdigest()}"


def read_lock(path: str, content: bytes, own: str = "", project: str = "") -> Lock:
    """Read by a caller and a project with these texts for an `.npmrc`."""
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / ".npmrc").write_text(own)
        manager = Npm(Settings({}, Path(home)))
    return manager.read(Found("npm", "", {path: content, ".npmrc": project.encode()}))


def lock(**packages: dict[str, Any]) -> bytes:
    entries = {f"node_modules/{name}": entry for name, entry in packages.items()}
    return json.dumps({"lockfileVersion": 3, "packages": {"": {"name": "p"}, **entries}}).encode()


def entry(**fields: Any) -> dict[str, Any]:
    return {"version": "1.2.3", "integrity": DIGEST, **fields}


def test_an_entry_has_its_address_digest_and_purl():
    """As npm itself would take it."""
    url = "https://registry.example/@scope/a/-/a-1.2.3.tgz"
    (found,) = read_lock("l", lock(**{"@scope/a": entry(resolved=url)})).artifacts
    assert (found.name, found.url, found.digest) == ("@scope/a", url, SHOWN)
    assert (found.file, found.purl) == ("a-1.2.3.tgz", "pkg:npm/%40scope/a@1.2.3")


def test_an_address_that_the_lock_leaves_out_is_derived():
    """npm's `omit-lockfile-registry-resolved` writes such locks."""
    (found,) = read_lock("l", lock(**{"@scope/a": entry()})).artifacts
    assert found.url == "https://registry.npmjs.org/@scope/a/-/a-1.2.3.tgz"


@pytest.mark.parametrize("resolved", ["", "https://registry.npmjs.org/a/-/a-1.2.3.tgz"])
def test_a_mirror_of_the_callers_takes_the_place_of_npms_registry(resolved: str):
    """As npm itself replaces the host; the project's own registry comes first."""
    text = lock(a=entry(resolved=resolved))
    (found,) = read_lock("l", text, own="registry=https://mirror.example/npm/\n").artifacts
    assert found.url == "https://mirror.example/npm/a/-/a-1.2.3.tgz"
    own, project = "registry=https://mirror.example/", "registry=https://ours.example/"
    (found,) = read_lock("l", text, own, project).artifacts
    assert found.url == "https://ours.example/a/-/a-1.2.3.tgz"


def test_credentials_are_the_callers_and_go_to_their_path_only():
    """A project's `.npmrc` names none, and another host gets none."""
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / ".npmrc").write_text(
            "registry=https://r.example/npm/\n//r.example/npm/:_authToken=${TOKEN}\n"
        )
        manager = Npm(Settings({"TOKEN": "t"}, Path(home)))
    assert manager.credentials("https://r.example/npm/a/-/a.tgz") == {"Authorization": "Bearer t"}
    for other in ("https://r.example/other/a.tgz", "https://x.example/npm/a.tgz"):
        assert manager.credentials(other) == {}
    assert manager.named_hosts() == {"r.example:443"}


@pytest.mark.parametrize(
    "left_out",
    [
        {"link": True},
        {"inBundle": True},
        {"optional": True, "os": ["darwin"]},
        {"optional": True, "cpu": ["s390x"]},
        {"optional": True, "os": ["!linux"]},
    ],
)
def test_what_this_platform_does_not_install_is_not_fetched(left_out: dict[str, Any]):
    """Optional packages of others, links to workspaces, what comes inside another package."""
    assert read_lock("l", lock(a=entry(**left_out))).artifacts == ()


def test_the_same_file_at_two_places_is_one():
    """A package that several others need is fetched once."""
    found = read_lock("l", lock(a=entry(), **{"b/node_modules/a": entry()}))
    assert len(found.artifacts) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"integrity": ""},
        {"resolved": "git+ssh://git@host.example/a.git#1"},
        {"resolved": "https://[/a.tgz"},
        {"version": "../../1"},
        {"name": "../a", "version": "1\n"},
    ],
)
def test_an_entry_that_cannot_be_fetched_is_named(fields: dict[str, Any]):
    """Nothing is left out silently."""
    found = read_lock("l", lock(a=entry(**fields)))
    assert found.artifacts == ()
    assert [problem.entry for problem in found.problems] == ["node_modules/a"]


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"packages": 1}', b"\xff", b"null", b"[" * 10**5]
)
def test_what_is_no_lock_is_refused_by_name(text: bytes):
    """CR-FETCH-006, at the file."""
    with pytest.raises(ProjectError) as refused:
        read_lock("web/package-lock.json", text)
    assert (refused.value.code, refused.value.where) == (
        "CR-FETCH-006",
        "web/package-lock.json:1:1",
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.sampled_from(["node_modules/a", "a", ""]), JSON))
def test_any_content_is_read_or_refused(packages: dict[str, Any]):
    """A lock comes with the project: it may say anything."""
    found = read_lock("l", json.dumps({"packages": packages}).encode())
    assert all(isinstance(one.url, str) for one in found.artifacts)


@given(st.dictionaries(st.sampled_from(["version", "resolved", "integrity", "name", "os"]), JSON))
def test_any_fields_of_an_entry_are_read_or_named(fields: dict[str, Any]):
    """Whatever types they have; a file name never has a folder."""
    found = read_lock("l", lock(a={**entry(), **fields}))
    assert all("/" not in one.file for one in found.artifacts)
    assert len(found.artifacts) + len(found.problems) <= 1


def test_npms_cache_has_content_under_its_digest(tmp_path: Path):
    """The path that npm computes from the lock."""
    from cleanroom.dependencies.node_packages import content_path

    value = SHOWN.partition(":")[2]
    assert content_path(SHOWN) == (
        f"_cacache/content-v2/sha512/{value[:2]}/{value[2:4]}/{value[4:]}"
    )


async def test_a_package_that_is_the_document_of_another_is_not_written_again(tmp_path: Path):
    """A lock may name it by its digest: in the cache it is the store's file, which only root could
    write to.
    """
    store, manager = Store(tmp_path / "cache"), Npm(Settings({}, tmp_path))

    def stored(name: str, content: bytes) -> Stored:
        (tmp_path / name).write_bytes(content)
        digest = f"sha512:{hashlib.sha512(content).hexdigest()}"
        one = Artifact(name=name, version="1", file=f"{name}-1.tgz", url="", digest=digest)
        return store.add(one, tmp_path / name)

    first = stored("a", b"a package")
    fetched = Fetched(manager="npm", folder="", name="package-lock.json", files=(first,))
    ((_, document),) = _packuments(Npmrc(""), fetched)
    second = stored("b", document)
    before = store.file(second.sha256).stat()
    session: Any = type("Session", (), {"file": lambda _, one: store.file(one.sha256)})()
    fetched = msgspec.structs.replace(fetched, files=(first, second))

    found = Found("npm", "", {"package-lock.json": b"{}"})
    await manager.lay_out(session, [Complete(found, fetched)], tmp_path / "view", "/view")

    assert store.file(second.sha256).stat().st_mtime_ns == before.st_mtime_ns
