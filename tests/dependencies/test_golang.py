"""Go's sums and workspaces: which modules are fetched, from where, and what go reads offline."""

from __future__ import annotations

import io
import json
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.core.beneath import Folder
from cleanroom.dependencies.discovery import ProjectFolder
from cleanroom.dependencies.go_hashes import NOT_A_ZIP, of_go_mod, of_zip
from cleanroom.dependencies.golang import Go, Proxy, at_proxy, read_sums, uses
from cleanroom.dependencies.model import Artifact, Complete, Fetched, Found, Stored
from cleanroom.dependencies.session import HOME_CACHE
from cleanroom.dependencies.settings import Settings
from cleanroom.model.errors import ProjectError

SUMS = Path(__file__).parents[1] / "fixtures/dependencies/command.go.sum"
HASH = "h1:" + "A" * 43 + "="
LINE = f"example.com/a v1.0.0 {HASH}\n"


def manager(home: Path = Path("/nonexistent"), **variables: str) -> Go:
    return Go(Settings(variables, home))


def found(text: str, name: str = "go.sum") -> Found:
    return Found("go", "", {name: text.encode()})


def test_real_sums_are_read():
    """Zip files where their hash is there, go.mod files of all that the graph needs."""
    lock = manager().read(Found("go", "", {"go.sum": SUMS.read_bytes()}))
    addresses = {one.url: one for one in lock.artifacts}
    assert len(addresses) == 20
    toml = addresses["https://proxy.golang.org/github.com/!burnt!sushi/toml/@v/v1.6.0.zip"]
    assert toml.digest == "h1:dRaEfpa2VI55EwlIW72hMRHdWouJeRF7TPYhI+AUQjk="
    assert toml.purl == "pkg:golang/github.com/burntsushi/toml@v1.6.0"
    mod = addresses["https://proxy.golang.org/github.com/cpuguy83/go-md2man/v2/@v/v2.0.6.mod"]
    assert (mod.digest.partition(":")[0], mod.purl) == ("h1mod", "")
    assert (lock.problems, lock.unresolved, lock.unpinned) == ((), (), ())


@pytest.mark.parametrize(
    "line",
    [
        f"../a v1.0.0 {HASH}",
        f"a/../b v1.0.0 {HASH}",
        f"a/.b v1.0.0 {HASH}",
        f"/a v1.0.0 {HASH}",
        f"a//b v1.0.0 {HASH}",
        f"a\0b v1.0.0 {HASH}",
        f"a@v/b v1.0.0 {HASH}",
        f"{'a/' * 200}a v1.0.0 {HASH}",
        f"a v1/../../2 {HASH}",
        f"a latest {HASH}",
        "a v1.0.0 h2:AAAA",
        "a v1.0.0 h1:AAAA",
        f"golang.org/toolchain v0.0.1-go1.99.0.linux-amd64 {HASH}",
    ],
)
def test_an_entry_that_cannot_be_fetched_is_named(line: str):
    """Nothing is left out silently."""
    lock = manager().read(found(line))
    assert (lock.artifacts, len(lock.problems)) == ((), 1)


def test_a_line_of_another_file_is_refused_by_number():
    """CR-FETCH-006."""
    with pytest.raises(ProjectError) as refused:
        manager().read(found(f"{LINE}<<<<<<< HEAD\n"))
    assert (refused.value.code, refused.value.where) == ("CR-FETCH-006", "go.sum:2:1")


@given(st.binary() | st.text().map(lambda text: f"{text} v1.0.0 {HASH}".encode()))
def test_any_bytes_are_read_or_refused(content: bytes):
    """It comes with the project; no path leads out of a view."""
    with suppress(ProjectError):
        for one in read_sums("go.sum", content):
            path = at_proxy(getattr(one, "path", "a"), getattr(one, "version", "v1"))
            assert not {"", ".", ".."} & set(path.split("/"))


def test_requirements_without_sums_are_named():
    """go itself refuses to build them."""
    (problem,) = manager().read(found("require example.com/a v1.0.0", "go.mod")).problems
    assert problem.hint == "`go mod tidy` writes one"


# --- the caller's configuration


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, "https://proxy.golang.org"),
        ({"GOPROXY": "https://own.example/go/,direct"}, "https://own.example/go"),
        ({"GOPROXY": "file:///x|http://own.example|https://b.example"}, "http://own.example"),
        ({"GOPROXY": "direct"}, ""),
        ({"GOPROXY": "off"}, ""),
    ],
)
def test_modules_come_from_the_callers_proxy(variables: dict[str, str], url: str):
    """The first that answers over a network; none means the repositories."""
    assert Proxy.of(Settings(variables, Path("/nonexistent"))).url == url
    lock = manager(**variables).read(found(LINE))
    assert (len(lock.artifacts), len(lock.problems)) == ((1, 0) if url else (0, 1))


def test_a_login_stays_out_of_addresses():
    """It goes to the proxy's host, which may be a private one."""
    own = manager(GOPROXY="https://u:p@own.example/go")
    (artifact,) = own.read(found(LINE)).artifacts
    assert artifact.url == "https://own.example/go/example.com/a/@v/v1.0.0.zip"
    assert own.credentials(artifact.url) == {"Authorization": "Basic dTpw"}
    assert own.credentials("https://proxy.golang.org/x") == {}
    assert own.named_hosts() == {"own.example:443"}
    assert manager().named_hosts() == frozenset()


def test_what_go_env_wrote_counts(tmp_path: Path):
    """`go env -w GOPROXY=...`; a variable counts more."""
    (tmp_path / ".config/go").mkdir(parents=True)
    (tmp_path / ".config/go/env").write_text("GOPROXY=https://own.example\nGOPRIVATE=x.example\n")
    assert Proxy.of(Settings({}, tmp_path)).url == "https://own.example"
    assert not Proxy.of(Settings({}, tmp_path)).serves("x.example/a/b")
    assert Proxy.of(Settings({"GOPROXY": "https://b.example"}, tmp_path)).url == "https://b.example"


@pytest.mark.parametrize("pattern", ["example.com", "*.com", "example.com/a", "x,*.com/a/"])
def test_a_private_module_is_named_and_asked_of_nobody(pattern: str):
    """The proxy would learn its name."""
    lock = manager(GOPRIVATE=pattern).read(found(LINE))
    assert (lock.artifacts, len(lock.problems)) == ((), 1)


@pytest.mark.parametrize("pattern", ["", "example.com/a/b", "example", "example.com/b", ","])
def test_patterns_are_for_whole_folders(pattern: str):
    """As go matches them."""
    assert len(manager(GOPRIVATE=pattern).read(found(LINE)).artifacts) == 1


def test_go_s_own_cache_may_have_it(tmp_path: Path):
    """By the names that a proxy has."""
    artifact = Artifact(name="example.com/A", version="v1.0.0", file="v1.0.0.zip", url="")
    path = "cache/download/example.com/!a/@v/v1.0.0.zip"
    assert manager(tmp_path).local_copies(artifact) == (tmp_path / "go/pkg/mod" / path,)
    assert manager(GOMODCACHE="/m").local_copies(artifact) == (Path("/m") / path,)
    assert manager(GOPATH="/g:/h").local_copies(artifact) == (Path("/g/pkg/mod") / path,)


# --- the project


def test_a_workspace_names_its_modules():
    """One by one and in a block."""
    work = b'go 1.24\n\nuse ./a // first\nuse (\n\t./b\n\t"./c/d" // x\n)\nreplace x => ./e\n'
    assert uses(work) == ["a", "b", "c/d"]


def find(tmp_path: Path, path: str, *files: str) -> Found | None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        text = "use (\n ./a\n)\n" if name.endswith("go.work") else "require x v1\n"
        (tmp_path / name).write_text(text)
    with Folder.at(tmp_path) as root:
        return manager().find(ProjectFolder(root, path))


def test_a_module_has_its_sums(tmp_path: Path):
    """The file that counts is named first."""
    one = find(tmp_path, "", "go.mod", "go.sum")
    assert one is not None
    assert list(one.files) == ["go.sum", "go.mod"]


def test_a_workspace_has_the_sums_of_its_modules(tmp_path: Path):
    """These are not found again; another module beside them is."""
    files = ("go.work", "go.work.sum", "a/go.mod", "a/go.sum", "b/go.mod", "b/go.sum")
    one = find(tmp_path, "", *files)
    assert one is not None
    assert list(one.files) == ["go.work.sum", "go.work", "a/go.sum", "a/go.mod"]
    assert find(tmp_path, "a") is None
    assert find(tmp_path, "b") is not None


@pytest.mark.parametrize("files", [("go.mod", "go.sum", "vendor/modules.txt"), ("go.sum",)])
def test_a_project_that_needs_nothing(tmp_path: Path, files: tuple[str, ...]):
    """Vendored, or no module."""
    assert find(tmp_path, "", *files) is None


def test_a_module_that_requires_nothing_needs_nothing(tmp_path: Path):
    """It has no sums."""
    (tmp_path / "go.mod").write_text("module example.com/a\n\ngo 1.24\n")
    assert find(tmp_path, "") is None


# --- hashes


def zipped(*entries: tuple[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return made.getvalue()


def test_hashes_are_those_of_go(tmp_path: Path):
    """As `dirhash.Hash1` of golang.org/x/mod gives them, whatever the order in the file."""
    (tmp_path / "go.mod").write_bytes(b"module example.com/a\n")
    assert of_go_mod(tmp_path / "go.mod") == "NeOsx/KTizj35klXP3wYh3O0751aAtYrRoX+a6YAye8="
    for entries in ((("a@v1/b", b"x"), ("a@v1/ä", b"y")), (("a@v1/ä", b"y"), ("a@v1/b", b"x"))):
        (tmp_path / "a.zip").write_bytes(zipped(*entries))
        assert of_zip(tmp_path / "a.zip") == "U8B0R4fSK2qL8HEWkxMmd/bPYp3t9cOthuQLMLEBTgg="


@given(st.binary(), st.integers(0, 400))
def test_any_bytes_have_a_hash_or_are_no_zip_file(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, at: int
):
    """A registry may give anything."""
    whole = zipped(("a@v1/b", b"x" * 50), ("a@v1/c", b"y"))
    path = tmp_path_factory.mktemp("zip") / "a.zip"
    path.write_bytes(whole[:at] + data + whole[at + len(data) :])
    assert isinstance(of_zip(path), str)


def test_a_zip_file_that_unpacks_to_more_than_go_takes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Before anything is inflated."""
    monkeypatch.setattr("cleanroom.dependencies.go_hashes.UNPACKED_MAX", 10)
    (tmp_path / "a.zip").write_bytes(zipped(("a", b"x" * 11)))
    assert of_zip(tmp_path / "a.zip") == NOT_A_ZIP


# --- what go reads


async def test_the_view_is_a_proxy_of_files(tmp_path: Path):
    """`go help goproxy`: list, .info, .mod, .zip."""
    lock = manager().read(found(f"e.com/A v1.0.0 {HASH}\ne.com/A v1.0.0/go.mod {HASH}\n"))
    (tmp_path / "file").write_text("x")
    files = tuple(Stored(artifact=one, sha256="0", size=1) for one in lock.artifacts)
    fetched = Fetched(manager="go", folder="", name="go.sum", files=files)

    class Files:
        def file(self, stored: Stored) -> Path:
            return tmp_path / "file"

    session: Any = Files()
    view = tmp_path / "view"
    view.mkdir()
    await manager().lay_out(session, [Complete(found(LINE), fetched)], view, "/place")
    folder = view / "e.com/!a/@v"
    assert sorted(path.name for path in folder.iterdir()) == [
        "list",
        "v1.0.0.info",
        "v1.0.0.mod",
        "v1.0.0.zip",
    ]
    assert json.loads((folder / "v1.0.0.info").read_text()) == {"Version": "v1.0.0"}
    assert (folder / "list").read_text() == "v1.0.0\n"


def test_phases_have_the_cache_in_the_home_that_stays():
    """As the engine has it."""
    from cleanroom.engine.phases.environment_spec import HOME

    assert f"{HOME}/.cache" == HOME_CACHE
    assert manager().access("/view").variables["GOMODCACHE"].startswith(f"{HOME_CACHE}/")


def test_a_zip_of_more_entries_than_a_module_has_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """They are counted before the library holds them."""
    monkeypatch.setattr("cleanroom.dependencies.go_hashes.ENTRIES_MAX", 2)
    for many in (2, 3):
        path = tmp_path / f"{many}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for number in range(many):
                archive.writestr(f"m@v1.0.0/{number}", b"")
        assert (of_zip(path) == NOT_A_ZIP) == (many == 3)
    monkeypatch.setattr("zipfile.ZipFile", None)
    assert of_zip(tmp_path / "3.zip") == NOT_A_ZIP
