"""Whatever changes files does so through `beneath`, or is named here with its reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import cleanroom

SOURCE = Path(cleanroom.__file__).parent
# Calls of `os` that change what a path names, unless they are told a folder's descriptor.
CHANGING = {
    "mkdir",
    "makedirs",
    "mknod",
    "mkfifo",
    "rename",
    "renames",
    "replace",
    "unlink",
    "remove",
    "rmdir",
    "removedirs",
    "chmod",
    "lchmod",
    "chown",
    "lchown",
    "link",
    "symlink",
    "utime",
    "truncate",
    "setxattr",
    "removexattr",
}
FROM_FOLDER = {"dir_fd", "src_dir_fd", "dst_dir_fd"}
# Methods of `Path`; `replace` and `rename` with one argument, since text has a `replace` too.
METHODS = {
    "mkdir",
    "write_text",
    "write_bytes",
    "unlink",
    "rmdir",
    "symlink_to",
    "hardlink_to",
    "touch",
    "chmod",
    "lchmod",
}
MOVING = {"rename", "replace"}
LIBRARIES: dict[str, set[str] | None] = {
    "shutil": {"rmtree", "copy", "copy2", "copyfile", "copytree", "move", "chown"},
    "tempfile": None,
    "filelock": None,
}
WRITING = {"O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND"}

PRIVATE = "below the user's cache, which is private (`core/private_cache.py`) from `/` on"
SCRATCH = "below the run's own folder in the cache, which nobody else may enter"
HELD = "a descriptor, by its name under /proc/self/fd"
INSIDE = "runs in the environment, or builds its root before anybody is in it"
OURS = "no file: a control group, a map of ids, a process of ours"
NAMED = "a person named the path, outside of what the engine writes by itself"
CALLER = "done for a held call's caller, on the descriptor that was looked at"
# Where paths are changed by name, and why nothing that came from inside leads elsewhere.
ALLOWED = {
    "core/files.py:hold": NAMED,
    "core/files.py:LineWriter.__aenter__": "a descriptor",
    "cli/views/github.py:GithubView._summarise": NAMED,
    "cli/main.py:_end": "the null device",
    "cli/main.py:_hold_standard_streams": "the standard streams",
    "cli/pausing.py:_null_streams": "the null device",
    "engine/doctor.py:_probe": "a folder of the process's own in the system's temporary one",
    "servers/own_server.py:serve": "a folder of the process's own in the system's temporary one",
    "engine/shared_services/protocol.py:values_file": "a file in memory",
    "core/private_cache.py:_walk": "each step is looked at before the next is made",
    "backends/embedded/resources.py:_make_parent": PRIVATE,
    "backends/embedded/home_cache.py:HomeCache._enter": PRIVATE,
    "backends/embedded/home_cache.py:HomeCache.claim_folder": SCRATCH,
    "backends/containers/images.py:build": PRIVATE,
    "backends/containers/images.py:load": PRIVATE,
    "backends/containers/images.py:_write_archive": PRIVATE,
    "backends/cleanup.py:_remove": OURS,
    "dependencies/inside/": INSIDE,
    "dependencies/cargo.py": "a view in the making, below the user's private cache",
    "dependencies/cargo_git.py": "a view in the making, below the user's private cache",
    "dependencies/crates.py": "a view in the making: names are checked before",
    "dependencies/git_sources.py": "a view in the making: names are checked before",
    "dependencies/golang.py": "a view in the making, below the user's private cache",
    "dependencies/maven.py": "a view in the making, below the user's private cache",
    "dependencies/npm.py": "a view in the making, below the user's private cache",
    "dependencies/python_git.py": "a view in the making, below the user's private cache",
    "dependencies/yarn.py": "a view in the making, below the user's private cache",
    "dependencies/yarn_classic.py": "a view in the making, below the user's private cache",
    "engine/phases/go_standard_library.py": PRIVATE,
    "dependencies/eviction.py": PRIVATE,
    "dependencies/store.py": PRIVATE,
    "engine/fetch/session.py": PRIVATE,
    "engine/fetch/step.py": PRIVATE,
    "services/templates.py:TemplateCache._discard": PRIVATE,
    "services/templates.py:TemplateCache._publish": PRIVATE,
    "services/templates.py:TemplateCache._read_seed": PRIVATE,
    "services/templates.py:TemplateCache.lookup": PRIVATE,
    "services/templates.py:_private_folder": PRIVATE,
    "services/templates.py:_remove": PRIVATE,
    "sandbox/shim/build.py:build": PRIVATE,
    "services/clients.py:link_clients": PRIVATE,
    "services/certificates.py:_make": PRIVATE,
    "engine/phases/span_receiver.py:receive": SCRATCH,
    "engine/phases/shown_git.py:ShownGit._find": SCRATCH,
    "backends/embedded/run_area.py:RunArea.host_path": SCRATCH,
    "engine/supervision/service_data.py:ServiceData.remove": SCRATCH,
    "backends/embedded/copied_workspace.py:CopiedWorkspace._copy": SCRATCH,
    "sandbox/filesystem/copied_tree.py": "a copy is made before anybody inside is shown it",
    "sandbox/filesystem/layers.py:make": SCRATCH,
    "sandbox/filesystem/merge_layers.py:_move_missing": HELD,
    "sandbox/filesystem/merge_layers.py:merge_below": HELD,
    "sandbox/filesystem/trees.py:set_mode": HELD,
    "sandbox/filesystem/project_tree.py:change_owner": HELD,
    "sandbox/filesystem/project_tree.py:ProjectTree.restore_modes": HELD,
    "sandbox/filesystem/project_files.py:ProjectFiles._copy": HELD,
    "sandbox/seccomp_notify/modes.py:Modes._change": CALLER,
    "sandbox/selftest/file_attempts.py": INSIDE,
    "sandbox/selftest/process_attempts.py": INSIDE,
    "sandbox/processes/init.py": INSIDE,
    "sandbox/filesystem/copy_up.py": INSIDE,
    "sandbox/selftest/limit_canaries.py": INSIDE,
    "sandbox/filesystem/mounts.py": INSIDE,
    "sandbox/seccomp_notify/metadata.py": CALLER,
    "sandbox/processes/warden_container.py:_listen": "a socket named from its folder's descriptor",
    "sandbox/kernel/cgroups.py": OURS,
    "sandbox/kernel/privileges.py:_write": OURS,
    "sandbox/selftest/primitives.py": "in a folder with a random name that the keeper removes",
    "backends/memory/": "files of a test's script",
    "testing/": "tests",
}


def test_whatever_changes_files_names_them_from_a_descriptor() -> None:
    """No module changes a path by its name, but at the places that say why they may."""
    assert sorted(found for found in changes() if not _reason(found)) == []


@pytest.mark.parametrize("place", ALLOWED)
def test_no_exception_outlives_its_cause(place: str) -> None:
    """Each place that may still does it."""
    assert any(_is_at(found, place) for found in changes())


@pytest.mark.parametrize(
    "text",
    [
        "os.unlink(path)",
        "os.rename(a, b)",
        "os.chown(path, 1, 1)",
        "os.open(path, os.O_WRONLY | os.O_CREAT)",
        "open(path, 'w')",
        "path.open('ab')",
        "path.mkdir()",
        "path.replace(other)",
        "path.write_text('x')",
        "shutil.rmtree(path)",
        "run(shutil.rmtree, path)",
        "run(path.unlink)",
        "tempfile.mkdtemp()",
        "FileLock(path)",
    ],
)
def test_a_way_around_is_found(text: str) -> None:
    """The walk sees each way to change a path by its name, also one that is handed on."""
    assert list(changes_of("a.py", f"def f():\n    {text}\n")) == ["a.py:f"]


@pytest.mark.parametrize(
    "text",
    [
        "os.unlink(name, dir_fd=folder)",
        "os.open(path, os.O_RDONLY)",
        "open(path, 'rb')",
        "text.replace('a', 'b')",
        "os.fchown(held, 1, 1)",
    ],
)
def test_what_names_no_path_to_change_is_none(text: str) -> None:
    """Reading, descriptors and text are left alone."""
    assert list(changes_of("a.py", f"def f():\n    {text}\n")) == []


def _reason(found: str) -> str:
    return next((reason for place, reason in ALLOWED.items() if _is_at(found, place)), "")


def _is_at(found: str, place: str) -> bool:
    return found == place or (":" not in place and found.startswith(place))


def changes(source: Path = SOURCE) -> Iterator[str]:
    """MODULE:FUNCTION of each way to change a path by its name."""
    for file in sorted(source.rglob("*.py")):
        yield from changes_of(file.relative_to(source).as_posix(), file.read_text())


def changes_of(module: str, text: str) -> Iterator[str]:
    for function, node, called in _nodes(ast.parse(text), ""):
        if _changes(node, called):
            yield f"{module}:{function}"


def _nodes(node: ast.AST, function: str) -> Iterator[tuple[str, ast.AST, bool]]:
    """Each node with the function that it is in, and whether it is what a call calls."""
    for child in ast.iter_child_nodes(node):
        yield function, child, isinstance(node, ast.Call) and node.func is child
        inside = (
            child.name
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            else ""
        )
        yield from _nodes(child, f"{function}.{inside}".strip(".") if inside else function)


def _changes(node: ast.AST, called: bool) -> bool:
    match node:
        case ast.Call(ast.Name("open")) | ast.Call(ast.Attribute(ast.Name("io"), "open")):
            return _opens_to_write(node)
        case ast.Call(ast.Name("FileLock")):
            return True
        case ast.Call(ast.Attribute(ast.Name("os"), name)) if name in CHANGING:
            return not {keyword.arg for keyword in node.keywords} & FROM_FOLDER
        case ast.Call(ast.Attribute(ast.Name("os"), "open")):
            flags = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
            return bool(WRITING & flags) and not any(
                keyword.arg == "dir_fd" for keyword in node.keywords
            )
        case ast.Call(ast.Attribute(_, "open")):
            return _opens_to_write(node)
        case ast.Call(ast.Attribute(_, name)) if name in MOVING:
            return len(node.args) == 1 and not node.keywords
        case ast.Attribute(ast.Name("os"), name) if name in CHANGING:
            return not called
        case ast.Attribute(ast.Name(library), name) if library in LIBRARIES:
            known = LIBRARIES[library]
            return known is None or name in known
        case ast.Attribute(_, name):
            return name in METHODS and not (
                isinstance(node.value, ast.Name) and node.value.id == "os"
            )
    return False


def _opens_to_write(call: ast.Call) -> bool:
    modes = [*call.args[:2], *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    said = [
        mode.value
        for mode in modes
        if isinstance(mode, ast.Constant) and isinstance(mode.value, str)
    ]
    return any(set("wax+") & set(mode) and len(mode) < 4 for mode in said)
