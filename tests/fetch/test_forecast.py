"""What `plan` says of dependencies before a run: counts, and what is pinned by nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from cleanroom.cli.views.plan import plan_lines
from cleanroom.engine.fetch.forecast import SetForecast, forecast_dependencies
from support.project_builder import HEAD, planned

HASH = "0" * 64
REQUIREMENT = f"a==1.0 --hash=sha256:{HASH}\n"
UV_PACKAGE = (
    '[[package]]\nname = "{name}"\nversion = "1.0"\n'
    'source = {{ registry = "https://pypi.org/simple" }}\n{wheels}\n'
)
WHEELS = (
    'wheels = [{ url = "https://files.example.org/a-1.0-py3-none-any.whl", '
    f'hash = "sha256:{HASH}", size = 7 }}]'
)
POETRY = (
    '[[package]]\nname = "a"\nversion = "1.0"\n'
    f'files = [{{ file = "a-1.0-py3-none-any.whl", hash = "sha256:{HASH}" }}]\n'
)
CRATE = '[[package]]\nname = "a"\nversion = "1.0.0"\nsource = "{source}"\nchecksum = "{checksum}"\n'
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"
NPM = (
    '{"lockfileVersion": 3, "packages": {"node_modules/a": {"version": "1.0.0", '
    '"resolved": "https://registry.npmjs.org/a/-/a-1.0.0.tgz", '
    '"integrity": "sha256-' + "A" * 43 + '="}}}'
)
POM = (
    "<project><groupId>g</groupId><artifactId>p</artifactId><version>1</version><dependencies>"
    "<dependency><groupId>g</groupId><artifactId>b</artifactId><version>1</version></dependency>"
    "</dependencies></project>"
)


def forecasts(folder: Path, files: dict[str, str]) -> list[SetForecast]:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    plan = planned(folder, HEAD + '[lifecycle.test]\ncommand = "true"\n')
    caller = {"CLEANROOM_CACHE": str(folder / "cache"), "HOME": str(folder), "PATH": ""}
    return forecast_dependencies(plan, caller)


def said(folder: Path, files: dict[str, str]) -> list[str]:
    """The lines of `plan` about dependencies."""
    found = forecasts(folder, files)
    plan = planned(folder, HEAD + '[lifecycle.test]\ncommand = "true"\n')
    lines = plan_lines(plan, dependencies=found)
    section = lines[lines.index("dependencies:") + 1 :]
    return [line.removeprefix("  ") for line in section[: [*section, ""].index("")]]


@pytest.mark.parametrize(
    ("files", "line"),
    [
        (
            {"requirements.txt": REQUIREMENT},
            "pip requirements.txt: 1 pinned package, to be fetched",
        ),
        (
            {"requirements.txt": REQUIREMENT, "requirements-dev.txt": REQUIREMENT + "\n"},
            "pip requirements-dev.txt, requirements.txt: 1 pinned package, to be fetched",
        ),
        ({"poetry.lock": POETRY}, "pip poetry.lock: 1 pinned package, to be fetched"),
        (
            {"uv.lock": UV_PACKAGE.format(name="a", wheels=WHEELS)},
            "uv uv.lock: 1 pinned package, to be fetched",
        ),
        (
            {"Cargo.lock": CRATE.format(source=CRATES_IO, checksum=HASH)},
            "cargo Cargo.lock: 1 file, to be fetched from static.crates.io",
        ),
        (
            {"Cargo.lock": CRATE.format(source="sparse+https://c.example/i/", checksum=HASH)},
            "cargo Cargo.lock: 1 pinned package, to be fetched",
        ),
        (
            {"package-lock.json": NPM},
            "npm package-lock.json: 1 file, to be fetched from registry.npmjs.org",
        ),
    ],
)
def test_of_what_a_lock_pins_nothing_is_resolved(
    tmp_path: Path, files: dict[str, str], line: str
) -> None:
    """It is counted, as packages where the lock does not say which files they are."""
    assert said(tmp_path, files) == [line]


def test_what_no_lock_pins_the_tool_resolves(tmp_path: Path) -> None:
    """Beside what is pinned, in the same set and in one of its own."""
    files = {"requirements.txt": REQUIREMENT, "requirements-dev.txt": "b>=2\n"}
    assert said(tmp_path, files) == [
        "pip requirements-dev.txt, requirements.txt: "
        "1 pinned package and what pip resolves, to be fetched",
        "  no lock pins b>=2: resolved by pip, pinned on first use",
    ]


def test_maven_resolves_all_it_fetches(tmp_path: Path) -> None:
    """No file pins anything of a project of Maven's."""
    assert said(tmp_path, {"pom.xml": POM}) == [
        "maven pom.xml: what maven resolves, to be fetched",
        "  no lock pins g:b 1, plugins and all that these need: "
        "resolved by maven, pinned on first use",
    ]


def test_what_is_not_fetched_is_not_counted(tmp_path: Path) -> None:
    """A package of uv's without a file is named as a problem alone."""
    lines = said(tmp_path, {"uv.lock": UV_PACKAGE.format(name="a", wheels="")})
    assert lines[0] == "uv uv.lock: nothing to fetch"
    assert lines[1].startswith("  not fetched: a 1.0: its files have no SHA-256")


@pytest.mark.parametrize("stored", [False, True])
def test_a_set_that_needs_nothing_says_so(tmp_path: Path, stored: bool) -> None:
    """As pip's of a project that uv installs: it has no files, in the store or not."""
    nothing = SetForecast(manager="pip", file="pyproject.toml", files=0, stored=stored)
    plan = planned(tmp_path, HEAD + '[lifecycle.test]\ncommand = "true"\n')
    lines = plan_lines(plan, dependencies=[nothing])
    assert "  pip pyproject.toml: nothing to fetch" in lines


def test_programs_get_counts_and_names(tmp_path: Path) -> None:
    """`unresolved` has all that is looked up, `resolved` what a tool takes a version of."""
    files = {"requirements.txt": REQUIREMENT, "requirements-dev.txt": "b>=2\n"}
    (one,) = forecasts(tmp_path, files)
    assert (one.packages, one.resolved, one.unresolved) == (1, ("b>=2",), ("a 1.0", "b>=2"))
    assert one.set_files == ("requirements-dev.txt", "requirements.txt")
