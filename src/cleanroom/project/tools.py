# ruff: noqa: PTH110, PTH112, PTH113, PTH115, PTH117, PTH119, PTH207
# Paths are compared as the strings under which they will be mounted.
"""The folders of the caller's programs, which phases see too.

Found by reading the file system: the folders of PATH outside the system's own, the installations
that they belong to, and the interpreters of the project's virtual environments.
The home folder itself and folders of credentials are never among them.

The caller chose PATH and the variables.
The project's files come from a repository, and phases change them.
So a link or a `pyvenv.cfg` in the project adds an interpreter's installation and nothing else.
`editable_installs` names the folders that it leaves out for that reason.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from cleanroom.core.files import is_file
from cleanroom.core.paths import is_within

# Every environment has these; what lies in them needs no mount of its own.
SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/proc",
    "/sys",
    "/dev",
    "/run",
)

# Below the home folder: installations that are shown whole. None of them keeps credentials.
_INSTALLATIONS = (
    *(
        ".pyenv",
        ".rustup",
        ".nvm",
        ".sdkman",
        ".volta",
        ".bun",
        ".deno",
        ".asdf",
        ".rbenv",
        ".fnm",
        ".npm-global",
        ".nodenv",
        ".goenv",
    ),
    *(
        ".local/share/mise",
        # beside them uv keeps credentials
        ".local/share/uv/python",
        ".local/share/uv/tools",
        ".local/share/pipx",
        ".local/pipx",
        ".local/share/fnm",
        ".local/share/pnpm",
        ".local/share/virtualenvs",
    ),
)
# Below the home folder: never, nor anything in them.
_PRIVATE = (
    *(
        ".ssh",
        ".gnupg",
        ".aws",
        ".azure",
        ".config",
        ".docker",
        ".kube",
        ".password-store",
        ".mozilla",
        ".netrc",
        ".npmrc",
        ".pypirc",
    ),
    *(
        ".git-credentials",
        ".gitconfig",
        ".pgpass",
        ".cargo/credentials",
        ".cargo/credentials.toml",
        ".local/share/keyrings",
        ".local/share/uv/credentials",
        ".m2",
        ".gradle",
    ),
)
# Below the home folder: not themselves, since they hold what is private beside programs.
_MIXED = ("", ".cargo", ".local", ".local/share", ".local/share/uv", ".local/lib", ".cache")
# Variables that name an installation -> where it usually is below the home folder; empty where it
# is nowhere in particular.
_LOCATIONS = {
    "PYENV_ROOT": ".pyenv",
    "RUSTUP_HOME": ".rustup",
    "NVM_DIR": ".nvm",
    "SDKMAN_DIR": ".sdkman",
    "VOLTA_HOME": ".volta",
    "ASDF_DIR": ".asdf",
    "ASDF_DATA_DIR": ".asdf",
    "MISE_DATA_DIR": ".local/share/mise",
    "UV_PYTHON_INSTALL_DIR": ".local/share/uv/python",
    "UV_TOOL_DIR": ".local/share/uv/tools",
    "PIPX_HOME": ".local/share/pipx",
    "FNM_DIR": ".local/share/fnm",
    "RBENV_ROOT": ".rbenv",
    "NODENV_ROOT": ".nodenv",
    "GOENV_ROOT": ".goenv",
    "GOROOT": "",
    "JAVA_HOME": "",
}
_VARIABLES = (*_LOCATIONS, "CONDA_PREFIX", "VIRTUAL_ENV")
# Entries that mark the parent of a bin folder as an installation.
_SIGNS = ("pyvenv.cfg", "lib", "lib64", "libexec", "conda-meta", "VERSION", "release")
_BIN = ("bin", "sbin", "Scripts", "shims")
_FOLDERS_MAX = 256  # followed; PATH and links of a real machine lead to a dozen
_LINKS_MAX = 4096  # looked at per folder


def visible_tools(caller: Mapping[str, str], root: Path) -> tuple[str, ...]:
    """Absolute existing folders to be shown read-only, sorted, none inside another,
    none inside the project.
    """
    return _Search(caller.get("HOME", ""), root).run(caller)


def tool_variables(caller: Mapping[str, str], tools: Iterable[str]) -> dict[str, str]:
    """The variables by which installations find their folders where the home folder differs.

    There is one for each installation whose folder is shown.
    """
    home, shown = caller.get("HOME", ""), tuple(tools)
    named = {
        name: caller.get(name) or (os.path.join(home, folder) if home and folder else "")
        for name, folder in _LOCATIONS.items()
    }
    return {
        name: path
        for name, path in named.items()
        if path and any(is_within(os.path.normpath(path), tool) for tool in shown)
    }


def is_private(path: str, home: str) -> bool:
    """Would showing this folder show a home folder or credentials?

    Judged by its name and by where it really is.
    """
    return any(
        _is_private(shown, base)
        for shown in {os.path.normpath(path), os.path.realpath(path)}
        for base in _homes(home)
    )


def _homes(home: str) -> set[str]:
    known = home if home and os.path.isabs(home) and os.path.normpath(home) != "/" else "/root"
    return {os.path.normpath(known), os.path.realpath(known)}


def _is_private(path: str, home: str) -> bool:
    if path in ("/", "/home", "/root") or is_within(home, path):
        return True
    if any(path == os.path.join(home, name).rstrip("/") for name in _MIXED):
        return True
    return any(is_within(path, os.path.join(home, name)) for name in _PRIVATE)


class _Search:
    def __init__(self, home: str, root: Path) -> None:
        self.home = home
        self.roots = {str(root), os.path.realpath(root)}
        self.found: set[str] = set()
        self.seen: set[str] = set()

    def run(self, caller: Mapping[str, str]) -> tuple[str, ...]:
        """The folders that are shown: those that the caller names, and those that these lead to."""
        self.rustup = caller.get("RUSTUP_HOME", os.path.join(self.home, ".rustup"))
        waiting = [
            folder for folder in caller.get("PATH", "").split(os.pathsep) if os.path.isabs(folder)
        ]
        waiting += [value for name in _VARIABLES if os.path.isabs(value := caller.get(name, ""))]
        waiting += [
            str(path) for root in sorted(self.roots) for path in virtual_environments(Path(root))
        ]
        while waiting and len(self.seen) < _FOLDERS_MAX:
            folder = os.path.normpath(waiting.pop(0))
            if folder not in self.seen:
                self.seen.add(folder)
                waiting += self.examine(folder)
        return _minimal(self.found)

    def examine(self, folder: str) -> Iterator[str]:
        """Record the installation of this folder, and yield the folders that it leads to."""
        if not os.path.isdir(folder):
            return
        shown = self.installation(folder)
        if self.useful(shown):
            self.found.add(shown)
        led = self.linked_folders(folder, shown)
        yield from filter(self.interpreters, led) if self.in_project(folder) else led

    def linked_folders(self, folder: str, shown: str) -> Iterator[str]:
        """The folders that its links and settings lead to."""
        real = os.path.realpath(folder)
        if real != folder:
            yield real
        yield from self.further(folder, shown)
        for base in {folder, os.path.join(folder, "bin")}:
            if not is_within(base, "/usr") or is_within(base, "/usr/local"):
                yield from _link_targets(base)

    def in_project(self, folder: str) -> bool:
        return any(is_within(folder, root) for root in self.roots)

    def interpreters(self, folder: str) -> bool:
        """Whether a folder that the project names holds an interpreter,
        or is in a known installation: else the project could have any folder shown.
        """
        if any(
            is_within(folder, os.path.join(home, name))
            for home in _homes(self.home)
            for name in _INSTALLATIONS
        ):
            return True
        shown = (
            os.path.join(folder, "bin")
            if os.path.isfile(os.path.join(folder, "pyvenv.cfg"))
            else folder
        )
        if os.path.basename(shown) not in _BIN or not _holds_python(shown):
            return False
        # Its parent would be shown with it, which an interpreter's is no more than its libraries.
        above = os.path.dirname(shown)
        return (
            self.installation(shown) == shown
            or os.path.isfile(os.path.join(above, "pyvenv.cfg"))
            or _has_library(above)
        )

    def installation(self, folder: str) -> str:
        """The installation that a folder of programs belongs to, or the folder itself."""
        for home in sorted(_homes(self.home)):
            for name in _INSTALLATIONS:
                if is_within(folder, os.path.join(home, name)):
                    return os.path.join(home, name)
        if os.path.exists(os.path.join(folder, "pyvenv.cfg")):
            return folder
        # A program of npm's needs the rest of its package, and packages beside it.
        above, packages, _ = f"{folder}/".partition("/node_modules/")
        if packages:
            return f"{above}/node_modules"
        parent = os.path.dirname(folder)
        if os.path.basename(folder) not in _BIN or not self.useful(parent):
            return folder
        at_home = any(is_within(parent, home) for home in _homes(self.home))
        signs = ("pyvenv.cfg", "conda-meta") if at_home else _SIGNS
        return (
            parent if any(os.path.exists(os.path.join(parent, sign)) for sign in signs) else folder
        )

    def useful(self, folder: str) -> bool:
        """May it be shown, and does it show anything that is not there anyway?"""
        if any(is_within(folder, system) for system in SYSTEM) or is_private(folder, self.home):
            return False
        # The workspace is shown as such; a folder around it would lie over it.
        return not any(is_within(folder, root) or is_within(root, folder) for root in self.roots)

    def further(self, folder: str, shown: str) -> Iterator[str]:
        """Parts of installations that lie elsewhere."""
        for environment in {folder, shown, os.path.dirname(folder)}:
            yield from _base_of(environment)
            if not self.in_project(environment):
                yield from _editable(environment)
        if os.path.basename(os.path.dirname(folder)) == ".cargo":
            yield self.rustup
        if os.path.isfile(os.path.join(folder, "uv")):
            # uv uses them wherever it was installed itself.
            yield from (
                os.path.join(self.home, ".local/share/uv", name) for name in ("python", "tools")
            )
        if folder.endswith("/.local/bin"):
            local = os.path.dirname(folder)
            yield from (os.path.join(local, name) for name in ("share/pipx/venvs", "pipx/venvs"))
            yield from _globbed(os.path.join(local, "lib"), "python3*")


def virtual_environments(root: Path) -> list[Path]:
    """Those of a project, by their usual names."""
    return [root / name for name in (".venv", "venv", "env") if is_file(root / name / "pyvenv.cfg")]


def editable_installs(root: Path) -> tuple[str, ...]:
    """The folders outside that the project's virtual environments use packages from,
    which are not shown by their word alone.
    """
    found = {
        os.path.normpath(path)
        for environment in virtual_environments(root)
        for path in _editable(str(environment))
    }
    return tuple(
        sorted(path for path in found if not is_within(path, str(root)) and os.path.isdir(path))
    )


def _holds_python(folder: str) -> bool:
    return any(
        os.path.basename(path).startswith(("python", "pypy")) and os.access(path, os.X_OK)
        for path in _globbed(folder, "py*")
    )


def _has_library(folder: str) -> bool:
    return any(_globbed(folder, sign) for sign in ("lib/py*3*/os.py", "conda-meta"))


def _globbed(folder: str, pattern: str) -> list[str]:
    """The paths in a folder that match, in order; none where the caller may not look."""
    return sorted(os.path.join(folder, found) for found in glob.glob(pattern, root_dir=folder))


def _base_of(environment: str) -> Iterator[str]:
    """The folder of the interpreter that a virtual environment was made from."""
    try:
        with open(
            os.path.join(environment, "pyvenv.cfg"), encoding="utf-8", errors="replace"
        ) as stream:
            text = stream.read(65536)
    except OSError:
        return
    for line in text.splitlines():
        name, _, value = line.partition("=")
        path = value.strip()
        if name.strip() == "home" and os.path.isabs(path):
            yield path
        if name.strip() in ("executable", "base-executable") and os.path.isabs(path):
            yield os.path.dirname(path)


def _editable(environment: str) -> Iterator[str]:
    """The folders of packages that a virtual environment uses from where they are written."""
    if not os.path.isfile(os.path.join(environment, "pyvenv.cfg")):
        return
    for file in _globbed(environment, "lib/python3*/site-packages/*.pth"):
        try:
            with open(file, encoding="utf-8", errors="replace") as stream:
                lines = stream.read(65536).splitlines()
        except OSError:
            continue
        yield from (line.strip() for line in lines if os.path.isabs(line.strip()))


def _link_targets(folder: str) -> Iterator[str]:
    """The folders that the links in a folder of programs lead to, each step of the way."""
    try:
        with os.scandir(folder) as entries:
            links = sorted(
                entry.path
                for _, entry in zip(range(_LINKS_MAX), entries, strict=False)
                if entry.is_symlink()
            )
    except OSError:
        return
    led: set[str] = set()
    for link in links:
        for _ in range(16):  # a longer chain is a circle
            try:
                target = os.readlink(link)
            except OSError:
                break
            at = os.path.dirname(link)
            if at == folder and "/" not in target:
                # most of a system's hundreds: what it leads to is in this folder and looked at by
                # itself
                break
            link = os.path.normpath(f"{at}/{target}" if target[:1] != "/" else target)
            if (at := os.path.dirname(link)) not in led and os.path.isfile(link):
                led.add(at)
    yield from sorted(led - {folder})


def _minimal(folders: Iterable[str]) -> tuple[str, ...]:
    """Without those inside another."""
    kept: list[str] = []
    for folder in sorted(folders):
        if not any(is_within(folder, other) for other in kept):
            kept.append(folder)
    return tuple(kept)
