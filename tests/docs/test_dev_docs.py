"""The pages for whoever carries the project on: the names in them are true,
and their links lead somewhere.

A name is what stands between back quotes.
A path is one of the repository, or one below `src/cleanroom`.
Names of code are written as code has
them: `function()`, `Class`, `Class.method()`, `CONSTANT`;
each is looked for in the Python files that are named beside it.
"""

from __future__ import annotations

import ast
import functools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from support.paths import ROOT

PACKAGE = ROOT / "src" / "cleanroom"
DEV = ROOT / "docs" / "dev"
MAP = DEV / "architecture.md"
PAGES = sorted(DEV.glob("*.md"))
# what measurements, attacks and options of the command write
LONG_LINES = {"benchmarks", "commands", "isolation-attacks", "performance"}
SHORT_LINES = [
    page
    for page in (ROOT / "README.md", *sorted(DEV.parent.glob("*.md")), *PAGES)
    if page.stem not in LONG_LINES
]
LINKING = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

FENCE = re.compile(r"(?ms)^```.*?^```$")
QUOTED = re.compile(r"`([^`\n]+)`")
# in a folder, or a file of a kind that this repository has
PATH = re.compile(r"[\w.*-]+(?:/[\w.*-]+)*/|[\w.*-]+(?:/[\w.*-]+)+|[\w*-]+\.(?:py|c|md)")
CODE = re.compile(r"(?:[A-Z]\w*\.)?_*[a-z]\w*\(\)|_*[A-Z][a-z]\w+|[A-Z][A-Z_]{2,}")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COLUMNS_MAX = 100


class Block(NamedTuple):
    """A paragraph, an item of a list or a row of a table: what is read together."""

    line: int
    text: str

    @property
    def names(self) -> list[str]:
        return QUOTED.findall(self.text)

    @property
    def paths(self) -> list[str]:
        return [name for name in self.names if PATH.fullmatch(name)]


def without_fences(text: str) -> str:
    """The page with its code blocks blank, so that lines keep their numbers."""
    return FENCE.sub(lambda found: "\n" * found[0].count("\n"), text)


def blocks(page: Path) -> Iterator[Block]:
    gathered: list[str] = []
    begun = 0
    for number, line in enumerate([*without_fences(page.read_text()).splitlines(), ""], 1):
        if gathered and (
            not line or line.startswith(("|", "- ", "#")) or re.match(r"\d+\. ", line)
        ):
            yield Block(begun, "\n".join(gathered))
            gathered = []
        if line:
            begun = begun if gathered else number
            gathered.append(line)


def files(path: str) -> list[Path]:
    """What a path of a page names: in the repository, else in the package.

    A star stands for any name.
    """
    for root in (ROOT, PACKAGE):
        if found := sorted(root.glob(path.rstrip("/"))):
            return [each for each in found if each.is_dir() or not path.endswith("/")]
    return []


@functools.cache
def defined(file: Path) -> frozenset[str]:
    """Names that a module binds or imports at its top, and `Class.name` of what its classes
    have.
    """
    found: set[str] = set()
    for statement in ast.parse(file.read_text()).body:
        found |= set(bound(statement))
        if isinstance(statement, ast.ClassDef):
            found |= {
                f"{statement.name}.{name}" for inner in statement.body for name in bound(inner)
            }
    return frozenset(found)


def bound(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        yield from (
            node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)
        )


def is_code(name: str) -> bool:
    """Not so variables of the caller, and constants of the kernel."""
    return bool(CODE.fullmatch(name)) and not name.startswith(("CLEANROOM_", "SECCOMP_"))


def missing_names(page: Path) -> list[str]:
    """Names of code that no Python file has that is named beside them."""
    missing = []
    for block in blocks(page):
        modules = [file for path in block.paths for file in files(path) if file.suffix == ".py"]
        if not modules:
            continue
        known = {name for module in modules for name in defined(module)}
        for name in filter(is_code, block.names):
            if name.removesuffix("()") not in known:
                missing.append(f"{page.name}:{block.line}: {name}")
    return missing


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {
        slug(found[1]) for found in re.finditer(r"(?m)^#+ (.+)$", without_fences(page.read_text()))
    }


def dead_links(page: Path) -> list[str]:
    """Links within the repository that lead to no file, or to no heading of one."""
    dead = []
    for target in LINK.findall(without_fences(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            dead.append(f"{page.name}: {target}")
    return dead


def layers() -> dict[str, list[list[str]]]:
    """The import contracts that are layers: room (empty: the package) -> lines, highest first,
    of the modules that are there.
    """
    found = {}
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]:
        if contract["type"] != "layers":
            continue
        (container,) = contract["containers"]
        room = container.removeprefix("cleanroom").lstrip(".")
        lines = [re.findall(r"\w+", line) for line in contract["layers"]]
        there = [
            [name for name in line if files(f"{room}/{name}".lstrip("/") + "*")] for line in lines
        ]
        found[room] = [line for line in there if line]
    return found


def drawing(number: int) -> str:
    """One of the code blocks of the map of rooms."""
    section = MAP.read_text().partition("\n## The map of rooms\n")[2].partition("\n## ")[0]
    return FENCE.findall(section)[number]


def places(drawn: str, names: list[str]) -> set[int]:
    """The lines of a drawing in which these names stand, each by its first place."""
    lines = drawn.splitlines()
    found = set()
    for name in names:
        word = re.compile(rf"(?<![\w/.]){name}(?![\w/])")
        found.add(next((at for at, line in enumerate(lines) if word.search(line)), -1))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_path_is_there(page: Path):
    """Each file and folder that a page names exists."""
    gone = [
        f"{page.name}:{block.line}: {path}"
        for block in blocks(page)
        for path in block.paths
        if not files(path)
    ]
    assert gone == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_name_is_in_the_file_beside_it(page: Path):
    """Each function, class, method and constant is defined in a module that the same row or
    sentence names.
    """
    assert missing_names(page) == []


def test_every_room_is_in_the_table():
    """Whatever lies right below the package, and each folder of a divided room, has its row."""
    rooms = {file.name for file in PACKAGE.glob("*.py") if not file.name.startswith("_")}
    folders = [init.parent.relative_to(PACKAGE) for init in PACKAGE.rglob("__init__.py")]
    rooms |= {f"{folder}/" for folder in folders if folder != Path()}
    rows = set(re.findall(r"(?m)^\| `([\w/.]+)` \|", MAP.read_text()))
    assert rooms - rows == set()


def test_the_map_is_what_the_contracts_say():
    """The drawn rooms stand in the lines of the import contract, in its order."""
    drawn = drawing(0)
    at = [places(drawn, line) for line in layers()[""]]
    assert all(len(line) == 1 for line in at), at
    assert {-1} not in at
    assert [min(line) for line in at] == sorted(min(line) for line in at)


@pytest.mark.parametrize("room", ["cli", "engine", "backends", "sandbox"])
def test_a_divided_room_is_drawn_as_its_contract_says(room: str):
    """Each line of the contract is a line of the drawing, in its order."""
    lines = drawing(1).partition(f"\n{room} ")[2].partition("\n\n")[0].splitlines()
    names = "\n".join(re.split(r" {3,}", line.strip())[0] for line in lines)
    at = [places(names, line) for line in layers()[room]]
    assert all(len(line) == 1 for line in at), at
    assert {-1} not in at
    assert [min(line) for line in at] == sorted(min(line) for line in at)


@pytest.mark.parametrize(
    "page", LINKING, ids=lambda page: str(page.relative_to(ROOT).with_suffix(""))
)
def test_links_lead_somewhere(page: Path):
    """Each link of a page within the repository leads to a file, and to a heading that it has."""
    assert dead_links(page) == []


def test_every_page_is_listed():
    """`docs/README.md` leads to each page: those of users by task, and those of developers."""
    pages = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    listed = set(LINK.findall((ROOT / "docs" / "README.md").read_text()))
    assert {str(page) for page in pages if page.name != "README.md"} - listed == set()


def test_each_decision_has_its_number_and_its_heading():
    """Numbers are given once, in order, so that a decision can be linked for good."""
    numbers = [
        int(number)
        for number in re.findall(r"(?m)^## (\d+)\. ", (DEV / "decisions.md").read_text())
    ]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("page", SHORT_LINES, ids=lambda page: page.stem)
def test_lines_are_short(page: Path):
    """A difference shows a sentence and no paragraph: at most 100 columns,
    but for rows of tables.
    """
    long = [
        number
        for number, line in enumerate(without_fences(page.read_text()).splitlines(), 1)
        if len(line) > COLUMNS_MAX and line[0] not in "|!"
    ]
    assert long == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("| `core/bus.py`: `Bus.fly()` |", ["page.md:1: Bus.fly()"]),
        ("| `core/bus.py`: `Bus.span()`, `Bus` |", []),
        ("- `core/bus.py`\n- `Bus.fly()` in another item", []),
        ("`core/bus.py` has a\n`Buss` on its next line", ["page.md:1: Buss"]),
    ],
)
def test_a_name_that_is_not_there_is_found(tmp_path: Path, text: str, expected: list[str]):
    """The look at names is not blind."""
    page = tmp_path / "page.md"
    page.write_text(text)
    assert missing_names(page) == expected


@pytest.mark.parametrize(
    ("link", "alive"),
    [
        ("architecture.md#the-idea", True),
        ("architecture.md#no-such", False),
        ("gone.md", False),
        ("https://example.org/x", True),
    ],
)
def test_a_dead_link_is_found(tmp_path: Path, link: str, alive: bool):
    """The look at links is not blind."""
    (tmp_path / "architecture.md").write_text("# Architecture\n\n## The idea\n")
    page = tmp_path / "page.md"
    page.write_text(f"See [it]({link}).\n")
    assert (dead_links(page) == []) == alive
