"""yarn 1's lock: which packages are fetched, and by which names yarn finds them."""

from __future__ import annotations

import base64
import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.dependencies.model import Complete, Fetched, Found, Lock, Stored
from cleanroom.dependencies.settings import Settings
from cleanroom.dependencies.yarn_classic import YarnClassic
from cleanroom.model.errors import ProjectError

REAL = (Path(__file__).parent.parent / "fixtures/dependencies/classic.yarn.lock").read_bytes()
MANAGER = YarnClassic(Settings({}, Path("/nonexistent")))
INTEGRITY = "sha512-" + base64.b64encode(hashlib.sha512(b"x").digest()).decode()


def found(lock: bytes, settings: bytes = b"") -> Found:
    return Found("yarn-classic", "", {"yarn.lock": lock, ".npmrc": settings})


def entry(key: str, **fields: str) -> bytes:
    lines = [f"{key}:"] + [f'  {name} "{value}"' for name, value in fields.items()]
    return ("# yarn lockfile v1\n\n" + "\n".join(lines) + "\n").encode()


def test_a_real_lock_is_read_whole():
    """Programs for other platforms too, since yarn 1 wants them."""
    lock = MANAGER.read(found(REAL))
    names = {one.name for one in lock.artifacts}
    assert lock.problems == ()
    assert {"nanoid", "@sindresorhus/is", "esbuild", "@esbuild/linux-x64", "tsx"} <= names
    assert "@esbuild/darwin-arm64" in names
    assert all(one.digest.startswith("sha512:") for one in lock.artifacts)


def test_yarns_own_registry_is_npms():
    """The caller's mirror takes its place as it takes npm's."""
    resolved = "https://registry.yarnpkg.com/@s/a/-/a-1.0.0.tgz#" + "a" * 40
    lock = entry('"b@npm:@s/a@^1"', version="1.0.0", resolved=resolved)
    (one,) = MANAGER.read(found(lock)).artifacts
    assert (one.name, one.url) == ("@s/a", "https://registry.npmjs.org/@s/a/-/a-1.0.0.tgz")
    assert one.digest == "sha1:" + "a" * 40
    (one,) = MANAGER.read(found(lock, b"registry=https://ours.example/\n")).artifacts
    assert one.url == "https://ours.example/@s/a/-/a-1.0.0.tgz"


@pytest.mark.parametrize(
    "fields",
    [
        {"resolved": "git+https://x.example/a.git#1"},
        {"resolved": "https://x.example/a.git#1"},
        {"resolved": "file:./a.tgz"},
        {"resolved": "https://x.example/a/-/a.tgz"},
        {"resolved": "https://x.example/../-/a.tgz", "integrity": INTEGRITY},
        {"resolved": "https://x.example/a/-/a.tgz", "integrity": INTEGRITY, "version": "../1"},
    ],
)
def test_an_entry_that_cannot_be_fetched_is_named(fields: dict[str, str]):
    """Nothing is left out silently."""
    lock = MANAGER.read(found(entry("a@^1", **{"version": "1.0.0", **fields})))
    assert (lock.artifacts, [problem.entry for problem in lock.problems]) == ((), ["a@^1"])


@pytest.mark.parametrize("text", [b"# yarn lockfile v1\na\n", b"\xff", b"a: b"])
def test_what_is_no_lock_is_refused_by_name(text: bytes):
    """CR-FETCH-006, at the line."""
    with pytest.raises(ProjectError) as refused:
        MANAGER.read(found(text))
    assert refused.value.code == "CR-FETCH-006"


class FilesOnly:
    """A session that has one file and does nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, _stored: Stored) -> Path:
        return self.path


async def test_yarn_finds_the_files_by_its_names(tmp_path: Path):
    """The scope goes before the name of the file."""
    (tmp_path / "stored").write_bytes(b"x")
    (tmp_path / "view").mkdir()
    one = found(REAL)
    artifacts = MANAGER.read(one).artifacts
    files = tuple(Stored(artifact=a, sha256="0" * 64, size=1) for a in artifacts)
    fetched = Fetched(manager="yarn-classic", folder="", name="yarn.lock", files=files)
    session: Any = FilesOnly(tmp_path / "stored")
    await MANAGER.lay_out(session, [Complete(one, fetched)], tmp_path / "view", "/place")
    names = {path.name for path in (tmp_path / "view/mirror").iterdir()}
    assert {"@sindresorhus-is-7.2.0.tgz", "typescript-5.9.3.tgz"} <= names
    assert len(names) == len(artifacts)
    access = MANAGER.access("/view")
    assert access.variables == {"YARN_YARN_OFFLINE_MIRROR": "/view/mirror"}


@given(
    st.lists(
        st.tuples(
            st.text(alphabet="a@/^1:\"'."),
            st.dictionaries(
                st.sampled_from(["version", "resolved", "integrity"]),
                st.text() | st.sampled_from([INTEGRITY, "https://x/a/-/..", "https://[/a"]),
            ),
        )
    )
)
def test_any_content_is_read_or_refused(entries: list[tuple[str, dict[str, str]]]):
    """A lock comes with the project: it may say anything."""
    text = b"".join(entry(key, **fields) for key, fields in entries)
    lock = Lock()
    with suppress(ProjectError):
        lock = MANAGER.read(found(text))
    assert all("/" not in one.file and one.file not in (".", "..") for one in lock.artifacts)
