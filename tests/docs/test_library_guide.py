"""The guide to the library: its example runs, and the page shows what runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cleanroom
from support.paths import ROOT

EXAMPLE = ROOT / "examples" / "library"
GUIDE = (ROOT / "docs" / "library.md").read_text()


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A copy of the example, so that its evidence is not left in the checkout."""
    ignored = shutil.ignore_patterns(".ggen", "build", "__pycache__")
    return Path(shutil.copytree(EXAMPLE, tmp_path / "library", ignore=ignored))


def call(example: Path, *arguments: str) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(cleanroom.__file__).parent.parent),
        "CLEANROOM_CACHE": str(example.parent / "cache"),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=example,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_guide_shows_the_example_that_runs() -> None:
    """The page has run.py as it is, and the test of the pytest section word for word."""
    assert (EXAMPLE / "run.py").read_text() in GUIDE
    shown = re.search(r"^@pytest.mark.*?\n(?=```)", GUIDE, re.MULTILINE | re.DOTALL)
    assert shown is not None
    assert shown[0] in (EXAMPLE / "test_counter.py").read_text()


def test_the_guide_names_every_field_of_the_result() -> None:
    """Each is in the table, once."""
    table = GUIDE.partition("## The result")[2].partition("\n## ")[0]
    named = [
        name
        for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    ]
    assert sorted(named) == sorted(cleanroom.RunResult.__struct_fields__)


@pytest.mark.sandbox
def test_the_example_prints_what_the_guide_says(example: Path) -> None:
    """Times and the number of canaries apart, run.py prints the lines of the page;
    services are ready whenever they are.
    """
    printed = call(example, "run.py")
    said = re.search(r"```text\n(.*?)```", GUIDE, re.DOTALL)
    assert said is not None

    def without_numbers(text: str) -> list[str]:
        return sorted(re.sub(r"\d+\.\d+ s|\d+ canaries", "N", line) for line in text.splitlines())

    assert without_numbers(printed) == without_numbers(said[1])


@pytest.mark.sandbox
def test_the_example_passes_under_pytest(example: Path) -> None:
    """Its tests pass with our plugin alone."""
    assert "3 passed" in call(
        example, "-m", "pytest", "-q", "-p", "cleanroom.pytest_plugin", "-p", "no:cacheprovider"
    )
