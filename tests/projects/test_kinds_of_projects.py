"""Ten kinds of ordinary projects, from `tests/fixtures/projects/`: `init` writes their make.toml,
and their phases pass without a network.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from support.strangers import Stranger, uv_program

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]


class Kind(NamedTuple):
    """What is particular about a kind of project."""

    programs: str = ""  # that it needs, with blanks between
    managers: str = ""  # that the fetch step finds, with blanks between
    phases: tuple[str, ...] = ("init", "build", "test", "validate")
    init: tuple[str, ...] = ()  # further words of `init`
    services: str = ""  # that its make.toml names


KINDS = {
    "fastapi-pip": Kind(managers="pip"),
    "fastapi-uv": Kind(managers="uv"),
    "pyproject-only": Kind(managers="pip"),
    "python-poetry": Kind(managers="pip"),
    "python-tox": Kind(managers="pip"),
    "django": Kind(managers="pip", services='cleanroom.containers = ["postgres"]'),
    "typescript-npm": Kind("npm", "npm"),
    "monorepo": Kind("npm", "npm pip"),
    "rust": Kind("cargo", "cargo"),
    "go-workspace": Kind("go", "go"),
    "c-makefile": Kind("make cc", phases=("build", "test")),
    "compose": Kind(managers="pip", init=("--from", "compose.yaml")),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_project_that_nobody_prepared_passes(tmp_path: Path, cache: Path, name: str):
    """From an empty store, offline, and warm; no file of it has changed."""
    kind = KINDS[name]
    for program in kind.programs.split():
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    stranger = Stranger(tmp_path, name, cache)
    if name == "fastapi-uv":
        stranger.offer(uv_program())
    if kind.services:
        stranger.begin(kind.init)
        stranger.uncomment("cleanroom.containers", kind.services)
    cold, *_ = stranger.passes(kind.phases, init=kind.init)
    assert {one["manager"] for one in cold.sets} >= {*kind.managers.split()}
