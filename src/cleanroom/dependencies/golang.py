"""Go: `go.sum` and workspaces, and a module proxy of files.

go verifies each module against go.sum itself, and unpacks it into a cache of the phases' home.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlsplit, urlunsplit

import anyio.to_thread
import msgspec

from cleanroom.dependencies.discovery import ProjectFolder
from cleanroom.dependencies.model import Access, Artifact, Complete, Found, Lock, Problem
from cleanroom.dependencies.session import HOME_CACHE, Manager, Session
from cleanroom.dependencies.settings import Settings, host_of, read_text
from cleanroom.dependencies.store import hard_link
from cleanroom.model.errors import ProjectError

SUM, MOD, WORK, WORK_SUM = "go.sum", "go.mod", "go.work", "go.work.sum"
MODULES = "vendor/modules.txt"
PROXY = "https://proxy.golang.org"
TOOLCHAIN = "golang.org/toolchain"
_ELEMENT = r"[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,99}"
_PATH = re.compile(rf"(?=.{{1,250}}$){_ELEMENT}(?:/{_ELEMENT})*")
_VERSION = re.compile(r"v[0-9][0-9A-Za-z.+-]{0,99}")
_HASH = re.compile(r"h1:[A-Za-z0-9+/]{43}=")
# No part of these may match what the one before it matches: the time would be quadratic.
_USE = re.compile(r"^[^\S\n]*use\s*(?:\(([^()]*)\)|(\S+))", re.MULTILINE)
_COMMENT = re.compile(r"//[^\n]*")
_REQUIRES = re.compile(r"^[^\S\n]*require\b", re.MULTILINE)


class Module(NamedTuple):
    """One line of go.sum: a module's zip file, or its go.mod."""

    path: str
    version: str
    hash: str
    mod: bool

    @property
    def address(self) -> str:
        """Where a proxy has it."""
        return f"{at_proxy(self.path, self.version)}.{'mod' if self.mod else 'zip'}"


class Proxy(NamedTuple):
    """Where the caller's own configuration has modules come from."""

    url: str = PROXY  # without credentials; "" for none
    authorization: str = ""
    private: str = ""  # patterns of modules that come from their repositories
    default: bool = True

    @classmethod
    def of(cls, settings: Settings) -> Proxy:
        """From GOPROXY and GOPRIVATE, of the environment or of `go env -w`."""
        words = _go_environment(settings)
        text = words.get("GOPROXY", "")
        private = words.get("GONOPROXY") or words.get("GOPRIVATE", "")
        for entry in re.split(r"[,|]", text) if text else ():
            if entry in ("off", "direct"):
                break
            if entry.startswith(("https://", "http://")):
                return cls(*_without_login(entry), private, False)
        return cls("" if text else PROXY, "", private)

    def serves(self, module: str) -> bool:
        """Whether a module may be asked of it."""
        return not any(_matches(pattern, module) for pattern in self.private.split(","))


class Go(Manager):
    """The go command and a module proxy."""

    name = "go"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._proxy = Proxy.of(settings)

    def find(self, folder: ProjectFolder) -> Found | None:
        """The sums of this folder's module, or of the workspace that begins here."""
        if folder.read(MODULES) is not None:
            return None
        if WORK in folder.names:
            work = folder.read(WORK) or b""
            used = [f"{one}/{name}" for one in uses(work) for name in (SUM, MOD)]
            return self._found(folder, (WORK_SUM, WORK, *used))
        if MOD not in folder.names or _in_workspace(folder):
            return None
        return self._found(folder, (SUM, MOD))

    def _found(self, folder: ProjectFolder, names: Sequence[str]) -> Found | None:
        files = folder.files(names)
        needs = any(
            path.endswith(".sum") or _REQUIRES.search(content.decode(errors="replace"))
            for path, content in files.items()
        )
        # a module without requirements has no sums either
        return Found(self.name, folder.path, files) if needs else None

    def read(self, found: Found) -> Lock:
        """The modules of all sums.

        Raises:
            ProjectError: a line is none of go.sum.
        """
        sums = {path: text for path, text in found.files.items() if path.endswith(".sum")}
        if not sums:
            why = "it requires modules, and there is no go.sum"
            problem = Problem(entry=found.name, why=why, hint="`go mod tidy` writes one")
            return Lock(problems=(problem,))
        artifacts: dict[Artifact, None] = {}
        problems: dict[Problem, None] = {}
        for path, text in sums.items():
            for one in read_sums(path, text):
                refused = one if isinstance(one, Problem) else self._refused(one)
                if refused is not None:
                    problems[refused] = None
                elif isinstance(one, Module):
                    artifacts[_artifact(one, self._proxy.url)] = None
        return Lock(artifacts=tuple(artifacts), problems=tuple(problems))

    def _refused(self, module: Module) -> Problem | None:
        entry = f"{module.path} {module.version}"
        if module.path == TOOLCHAIN:
            return Problem(entry=entry, why="phases use the go that PATH leads to")
        if not self._proxy.url:
            return Problem(
                entry=entry,
                why="GOPROXY names no proxy, and repositories are not fetched yet",
                hint="`go mod vendor` puts it into the project",
            )
        if not self._proxy.serves(module.path):
            return Problem(
                entry=entry,
                why="GOPRIVATE has it come from its repository, and these are not fetched yet",
                hint="`go mod vendor` puts it into the project",
            )
        return None

    def credentials(self, url: str) -> Mapping[str, str]:
        """The login in GOPROXY, or what `~/.netrc` has for the host."""
        own = self._proxy
        if own.authorization and host_of(url) == host_of(own.url):
            return {"Authorization": own.authorization}
        return super().credentials(url)

    def named_hosts(self) -> frozenset[str]:
        """The proxy, where the caller's configuration names one."""
        named = self._proxy.url and not self._proxy.default
        return frozenset((host_of(self._proxy.url),) if named else ())

    def local_copies(self, artifact: Artifact) -> Sequence[Path]:
        """go keeps what it downloads as a proxy has it."""
        words = _go_environment(self.settings)
        gopath = words.get("GOPATH", "").partition(":")[0] or self.settings.home / "go"
        cache = Path(words.get("GOMODCACHE") or Path(gopath) / "pkg/mod")
        at = at_proxy(artifact.name, artifact.version)
        return ((cache / "cache/download" / at).with_name(artifact.file),)

    async def lay_out(
        self, session: Session, sets: Sequence[Complete], view: Path, place: str
    ) -> None:
        """What a proxy answers, as files."""
        files = [(one.artifact, session.file(one)) for _, fetched in sets for one in fetched.files]
        await anyio.to_thread.run_sync(_link_all, files, view)

    def access(self, view: str) -> Access:
        """go copies what it needs into its own cache, which stays in the phases' home."""
        return Access(
            {
                "GOPROXY": f"file://{view},off",
                # go.sum pins what is there, and nobody else can be asked
                "GOSUMDB": "off",
                "GONOPROXY": "none",
                "GOMODCACHE": f"{HOME_CACHE}/go-mod",
            },
            folders=(view,),
        )


# --- go.sum and go.work


def read_sums(path: str, content: bytes) -> Iterator[Module | Problem]:
    """The lines of a go.sum or go.work.sum.

    Raises:
        ProjectError: a line is none of go.sum.
    """
    for number, line in enumerate(content.split(b"\n"), 1):
        words = line.decode(errors="replace").split()
        if not words:
            continue
        if len(words) != 3:
            raise ProjectError(
                "CR-FETCH-006",
                "expected a module, its version and its hash, found another line",
                hint="`go mod tidy` writes go.sum",
                where=f"{path}:{number}:1",
            )
        name, version, digest = words
        mod = version.endswith("/go.mod")
        version = version.removesuffix("/go.mod")
        if not _PATH.fullmatch(name) or not _VERSION.fullmatch(version):
            entry = f"{name} {version}"[:200]
            yield Problem(entry=entry, why="its path or version is none that Go has")
        elif not _HASH.fullmatch(digest):
            yield Problem(entry=f"{name} {version}", why="it has no hash that is known: h1:...")
        else:
            yield Module(name, version, digest, mod)


def uses(work: bytes) -> list[str]:
    """The folders of a workspace's modules, as go.work names them."""
    text = _COMMENT.sub("", work.decode(errors="replace"))
    found = (block.split() or [single] for block, single in _USE.findall(text))
    return [os.path.normpath(one.strip('"`')) for block in found for one in block if one]


def at_proxy(path: str, version: str) -> str:
    """Where a proxy has a module's version, without the suffix (`go help goproxy`)."""
    return f"{_escaped(path)}/@v/{_escaped(version)}"


def _escaped(text: str) -> str:
    """Capitals as "!" and the small letter: some file systems know no capitals."""
    return re.sub(r"[A-Z]", lambda found: f"!{found[0].lower()}", text)


def _artifact(module: Module, proxy: str) -> Artifact:
    suffix, algorithm = ("mod", "h1mod") if module.mod else ("zip", "h1")
    return Artifact(
        name=module.path,
        version=module.version,
        file=f"{_escaped(module.version)}.{suffix}",
        url=f"{proxy}/{module.address}",
        digest=f"{algorithm}:{module.hash.removeprefix('h1:')}",
        purl="" if module.mod else _purl(module),
    )


def _purl(module: Module) -> str:
    """The module's archive; package URLs of Go have no capitals (purl-spec, "golang")."""
    return f"pkg:golang/{module.path.lower()}@{quote(module.version)}"


def _in_workspace(folder: ProjectFolder) -> bool:
    """Whether the nearest go.work above has this folder's module."""
    depth = folder.path.count("/") + bool(folder.path)
    for number in range(1, depth + 1):
        above = "../" * number
        work = folder.read(f"{above}{WORK}")
        if work is not None:
            at = folder.inside(above)
            return folder.path in {os.path.normpath(os.path.join(at, one)) for one in uses(work)}
    return False


# --- the caller's configuration


def _go_environment(settings: Settings) -> dict[str, str]:
    """The caller's variables for go, and below them what `go env -w` wrote."""
    variables = settings.variables
    config = Path(variables.get("XDG_CONFIG_HOME") or settings.home / ".config")
    lines = read_text(Path(variables.get("GOENV") or config / "go/env")).splitlines()
    written = (line.partition("=") for line in lines if "=" in line)
    own = {name: text for name, text in variables.items() if name.startswith("GO") and text}
    return {**{name.strip(): text.strip() for name, _, text in written}, **own}


def _without_login(url: str) -> tuple[str, str]:
    """An address without its login, and the header that stands for it."""
    parts = urlsplit(url.rstrip("/"))
    login, _, host = parts.netloc.rpartition("@")
    address = urlunsplit((parts.scheme, host, parts.path, "", ""))
    return address, f"Basic {base64.b64encode(login.encode()).decode()}" if login else ""


def _matches(pattern: str, module: str) -> bool:
    """Whether a pattern of GOPRIVATE is for this module: one for its first folders."""
    wanted = pattern.strip().rstrip("/").split("/")
    have = module.split("/")[: len(wanted)]
    return (
        bool(pattern.strip()) and len(have) == len(wanted) and all(map(fnmatchcase, have, wanted))
    )


# --- what go reads


def _link_all(files: Iterable[tuple[Artifact, Path]], view: Path) -> None:
    versions: dict[Path, set[str]] = {}
    for artifact, stored in files:
        folder = view / os.path.dirname(at_proxy(artifact.name, artifact.version))
        hard_link(stored, folder / artifact.file)
        # nothing pins this file, and all that go reads in it is the version
        document = msgspec.json.encode({"Version": artifact.version})
        (folder / f"{_escaped(artifact.version)}.info").write_bytes(document)
        versions.setdefault(folder, set()).add(artifact.version)
    for folder, known in versions.items():
        (folder / "list").write_text("".join(f"{one}\n" for one in sorted(known)))
