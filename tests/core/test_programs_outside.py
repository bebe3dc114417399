"""Who starts programs and looks for them: found in the source, and named here."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cleanroom
from cleanroom.core import host_programs

SOURCE = Path(cleanroom.__file__).parent

# Calls by which a program is started, by their last names; `os` ones are looked at with `os.`.
OS_STARTS = ("system", "popen", "exec", "spawn", "posix_spawn", "startfile")
STARTS = {
    *("subprocess", "multiprocessing", "pty", "pexpect", "webbrowser", "runpy", "ctypes.util"),
    *("Popen", "open_process", "run_process", "create_subprocess_exec", "create_subprocess_shell"),
    *("ProcessPoolExecutor", "to_process", "getstatusoutput", "check_output", "check_call"),
    # Of the library, that start one behind one's back: `uname -p`, `ifconfig`, `ldconfig`, `cc`.
    *("processor", "getnode", "uuid1", "find_library", "libc_ver"),
}
# System calls by number: `syscalls._call("execve", ...)`.
CALLS = ("execve", "execveat", "fork", "vfork", "clone3")

# Where that is so, and why.
MAY_START = {
    "core/host_programs.py": "the one module for it",
    "engine/phases/host_commands.py": (
        "a phase with `enabled = false` is the project's own command, on the host"
    ),
    "dependencies/inside/serve.py": "a tool of the fetch step, inside its environment",
    "sandbox/processes/init.py": "the command of a phase or a service, inside its environment",
    "sandbox/selftest/process_attempts.py": "a program that must not start, inside an environment",
    "sandbox/selftest/probe_hostns.py": "the kernel is asked: /bin/sh below a filter that ends it",
    "cli/commands/report.py": "`report --open`: a person asks for a browser, and no phase runs",
}
# Names of system calls there are judged or filtered, not made.
NAME_CALLS = {
    "sandbox/kernel/syscall_numbers.py",
    "sandbox/seccomp/filters.py",
    "sandbox/seccomp/filters_hostns.py",
    "sandbox/seccomp_notify/programs.py",
    "sandbox/shim/calls.py",
}
# Who looks for programs on a PATH of somebody's, without starting any.
MAY_LOOK = {
    "services/generic.py": "a service's command, which is started inside",
    "services/programs.py": "a server, which is started inside",
    "dependencies/maven.py": "which Maven and Java resolved: their paths alone",
    "dependencies/node_packages.py": "which pnpm or yarn makes a store: path, size and time of it",
    "dependencies/python_interpreter.py": "which interpreter packages are for: its path alone",
    "dependencies/python_poetry.py": "which poetry a cache is for: path and time of it",
    "engine/phase_cache/fingerprints.py": "what a phase's words name: size and time of it",
    "engine/phases/go_standard_library.py": "go and its compiler: version, size and time of them",
    "engine/phases/hidden_programs.py": "what a phase's words name: whether it is shown inside",
}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield str(path.relative_to(SOURCE)), ast.parse(path.read_text())


def names(node: ast.AST) -> Iterator[str]:
    """Dotted names that an expression or an import mentions."""
    if isinstance(node, ast.Attribute):
        yield ast.unparse(node)
    elif isinstance(node, ast.ImportFrom):
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)


def starts(name: str) -> bool:
    *before, last = name.split(".")
    if before[-1:] == ["os"]:
        return last.startswith(OS_STARTS)
    if last == "TimeoutExpired":
        return False  # an exception
    return name in STARTS or last in STARTS or (before and before[0] in STARTS)


def found(tree: ast.Module) -> set[str]:
    mentioned = {name for node in ast.walk(tree) for name in names(node)}
    return {name for name in mentioned if starts(name)}


def test_nothing_but_the_one_module_starts_a_program():
    """Each other place is named here with its reason, and each named place is there still."""
    starting = {path: sorted(found(tree)) for path, tree in sources() if found(tree)}
    assert {path: used for path, used in starting.items() if path not in MAY_START} == {}
    assert set(MAY_START) == set(starting)


def test_no_system_call_starts_a_program_around_it():
    """Nobody makes execve or a fork by its number."""

    def makes(node: ast.AST) -> bool:
        return isinstance(node, ast.Constant) and node.value in CALLS

    making = {path for path, tree in sources() if any(map(makes, ast.walk(tree)))}
    assert making <= NAME_CALLS


def test_programs_are_looked_for_in_known_places_alone():
    """`shutil.which` goes along a PATH that may begin with the project: its users start nothing."""

    def looks(node: ast.AST) -> bool:
        return any(name.endswith("which") for name in names(node))

    looking = {path for path, tree in sources() if any(map(looks, ast.walk(tree)))}
    assert looking == set(MAY_LOOK)
    assert not looking & set(MAY_START)


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\necho started\n")
    path.chmod(0o755)
    return path


def test_a_program_is_found_in_the_system_s_folders(
    own_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """A PATH that begins with the project finds nothing there."""
    program(own_folder / "sh")
    monkeypatch.setenv("PATH", str(own_folder))
    found = host_programs.find("sh")
    assert found is not None
    assert not Path(found).is_relative_to(own_folder)
    assert host_programs.find("a-program-that-is-nowhere") is None


def test_a_program_in_a_workspace_is_not_trusted_by_any_name(own_folder: Path):
    """Itself, through a link from outside, and outside by a link of the workspace."""
    workspace = own_folder / "workspace"
    inside, outside = program(workspace / "bin/tool"), program(own_folder / "bin/tool")
    (own_folder / "link").symlink_to(inside)
    (workspace / "link").symlink_to(outside)
    (own_folder / "folder").symlink_to(workspace)
    refused = (inside, own_folder / "link", workspace / "link", own_folder / "folder/bin/tool")
    never = (str(workspace),)
    assert [host_programs.trusted(str(path), never) for path in refused] == [None] * 4
    assert host_programs.trusted(str(outside), never) == str(outside)
    assert host_programs.trusted(f"{own_folder}/bin/../bin/./tool", never) == str(outside)


@pytest.mark.parametrize("writable", ["tool", "bin", "."])
def test_a_program_that_all_may_exchange_is_not_trusted(own_folder: Path, writable: str):
    """The file, its folder, or one above."""
    tool = program(own_folder / "bin/tool")
    place = tool if writable == "tool" else own_folder / writable
    place.chmod(0o777)
    assert host_programs.trusted(str(tool)) is None
    with pytest.raises(host_programs.NotTrusted):
        host_programs.run(str(tool), [], timeout_seconds=5)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_program_of_another_user_is_not_trusted(own_folder: Path):
    """As root, what an ordinary user could exchange."""
    tool = program(own_folder / "bin/tool")
    os.chown(tool.parent, 12345, 12345)
    assert host_programs.trusted(str(tool)) is None


def test_links_in_a_circle_lead_to_no_program(own_folder: Path):
    """And end."""
    (own_folder / "a").symlink_to("b")
    (own_folder / "b").symlink_to("a")
    assert host_programs.trusted(str(own_folder / "a")) is None


def test_a_program_gets_an_environment_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """None of the caller's variables, not its folder, and nothing to read."""
    for name in ("LD_PRELOAD", "PYTHONSTARTUP", "GIT_DIR", "BASH_ENV"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.chdir(tmp_path)
    done = host_programs.run("sh", ["-c", "env; pwd; cat"], timeout_seconds=5, variables={"A": "1"})
    *variables, folder = done.stdout.splitlines()
    assert folder == "/"
    assert {line.split("=")[0] for line in variables} - {"PWD", "OLDPWD", "SHLVL", "_"} == {
        *("PATH", "LC_ALL", "HOME", "A"),
    }


CODE = """
import sys, os, json
print(json.dumps([sys.prefix, sys.path, sys.flags.isolated, os.getcwd()]))
"""


def test_python_is_started_from_the_file_that_this_process_runs(own_folder: Path):
    """Exchanging the virtual environment's interpreter and its configuration changes nothing."""
    words = [sys.executable, "-m", "venv", "--without-pip", str(own_folder / "venv")]
    subprocess.run(words, check=True)
    planted = f"""
import json, os, pathlib, subprocess, sys
sys.path.append({str(SOURCE.parent)!r})
from cleanroom.core import host_programs
for name in ("python", "python3", "python3.{sys.version_info.minor}"):
    pathlib.Path({str(own_folder)!r}, "venv/bin", name).unlink(missing_ok=True)
    pathlib.Path({str(own_folder)!r}, "venv/bin", name).write_text("#!/bin/sh\\necho planted\\n")
pathlib.Path({str(own_folder)!r}, "venv/pyvenv.cfg").write_text("home = {own_folder}/evil\\n")
process = host_programs.start_python({CODE!r}, stdin=0)
process.wait()
"""
    done = subprocess.run(
        [own_folder / "venv/bin/python", "-c", planted],
        cwd=own_folder,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=True,
    )
    assert "planted" not in done.stdout
    assert str(own_folder) not in done.stdout, done.stdout
    assert done.stdout.rstrip().endswith('1, "/"]')


def test_a_started_process_imports_from_no_folder_of_the_project(
    own_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """But for the one that we lie in ourselves, which comes after the standard library."""
    monkeypatch.setattr(sys, "path", ["", str(own_folder), *sys.path])
    monkeypatch.chdir(own_folder)
    path = host_programs.import_path([str(own_folder)], ("cleanroom",))
    assert str(own_folder) not in path
    assert "" not in path
    inside = host_programs.import_path([str(SOURCE.parent)], ("cleanroom",))
    assert inside[-1] == str(SOURCE.parent)
    assert os.path.dirname(os.__file__) in inside[:-1]


@pytest.mark.parametrize("root", ["/", "/usr", "/usr/local/bin"])
def test_no_workspace_holds_the_machine_s_programs(root: str):
    """A project in the system's own folders is told apart from one beside them."""
    assert host_programs.lies_in(["/home", root]) == root
    assert host_programs.lies_in(["/home", "/srv/project"]) == ""
