"""pip's files: which packages are fetched, what pip resolves, and what is refused by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.dependencies import discovery, python_projects, requirements, simple_index
from cleanroom.dependencies import pip as pip_module
from cleanroom.dependencies.model import Artifact, Complete, Fetched, Found, Stored
from cleanroom.dependencies.pip import Pip
from cleanroom.dependencies.pip_config import PipConfig, index_hosts
from cleanroom.dependencies.pip_report import Root, read_report, root_files
from cleanroom.dependencies.python_tags import Interpreter, applies
from cleanroom.dependencies.session import Page, ToolResult, ToolRun
from cleanroom.dependencies.settings import Settings
from cleanroom.model.errors import DependencyUnavailable, ProjectError

NOBODY = Settings({}, Path("/nonexistent"))
MANAGER = Pip(NOBODY)
DIGEST = "sha256:" + "0" * 64
LINUX = Interpreter("cpython", 3, 11, "x86_64", libc_version="2.36")


def found(**files: str) -> Found:
    """A set of files: `requirements_txt` stands for "requirements.txt"."""
    named = {name.replace("_", "."): text.encode() for name, text in files.items()}
    return Found("pip", "", named)


class Index:
    """A session with one package in its index, and an interpreter."""

    def __init__(self, *files: tuple[str, str], folder: Path = Path("/nonexistent")) -> None:
        self.files = files
        self.folder = folder
        self.asked: list[str] = []
        self.runs: list[ToolRun] = []

    async def read(self, pages: Sequence[Page]) -> list[bytes]:
        self.asked += [page.url for page in pages]
        listed = [
            {"filename": name, "url": f"../{name}", "hashes": {"sha256": digest}, "size": 7}
            for name, digest in self.files
        ]
        return [json.dumps({"files": listed}).encode() for _ in pages]

    async def download(self, artifacts: Sequence[Artifact]) -> tuple[Stored, ...]:
        raise AssertionError

    async def run(self, tool: ToolRun) -> ToolResult:
        self.runs.append(tool)
        answer = b'{"implementation":"cpython","major":3,"minor":11,"machine":"x86_64"}'
        return ToolResult(0, answer, self.folder)

    def file(self, stored: Stored) -> Path:
        return self.folder / stored.artifact.file


# --- requirements files


def test_entries_with_digests_are_pinned():
    """Over continued lines, with comments, extras and markers."""
    text = f"a[x]==1.0 ; python_version < '4' \\\n    --hash={DIGEST} \\\n    # via b\nb==2 # no\n"
    read = requirements.parse("r.txt", {"r.txt": text.encode()})
    first, second = read.entries
    assert first.pinned == requirements.Pinned("a", "1.0", "python_version < '4'", (DIGEST,))
    assert second.pinned is None


def test_files_that_a_file_names_are_read_beside_it():
    """With -r and -c, in every form; one that names itself is read once."""
    files = {
        "requirements/dev.txt": b"-r base.txt\n-cpins.txt\n--requirement=dev.txt\npytest\n",
        "requirements/base.txt": b"--extra-index-url https://i.example/simple\ndjango\n",
        "requirements/pins.txt": b"django==5.2\n",
    }
    assert requirements.nested("requirements/dev.txt", files.get) == files
    read = requirements.parse("requirements/dev.txt", files)
    assert [one.text for one in read.entries] == ["pytest", "django"]
    assert (read.constraints, read.extra_indexes) == (
        ("django==5.2",),
        ("https://i.example/simple",),
    )


def test_addresses_and_missing_files_are_named_without_credentials():
    """Nothing is skipped silently."""
    text = "a @ https://user:secret@h.example/a\n-e git+ssh://h.example/b\n-r gone.txt\n-e .\n"
    lock = MANAGER.read(found(requirements_txt=text))
    assert [one.entry for one in lock.problems] == [
        "a @ https://h.example/a",
        "git+ssh://h.example/b",
        "gone.txt",
    ]


@given(st.binary())
def test_any_requirements_are_read(content: bytes):
    """They come with the project, and may say anything."""
    MANAGER.read(Found("pip", "", {"requirements.txt": content}))


# --- projects and locks


def test_a_project_needs_its_back_end_and_what_it_lists():
    """Its own name in an extra is no package of an index."""
    text = (
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "a_b"\ndependencies = ["click>=8"]\n'
        '[project.optional-dependencies]\ntest = ["pytest"]\nall = ["a-b[test]"]\n'
        '[dependency-groups]\ndev = ["ruff", {include-group = "x"}]\n'
    )
    needs = python_projects.project_needs("pyproject.toml", text.encode())
    assert needs is not None
    assert (needs.build, needs.run) == (("hatchling", "editables"), ("click>=8",))
    assert needs.optional == (("pytest",), (), ("ruff",))


def test_with_a_lock_only_build_requirements_are_resolved():
    """What uv.lock has is uv's."""
    project = '[build-system]\nrequires = ["flit_core"]\n[project]\nname = "a"\n'
    project += 'dependencies = ["click"]\n'
    lock = MANAGER.read(found(pyproject_toml=project, uv_lock=""))
    assert lock.unpinned == ("flit_core", "wheel")


def test_uv_builds_no_project_that_names_no_build_system():
    """So nothing of pip's is fetched for it, which a company's index may not have."""
    project = '[project]\nname = "p"\nversion = "1"\ndependencies = ["a"]\n'
    assert MANAGER.read(found(pyproject_toml=project, uv_lock="")).unresolved == ()


def test_a_setup_py_is_read_as_far_as_it_is_written_out():
    """What it computes is named, and what is no package of an index; nothing of it runs."""
    program = (
        "import setuptools\nopen('/nonexistent/x', 'w')\n"
        "setuptools.setup(name='a', install_requires=['six>=1', 'no way'], "
        "extras_require={'test': ['pytest']}, setup_requires=read('build.txt'))\n"
    )
    needs = python_projects.setup_needs(b"[options]\ninstall_requires = click\n", program.encode())
    assert (needs.run, needs.optional) == (("click", "six>=1"), (("pytest",),))
    assert [one.entry for one in needs.problems] == ["setup_requires", "no way"]


def test_a_setup_cfg_leaves_nothing_out_unnamed():
    """An address of git is fetched as in a pyproject.toml, another address is named."""
    git, other = "a @ git+https://git.example/a", "b @ https://files.example/b.whl"
    needs = python_projects.setup_needs(f"[options]\ninstall_requires =\n {git}\n {other}".encode())
    assert [(one.name, one.url) for one in needs.git] == [("a", "https://git.example/a")]
    assert [one.entry for one in needs.problems] == [other]


@given(st.one_of(st.binary(), st.text().map(str.encode)))
def test_any_setup_py_is_read(program: bytes):
    """What is no program asks for nothing."""
    python_projects.setup_needs(program, program)


DEEP = 100_000


@pytest.mark.parametrize(
    "text",
    [
        "(" * 500,
        "-" * DEEP + "1",
        "not " * DEEP + "1",
        "lambda:" * DEEP + "1",
        "a" + ".b" * DEEP + ".setup(install_requires=['x'])",
        "setup(install_requires=" + "-" * 900 + "1)",
        "a" + "+a" * DEEP,
        "\0",
    ],
    ids=range(8),
)
def test_a_program_that_is_nested_deeply_is_left_unread(text: str):
    """No traceback, and no crash of the interpreter."""
    assert python_projects.setup_needs(b"", text.encode()).run == ()


def test_a_file_that_configures_tools_only_needs_nothing():
    """As many projects have beside requirements.txt."""
    assert python_projects.project_needs("pyproject.toml", b"[tool.ruff]\n") is None


def test_a_pylock_names_addresses_and_digests():
    """As PEP 751 has them; other sources are refused by name."""
    text = (
        'lock-version = "1.0"\n[[packages]]\nname = "a"\nversion = "1"\n[[packages.wheels]]\n'
        f'url = "https://f.example/a-1-py3-none-any.whl"\nhashes = {{ sha256 = "{"0" * 64}" }}\n'
        '[[packages]]\nname = "b"\nvcs = { type = "git", url = "https://h.example/b" }\n'
    )
    lock = python_projects.read_pylock("pylock.toml", text.encode())
    (package,) = lock.packages
    assert package.files[0].url == "https://f.example/a-1-py3-none-any.whl"
    assert [one.entry for one in lock.problems] == ["b"]


@pytest.mark.parametrize(
    "text",
    [
        "x =",
        "package = 1",
        "package = [1]",
        '[[package]]\nname = "../a"\nversion = "1"\n',
        '[[package]]\nname = "a"\nversion = "1\\n2"\n',
        "\0",
    ],
)
def test_what_is_no_lock_is_refused_by_name(text: str):
    """CR-FETCH-006, at the file."""
    with pytest.raises(ProjectError) as refused:
        MANAGER.read(found(poetry_lock=text))
    assert refused.value.code == "CR-FETCH-006"


@given(st.sampled_from(["pylock.toml", "poetry.lock", "pyproject.toml"]), st.binary())
def test_any_bytes_are_read_or_refused(name: str, content: bytes):
    """A lock comes with the project: it may say anything."""
    with suppress(ProjectError):
        MANAGER.read(Found("pip", "", {name: content}))


def test_an_option_in_a_requirement_does_not_reach_pip():
    """Neither after spaces nor after a character that pip takes for the end of a line."""
    text = '[project]\nname = "a"\ndependencies = ["b --index-url=x", "c>1\\u000b-i x", "d"]\n'
    needs = python_projects.project_needs("pyproject.toml", text.encode())
    assert needs is not None
    assert needs.run == ("d",)
    assert len(needs.problems) == 2


# --- the index


def test_an_index_page_is_read_in_both_forms():
    """Names with folders or control characters are left out."""
    html = f'<a href="../f/a-1-py3-none-any.whl#sha256={"0" * 64}">a</a><a href="..%2Fx.whl">x</a>'
    page = json.dumps(
        {
            "files": [
                {
                    "filename": "a-1-py3-none-any.whl",
                    "url": "../f/a-1-py3-none-any.whl",
                    "hashes": {"sha256": "0" * 64},
                },
                {"filename": "../../x.whl", "url": "x.whl", "hashes": {}},
            ]
        }
    )
    expected = simple_index.IndexFile(
        "a-1-py3-none-any.whl", "https://i.example/simple/f/a-1-py3-none-any.whl", DIGEST
    )
    for text in (html, page):
        read = simple_index.files(text.encode(), "https://i.example/simple/a/")
        assert read[0] == expected
        assert all("/" not in one.file for one in read)


def test_of_a_page_only_so_many_files_that_a_lock_pins_are_judged():
    """The others are left out at once: a page of 350,000 files took half a minute."""
    page = json.dumps(
        {
            "files": [
                {"filename": f"a-{n}.zip", "url": "a.zip", "hashes": {"sha256": f"{n % 2}" * 64}}
                for n in range(2 * simple_index.FILES_MAX + 100)
            ]
        }
    ).encode()
    for digests, count in ((None, simple_index.FILES_MAX), ({DIGEST}, 50_000), ({"sha256:"}, 0)):
        read = simple_index.files(page, "https://i.example/simple/a/", digests)
        assert len(read) == count
        assert digests is None or {one.digest for one in read} <= digests


@given(st.binary())
def test_any_page_is_read(content: bytes):
    """An index may answer anything."""
    simple_index.files(content, "https://i.example/simple/a/")


async def test_of_the_files_that_the_lock_pins_the_fitting_wheel_is_taken():
    """A file of the index with another digest is not looked at."""
    index = Index(
        ("a-1.0-cp312-cp312-manylinux_2_17_x86_64.whl", "0" * 64),
        ("a-1.0-cp311-cp311-manylinux_2_17_x86_64.whl", "0" * 64),
        ("a-1.0-1-cp311-cp311-manylinux_2_17_x86_64.whl", "1" * 64),
        ("a-1.0.tar.gz", "0" * 64),
    )
    files = found(requirements_txt=f"a==1.0 --hash={DIGEST}\n")
    (artifact,) = await MANAGER.resolve(index, files, MANAGER.read(files))
    assert artifact.file == "a-1.0-cp311-cp311-manylinux_2_17_x86_64.whl"
    assert (artifact.digest, artifact.size) == (DIGEST, 7)
    assert index.asked == ["https://pypi.org/simple/a/"]


async def test_a_package_that_the_index_has_otherwise_is_refused_by_name():
    """No file has a digest of the lock."""
    files = found(requirements_txt=f"a==1.0 --hash={DIGEST}\n")
    with pytest.raises(DependencyUnavailable, match=r"a 1\.0"):
        await MANAGER.resolve(Index(("a-1.0.tar.gz", "1" * 64)), files, MANAGER.read(files))


async def test_what_no_index_has_is_named_without_every_other_version():
    """pip's line has hundreds of them, between the requirement and the end."""
    versions = ", ".join(f"0.{number}.0" for number in range(200))
    output = (
        f"ERROR: Could not find a version that satisfies the requirement tool>=9 "
        f"(from versions: {versions})\nERROR: No matching distribution found for tool>=9\n"
    )

    class Failing(Index):
        async def run(self, tool: ToolRun) -> ToolResult:
            return ToolResult(1, output.encode(), self.folder)

    given = found(requirements_txt="tool>=9\n")
    with pytest.raises(DependencyUnavailable) as raised:
        await MANAGER.resolve(Failing(), given, MANAGER.read(given))
    assert raised.value.message == (
        "requirements.txt: pip cannot resolve it: Could not find a version that satisfies the "
        "requirement tool>=9 (newest of 200 versions: 0.199.0); "
        "No matching distribution found for tool>=9"
    )


def test_markers_of_other_systems_do_not_apply():
    """One that nobody can read does: its package is fetched."""
    assert not applies("sys_platform == 'win32'", LINUX)
    assert applies("python_version >= '3.11' and os_name == 'posix'", LINUX)
    assert applies("x ==", LINUX)


# --- pip's own resolver


def test_parts_that_contradict_each_other_are_resolved_apart():
    """All together first."""
    one, two = (requirements.Entry(text) for text in ("a<2", "a>2"))
    asked = root_files(0, Root("p", (one, two), ("c==1",), apart=((one,), (two,))))
    assert asked.command == (
        "resolve 0-0.json -r 0-0.in -c 0.constraints || "
        "{ resolve 0-1.json -r 0-1.in -c 0.constraints && "
        "resolve 0-2.json -r 0-2.in -c 0.constraints; }"
    )
    assert asked.files["0-0.in"] == b"a<2\na>2\n"


def test_a_report_names_files_with_their_digests():
    """Without credentials in their addresses."""
    url = "https://u:p@f.example/a-1-py3-none-any.whl"
    archive = {"hashes": {"sha256": "0" * 64}}
    entry = {
        "download_info": {"url": url, "archive_info": archive},
        "metadata": {"name": "a", "version": "1"},
    }
    (artifact,) = read_report(json.dumps({"install": [entry]}).encode())
    assert (artifact.url, artifact.digest) == ("https://f.example/a-1-py3-none-any.whl", DIGEST)


@pytest.mark.parametrize("report", ['{"install": 1}', '{"install": [1]}', '{"install": [{}]}', "["])
def test_a_report_of_another_form_names_nothing(report: str):
    """A tool wrote it that read answers of an index."""
    assert read_report(report.encode()) == []


# --- the caller's configuration


def test_credentials_of_the_callers_index_go_to_its_host_only(tmp_path: Path):
    """The variable wins over the file; no address that is shown has them."""
    (tmp_path / ".pip").mkdir()
    (tmp_path / ".pip/pip.conf").write_text("[global]\nindex-url = https://old.example/simple\n")
    own = "https://user:p%40ss@i.example/simple"
    settings = Settings({"PIP_INDEX_URL": own}, tmp_path)
    manager = Pip(settings)
    assert manager.named_hosts() == {"i.example:443"}
    assert manager.credentials("https://i.example/a") == {"Authorization": "Basic dXNlcjpwQHNz"}
    assert manager.credentials("https://other.example/a") == {}
    assert "p%40ss" not in manager.context()
    config = PipConfig(settings)
    assert own in config.file(config.index, []).decode()
    assert "p%40ss" not in config.file("https://other.example/simple", []).decode()


def test_the_files_of_the_public_index_lie_elsewhere():
    """Its host, and that of its files."""
    assert index_hosts(["https://pypi.org/simple"]) == [
        "files.pythonhosted.org:443",
        "pypi.org:443",
    ]


# --- finding and laying out


def test_a_folder_of_requirements_is_found(tmp_path: Path):
    """With a file outside of it that one of them names; texts that are none are not."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/dev.txt").write_text("-r ../pins.txt\n")
    (tmp_path / "pins.txt").write_text("a==1\n")
    with discovery.opened(tmp_path) as root:
        sets = [MANAGER.find(folder) for folder in discovery.folders(root)]
    assert [one.files for one in sets if one is not None] == [
        {"requirements/dev.txt": b"-r ../pins.txt\n", "pins.txt": b"a==1\n"}
    ]


def test_of_a_member_of_a_uv_workspace_only_build_requirements_are_resolved(tmp_path: Path):
    """The lock above has the rest: a member's name is none that an index is to be asked for."""
    lock = '[[package]]\nname = "core"\nsource = { editable = "libs/core" }\n'
    lock += '[[package]]\nname = "cli"\nsource = { virtual = "apps/cli" }\n'
    (tmp_path / "uv.lock").write_text(lock)
    for folder in ("libs/core", "apps/cli", "apps/other"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "pyproject.toml").write_text(
            '[build-system]\nrequires = ["flit_core"]\nbuild-backend = "flit_core.buildapi"\n'
            f'[project]\nname = "{folder[-3:]}"\ndependencies = ["core", "attrs"]\n'
        )
    with discovery.opened(tmp_path) as root:
        sets = [MANAGER.find(folder) for folder in discovery.folders(root)]
    named = {one.name: MANAGER.read(one).unpinned for one in sets if one is not None}
    assert named == {
        "apps/cli/pyproject.toml": ("flit_core",),
        "apps/other/pyproject.toml": ("attrs", "core", "flit_core"),
        "libs/core/pyproject.toml": ("flit_core",),
    }


@pytest.mark.parametrize("named", ["a\0b", "../../etc/passwd", "/etc/passwd", "a" * 5000, ".", ""])
def test_a_file_that_cannot_be_one_of_the_project_is_not_there(tmp_path: Path, named: str):
    """It is named as a problem, in few and printable characters."""
    (tmp_path / "requirements.txt").write_text(f"-r {named}\n")
    with discovery.opened(tmp_path) as root:
        read = MANAGER.find(next(discovery.folders(root)))
    assert read is not None
    (problem,) = MANAGER.read(read).problems
    assert problem.entry.isprintable()
    assert len(problem.entry) <= 200


async def test_all_files_lie_in_one_folder(tmp_path: Path):
    """As links to the store's files; pip and uv are led there."""
    name = "a-1-py3-none-any.whl"
    (tmp_path / name).write_bytes(b"wheel")
    view = tmp_path / "view"
    view.mkdir()
    artifact = Artifact(name="a", version="1", file=name, url="https://f.example/a")
    stored = Stored(artifact=artifact, sha256="0" * 64, size=5)
    fetched = Fetched(manager="pip", folder="", name="requirements.txt", files=(stored,))
    complete = [Complete(found(requirements_txt=""), fetched)] * 2
    await MANAGER.lay_out(Index(folder=tmp_path), complete, view, "/place")
    assert (view / name).samefile(tmp_path / name)
    assert MANAGER.access("/v").variables == {"PIP_FIND_LINKS": "/v", "UV_FIND_LINKS": "/v"}


@pytest.mark.parametrize(
    ("backend", "named"),
    [("hatchling.build", 0), ("poetry.core.masonry.api", 0), ("mesonpy", 1), ("own", 1)],
)
def test_a_back_end_that_may_ask_for_more_is_named(backend: str, named: int):
    """Its code alone knows, and does not run in the fetch."""
    text = f'[build-system]\nrequires = []\nbuild-backend = "{backend}"\n[project]\nname = "p"\n'
    lock = MANAGER.read(found(pyproject_toml=text))
    assert len(lock.problems) == named


@pytest.mark.parametrize(
    "files",
    [
        {"requirements.txt": b"a\nfoo==${PIP_PROXY}\n-c c.txt\n", "c.txt": b"a==${PIP_PROXY}\n"},
        {"requirements.txt": b"a\nfoo; python_version < '${PIP_PROXY}'\n"},
        {"pyproject.toml": b"[project]\nname='p'\ndependencies=['a', 'foo==${PIP_PROXY}']\n"},
    ],
)
def test_a_requirement_with_a_variable_is_named_and_not_given_to_pip(files: dict[str, bytes]):
    """pip would fill in a proxy's login, and print it or ask an index for it."""
    needs = pip_module._needs(Found("pip", "", files))
    assert "${PIP_PROXY}" in needs.problems[0].entry
    written = [root_files(0, root).files for root in needs.roots]
    assert written
    assert not any(b"${" in text for one in written for text in one.values())


@pytest.mark.parametrize("page", [b"<![a", b"<a href='a-1.tar.gz'>" + b" " * simple_index.HTML_MAX])
def test_a_page_that_no_index_writes_has_no_files(page: bytes):
    """A declaration that is none, and more than an index has."""
    assert simple_index.files(page, "https://index.example/a/") == []
