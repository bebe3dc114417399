"""Projects of a Makefile, a justfile or CMake, and those of no known kind."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from cleanroom.core.files import is_file
from cleanroom.project.manifests import read_text
from cleanroom.project.starters.base import Starter, StarterPhase, no_tests, phases
from cleanroom.project.starters.files import files_below

MAKE_SIGNS = ("Makefile", "makefile", "GNUmakefile")
JUST_SIGNS = ("justfile", "Justfile", ".justfile")
CMAKE_SIGNS = ("CMakeLists.txt",)

_IMAGE = "debian:stable-slim"
_MAKE_IMAGE = "gcc:14"  # has make and a compiler, which most Makefiles call
_TARGET = re.compile(r"^([A-Za-z0-9][\w./-]*(?:[ \t]+[\w./-]+)*)[ \t]*:(?![=:])", re.MULTILINE)
_RECIPE = re.compile(r"^@?([A-Za-z_][\w-]*)((?:[ \t]+[^:\n]*)?):(?!=)", re.MULTILINE)
# Phase -> targets that do it, the best first. `install` is none: it leaves the project.
_NAMES = {
    "init": ("init", "setup", "bootstrap", "deps", "configure"),
    "build": ("build", "all", "compile", "default"),
    "test": ("test", "tests", "check", "unittest"),
    "validate": ("validate", "lint", "verify", "vet", "fmt-check", "format-check"),
}


def make(root: Path) -> Starter:
    """The phases of a Makefile."""
    text = read_text(next(root / name for name in MAKE_SIGNS if is_file(root / name)))
    targets = {name for found in _TARGET.findall(text) for name in found.split()}
    return _starter("make", _MAKE_IMAGE, targets)


def just(root: Path) -> Starter:
    """The phases of a justfile: recipes that need no argument."""
    text = read_text(next(root / name for name in JUST_SIGNS if is_file(root / name)))
    recipes = {
        name
        for name, parameters in _RECIPE.findall(text)
        if all("=" in word or word.startswith("*") for word in parameters.split())
    }
    return _starter("just", _IMAGE, recipes)


def cmake(root: Path) -> Starter:
    """The phases of a CMake project, in a folder that CMake makes."""
    lists = [name for name in files_below(root) if name.rpartition("/")[2] in CMAKE_SIGNS]
    text = "\n".join(re.sub(r"#.*", "", read_text(root / name)) for name in lists)
    made = (root / "build").is_dir() and not is_file(root / "build/CMakeCache.txt")
    folder = "cmake-build" if made else "build"
    tested = re.search(r"\b(?:add_test|enable_testing|gtest_discover_tests|CTest)\b", text)
    commands = {
        "init": [f"cmake -S . -B {folder}"],
        "build": [f"cmake --build {folder} -j $(nproc)"],
        "test": [f"ctest --test-dir {folder} --output-on-failure"] if tested else [],
        # A prefix alone would not hold what a project installs at a path of the system.
        "validate": [f"DESTDIR=/tmp/installed cmake --install {folder}"],
    }
    own = re.sub(r"#.*", "", read_text(root / CMAKE_SIGNS[0]))
    name = re.search(r"\bproject\s*\(\s*\"?([\w.+-]+)", own, re.IGNORECASE)
    return Starter(
        language="CMake",
        name=name[1] if name else "",
        image=_MAKE_IMAGE,
        slo="2m",
        phases=phases(commands, init="Configure the build", validate="Install into a folder aside"),
        comments=(*no_tests(commands), "Container backends need an image that has cmake, too."),
    )


def _starter(program: str, image: str, targets: Iterable[str]) -> Starter:
    known = set(targets)
    commands = {
        phase: [f"{program} {name}" for name in names if name in known][:1]
        for phase, names in _NAMES.items()
    }
    if not any(commands.values()):
        return unknown(f"{program}, no target that is known")
    return Starter(
        language=program,
        image=image,
        phases=phases(commands, init="Prepare the project"),
        comments=no_tests(commands),
    )


def unknown(language: str = "not known: write the commands") -> Starter:
    """Phases that fail until somebody writes their commands."""
    return Starter(
        language=language,
        image=_IMAGE,
        phases=tuple(
            StarterPhase(phase, description, (_unwritten(phase),))
            for phase, description in (
                ("init", "Prepare the project"),
                ("test", "Run the tests"),
                ("validate", "Check what was built"),
            )
        ),
    )


def _unwritten(phase: str) -> str:
    return f"echo 'make.toml: [lifecycle.{phase}]: write your command here' >&2; exit 1"
