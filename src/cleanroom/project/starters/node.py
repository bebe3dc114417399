"""Node.js projects: npm, pnpm and yarn; only the scripts that package.json has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from cleanroom.core.files import is_file
from cleanroom.project import manifests
from cleanroom.project.manifests import read_text, table
from cleanroom.project.starters.base import Starter, no_tests, phases
from cleanroom.project.starters.files import files_below

SIGNS = ("package.json",)

_DEFAULT_VERSION = 22
_TEST_FILES = re.compile(r"(?:.*\.|.*[-_])?test\.[cm]?js|(?:.*/)?test/[^/]*\.[cm]?js")
_RUNNER_FILES = re.compile(r".*[.](?:test|spec)[.][cm]?[jt]sx?|(?:.*/)?__tests__/.*[.][cm]?[jt]sx?")
# Those that run all tests once, the first one first; create-vue's is `test:unit`.
_TESTS = ("test", "test:ci", "test:unit", "unit", "tests")
_RUNNERS = {"vitest": "vitest run", "jest": "jest"}
_EXECUTES: dict[manifests.NodeManager, str] = {"npm": "npx", "pnpm": "pnpm exec", "yarn": "yarn"}
_WATCHES = re.compile(r"\b(?:react-scripts|react-app-rewired|craco) test\b")
_NO_TEST = "no test specified"  # of the script that `npm init` writes
_CHECKS = ("lint", "typecheck", "type-check", "check", "validate")


def starter(root: Path) -> Starter:
    """The phases of a Node.js project."""
    package = manifests.read_json(root / "package.json")
    manager = manifests.node_manager(root)
    scripts = {name: text for name, text in table(package, "scripts").items() if text}
    declares = manifests.declares_node_packages(root)
    run = f"{manager} run"
    check = next((name for name in _CHECKS if name in scripts), "")
    commands = {
        "init": [_install(root, manager) if declares else "node --version"],
        "build": [f"{run} build" if "build" in scripts else _syntax(root, package)],
        "test": [_test(root, manager, package, scripts)],
        "validate": [f"{run} {check}" if check else _listing(root, manager)],
    }
    described = {} if declares else {"init": "Show the interpreter: no packages are needed"}
    language = "TypeScript" if is_file(root / "tsconfig.json") else "Node.js"
    name = package.get("name")
    return Starter(
        language=f"{language}, {manager}",
        name=name.rpartition("/")[2] if isinstance(name, str) else "",
        image=f"node:{_version(root, package)}-slim",
        phases=phases(commands, **described),
        comments=no_tests(commands),
    )


def _install(root: Path, manager: manifests.NodeManager) -> str:
    if manager == "pnpm":
        return "pnpm install" + (" --frozen-lockfile" if is_file(root / "pnpm-lock.yaml") else "")
    if manager == "yarn":
        lock = read_text(root / "yarn.lock")
        if not lock:
            return "yarn install"
        return f"yarn install --{'frozen-lockfile' if _is_classic(lock) else 'immutable'}"
    locked = any(is_file(root / name) for name in manifests.NPM_LOCKS)
    return "npm ci" if locked else "npm install"


def _is_classic(lock: str) -> bool:
    return "# yarn lockfile v1" in lock


def _test(
    root: Path,
    manager: manifests.NodeManager,
    package: dict[str, Any],
    scripts: dict[str, Any],
) -> str:
    for name in _TESTS:
        script = scripts.get(name)
        if isinstance(script, str) and _NO_TEST not in script:
            # They wait for changes, also where nobody is at a terminal.
            once = "CI=true " if _WATCHES.search(script) and "watchAll=false" not in script else ""
            return f"{once}{manager} {name if name == 'test' else f'run {name}'}"
    files = tuple(files_below(root))
    declared = {**table(package, "dependencies"), **table(package, "devDependencies")}
    runner = next((text for name, text in _RUNNERS.items() if name in declared), "")
    if runner and any(_RUNNER_FILES.fullmatch(name) for name in files):
        return f"{_EXECUTES[manager]} {runner}"
    return "node --test" if any(_TEST_FILES.fullmatch(name) for name in files) else ""


def _syntax(root: Path, package: dict[str, Any]) -> str:
    """A check of the main file, where no script builds anything."""
    main = package.get("main")
    candidates = [main] if isinstance(main, str) else ["index.js", "index.mjs"]
    plain = [name for name in candidates if re.fullmatch(r"[\w./-]+\.[cm]?js", name)]
    found = next((name for name in plain if is_file(root / name)), "")
    return f"node --check {found}" if found else ""


def _listing(root: Path, manager: manifests.NodeManager) -> str:
    """A check that what package.json names is installed."""
    if manager == "npm":
        # A line for each package otherwise; what is wrong comes on the other stream.
        return "npm ls --all >/dev/null"
    if manager == "pnpm":
        return "pnpm ls"
    if _is_classic(read_text(root / "yarn.lock")):
        return "yarn check --verify-tree"
    return "yarn install --immutable --mode skip-build"


def _version(root: Path, package: dict[str, Any]) -> int:
    """The version that the project pins, else the newest of the default and its lowest."""
    for name in (".nvmrc", ".node-version"):
        pinned = re.match(r"v?(\d+)", read_text(root / name).strip())
        if pinned:
            return int(pinned[1])
    lowest = re.search(r">=\s*(\d+)", str(table(package, "engines").get("node", "")))
    return max(_DEFAULT_VERSION, int(lowest[1])) if lowest else _DEFAULT_VERSION
