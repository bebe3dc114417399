"""poetry's cache: what its program is given, what of its answer counts, and how phases see it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from cleanroom.dependencies import python_poetry
from cleanroom.dependencies.inside import poetry_cache
from cleanroom.dependencies.model import Artifact, Complete, Fetched, Found, Problem, Stored
from cleanroom.dependencies.session import ToolResult, ToolRun
from cleanroom.dependencies.settings import Settings

NAME = "A_b-1.0-py3-none-any.whl"
URL = f"https://files.example/{NAME}"
KEY = "artifacts/aa/bb/cc/0123456789abcdef"
FILES = {"app/poetry.lock": b"lock", "app/pyproject.toml": b"project"}


class Tool:
    """A session whose tool ends as told, with this answer of the program's."""

    def __init__(self, folder: Path, answer: object, exit_code: int = 0) -> None:
        self.folder = folder
        self.answer = answer
        self.exit_code = exit_code
        self.runs: list[ToolRun] = []
        self.problems: list[Problem] = []

    async def run(self, tool: ToolRun) -> ToolResult:
        self.runs.append(tool)
        folder = self.folder / "work"
        (folder / "poetry").mkdir(parents=True)
        (folder / "FILLED.json").write_text(json.dumps(self.answer))
        return ToolResult(self.exit_code, b"first\nthe last line\n", folder)

    def file(self, stored: Stored) -> Path:
        path = self.folder / stored.artifact.file
        path.write_bytes(b"wheel")
        return path

    def note(self, problem: Problem) -> None:
        self.problems.append(problem)


async def laid_out(tool: Tool, files: Mapping[str, bytes] = FILES) -> Path:
    """The view of a project with these files and one wheel."""
    view = tool.folder / "view"
    view.mkdir()
    artifact = Artifact(name="A_b", version="1.0", file=NAME, url=URL)
    stored = Stored(artifact=artifact, sha256="0" * 64, size=5)
    fetched = Fetched(manager="pip", folder="app", name=next(iter(files)), files=(stored,))
    complete = [Complete(Found("pip", "app", files), fetched)]
    await python_poetry.lay_out(tool, complete, view)  # type: ignore[arg-type]
    return view


async def test_the_files_lie_where_poetry_says(tmp_path: Path):
    """As links to the store's; poetry's program gets the project's own two files and these."""
    tool = Tool(tmp_path, {"artifacts": {URL: KEY}})
    view = await laid_out(tool)
    assert (view / "poetry" / KEY / NAME).samefile(tmp_path / NAME)
    (run,) = tool.runs
    orders = json.loads(run.files["POETRY.json"])
    assert orders["projects"] == ["0"]
    assert orders["files"][0]["name"] == "a-b"
    assert run.files["0/poetry.lock"] == b"lock"
    assert list(run.served) == [f"/0/{NAME}"]
    assert not run.egress


@pytest.mark.parametrize(
    "artifacts",
    [
        {URL: "../../etc"},
        {URL: "/etc"},
        {URL: "artifacts/../aa"},
        {URL: "artifacts"},
        {"https://elsewhere.example/x": KEY},
    ],
)
async def test_an_answer_leads_nowhere_else(tmp_path: Path, artifacts: dict[str, str]):
    """No file appears but in poetry's own folders, and none but the fetched ones."""
    view = await laid_out(Tool(tmp_path, {"artifacts": artifacts}))
    assert [path.name for path in view.rglob("*")] == ["poetry"]


@pytest.mark.parametrize(("answer", "exit_code"), [({}, 1), ([], 0), ({"artifacts": [1]}, 0)])
async def test_a_poetry_that_is_not_known_is_named(tmp_path: Path, answer: object, exit_code: int):
    """pip does without its cache, so that is a note and no failure."""
    tool = Tool(tmp_path, answer, exit_code)
    view = await laid_out(tool)
    (problem,) = tool.problems
    assert problem.entry == "app/poetry.lock"
    assert "the last line" in problem.why
    assert python_poetry.access(str(view)).variables == {}


async def test_without_poetry_there_is_no_cache(tmp_path: Path):
    """Nor a word of it: the project's phases may use pip."""
    tool = Tool(tmp_path, {}, exit_code=64)
    assert not list((await laid_out(tool)).iterdir())
    assert tool.problems == []


async def test_only_a_project_with_its_lock_asks_for_it(tmp_path: Path):
    """Others run nothing."""
    tool = Tool(tmp_path, {})
    await laid_out(tool, {"app/requirements.txt": b""})
    assert tool.runs == []


def test_phases_write_to_a_copy(tmp_path: Path):
    """Virtual environments are not in it: they stay between runs."""
    (tmp_path / "poetry").mkdir()
    access = python_poetry.access(str(tmp_path))
    (overlay,) = access.overlays
    assert overlay.source == overlay.target == access.variables["POETRY_CACHE_DIR"]
    assert access.variables["POETRY_VIRTUALENVS_PATH"].startswith("/home/cleanroom/.cache/")


def test_another_poetry_makes_another_view(tmp_path: Path):
    """Its cache may have another layout."""
    program = tmp_path / "poetry"
    settings = Settings({"PATH": str(tmp_path)}, tmp_path)
    assert python_poetry.version_of(settings) == ""
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert str(program) in python_poetry.version_of(settings)


def test_pages_name_the_fetched_files_only():
    """The metadata of a wheel is read from it, that of an archive is not asked for."""
    common = {"name": "a", "sha256": "0" * 64, "size": 1, "from": "http://127.0.0.1/x"}
    files = [
        {**common, "version": "1", "file": "a-1-py3-none-any.whl", "url": "https://f.example/w"},
        {**common, "version": "2", "file": "a-2.tar.gz", "url": "https://f.example/s"},
    ]
    pages = poetry_cache._pypi_pages(files)
    page = msgspec.json.decode(pages["https://pypi.org/simple/a/"][1])
    assert [one["filename"] for one in page["files"]] == [one["file"] for one in files]
    wheel, archive = (
        msgspec.json.decode(pages[f"https://pypi.org/pypi/a/{version}/json"][1]) for version in "12"
    )
    assert wheel["info"]["requires_dist"] is None
    assert archive["info"]["requires_dist"] == []
    other = poetry_cache._simple_pages("https://i.example/simple/", files)
    assert b'href="https://f.example/w#sha256=0000' in other["https://i.example/simple/a/"][1]
