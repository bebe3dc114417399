"""No code is loaded from a workspace once its phases run: what is imported late, and by whom."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cleanroom
from cleanroom.engine import sealed

SOURCE = Path(cleanroom.__file__).parent


# Imported inside functions, and there before the first phase.
EARLY = {
    "cleanroom.backends.cleanup": "by every run, before it begins",
    "cleanroom.engine.shared_services.client": "to join a server, before phases",
    "cleanroom.evidence.tracing.sdk": "with a collector: loaded with `telemetry`",
}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield str(path.relative_to(SOURCE)), ast.parse(path.read_text())


def late_imports(tree: ast.Module) -> Iterator[str]:
    """Modules that are imported inside functions."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module


def test_what_is_imported_late_is_loaded_before_the_first_phase():
    """Every import inside a function is the library's, ours, or in the list that `seal` loads."""
    elsewhere = (
        "cli/",
        "testing/",
        "pytest_plugin.py",
        "evidence/tracing/testing.py",
        "project/init.py",
    )
    # With the plan or the backend, before the first phase.
    before = {"platformdirs", "anyio", "aiodocker", "aiohttp", "tomlkit"}
    known = {*sealed.LATER, *sealed.TELEMETRY}
    loaded = {".".join(name.split(".")[:depth]) for name in known for depth in range(1, 9)}
    late = {
        name
        for path, tree in sources()
        if not path.startswith(elsewhere)
        for name in late_imports(tree)
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "cleanroom", *before}
    }
    assert late <= loaded, late - loaded


def test_what_a_run_imports_late_of_ours_is_loaded_too():
    """But for what `seal` leaves out: there, imports inside functions are of the same part."""
    ours = set(sealed._ours())
    skipped = {name.replace(".", "/") for name in sealed._NOT_LATE}
    skipped |= {f"cleanroom/cli/commands/{command}" for command in sealed._COMMANDS}
    for path, tree in sources():
        if f"cleanroom/{path}".startswith(tuple(skipped)) or path in (
            "engine/records.py",
            "cli/app.py",
        ):
            continue  # other commands than `run` and `pipeline`
        for name in late_imports(tree):
            if name.startswith("cleanroom.") and name.count(".") > 0:
                assert name in ours or name in EARLY, (path, name)


def test_the_sandbox_imports_nothing_of_ours_late_but_for_containers():
    """The keeper loads nothing once its first environment is open."""
    late = {
        (path, name)
        for path, tree in sources()
        if path.startswith("sandbox/")
        for name in late_imports(tree)
        if name.startswith("cleanroom")
    }
    assert late == {
        ("sandbox/processes/keeper.py", "cleanroom.sandbox.processes"),
        ("sandbox/processes/keeper.py", "cleanroom.sandbox.processes.warden_container"),
        (
            "sandbox/processes/owner_resources.py",
            "cleanroom.sandbox.processes.container_cleanup",
        ),
    }


def test_sealed_imports_look_into_no_workspace(tmp_path: Path):
    """A module that a phase put there is not found; the library's is, whatever stands before."""
    finder = sealed._Sealed([str(tmp_path)])
    for name in ("planted", "stringprep"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('loaded')")
    places = [str(tmp_path), os.path.dirname(os.__file__)]
    found = finder.find_spec("stringprep", places)
    assert found is not None
    assert found.origin == f"{places[1]}/stringprep.py"
    with pytest.raises(ModuleNotFoundError):
        finder.find_spec("planted", places)
    assert finder.find_spec("planted", places[1:]) is None


def test_reports_are_made_where_the_library_of_python_lies_in_a_workspace():
    """They are loaded late, and so is what they need of it: `seal` loads both before."""
    program = (
        "import os, anyio, msgspec\n"
        "from cleanroom.engine.sealed import seal\n"
        "from cleanroom.evidence.reports import render\n"
        "seal([os.path.dirname(os.__file__)])\n"
        "print(sorted(render.makers()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "['html', 'json', 'junit', 'sarif']\n", done.stdout + done.stderr


def test_the_command_collects_garbage_again_once_everything_is_loaded(tmp_path: Path):
    """It stops the collector while it loads; a run of hours has it."""
    (tmp_path / "make.toml").write_text(
        '[project]\nname = "p"\n[lifecycle.test]\ncommand = "true"\n'
    )
    program = (
        "import gc, os, sys\n"
        "os._exit = lambda status: print('collects', gc.isenabled(), gc.get_freeze_count() > 0)\n"
        "sys.argv = ['cleanroom-engine', 'run', 'test', '--backend', 'memory']\n"
        "from cleanroom.cli.main import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert "collects True True" in done.stdout, done.stdout + done.stderr
