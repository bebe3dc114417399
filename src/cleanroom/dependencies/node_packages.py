"""What npm, pnpm and yarn have in common: npm's registry, its packages, the caller's `.npmrc`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import msgspec

from cleanroom.dependencies.digests import algorithm, to_integrity
from cleanroom.dependencies.model import Artifact, Found
from cleanroom.dependencies.npmrc import REGISTRY, Npmrc
from cleanroom.dependencies.session import SERVED, Manager
from cleanroom.dependencies.settings import Settings, host_of, read_text

SETTINGS = ".npmrc"
MANIFEST = "package.json"
_NAME = re.compile(r"(@[\w.~-]+/)?[\w.~-]+", re.ASCII)
_VERSION = re.compile(r"[\w.+-]{1,256}", re.ASCII)
_MANAGER = re.compile(
    r"(pnpm|yarn)@(\d+\.\d+\.\d+[\w.-]*)(?:\+(sha(?:1|224|256|384|512))\.([0-9a-f]+))?", re.ASCII
)
_ERROR = re.compile(r"\bERR_|\bError\b|\berror\b|ERROR")
COREPACK_VARIABLES = {"COREPACK_ENABLE_DOWNLOAD_PROMPT": "0", "COREPACK_ENABLE_STRICT": "0"}
# Files below the caller's home in which pnpm keeps registries and tokens beside npm's.
_FURTHER = (".config/pnpm/rc", ".config/pnpm/auth.ini")


class NodeManager(Manager):
    """A manager of packages of npm's registry."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        own = settings.variables.get("npm_config_userconfig") or settings.home / SETTINGS
        further = (settings.text(path) for path in _FURTHER)
        self.callers = Npmrc(*further, read_text(Path(own)), variables=settings.variables)

    def address(self, project: Npmrc | None, name: str, address: str) -> str:
        """Where npm would get a file: an address of npm's own registry leads to the caller's."""
        registry = project.registry(name) if project is not None else REGISTRY
        if registry == REGISTRY:
            registry = self.callers.registry(name)
        if address.startswith(f"{REGISTRY}/"):
            return f"{registry}{address.removeprefix(REGISTRY)}"
        return address

    def credentials(self, url: str) -> Mapping[str, str]:
        """From the caller's `.npmrc`, else as `Manager` has it."""
        found = self.callers.authorization(url)
        return {"Authorization": found} if found else super().credentials(url)

    def named_hosts(self) -> frozenset[str]:
        """The registries of the caller's `.npmrc`."""
        return frozenset(host_of(url) for url in self.callers.registries())

    def local_copies(self, artifact: Artifact) -> Sequence[Path]:
        """npm's own cache has files under their digest."""
        if algorithm(artifact.digest) not in ("sha512", "sha1"):
            return ()
        cache = self.settings.variables.get("npm_config_cache") or self.settings.home / ".npm"
        return (Path(cache) / content_path(artifact.digest),)


class ToolVersion(msgspec.Struct, frozen=True):
    """The version of a package manager that a project names."""

    name: str
    version: str
    digest: str = ""


def project_settings(found: Found) -> Npmrc:
    """Those that npm reads in a phase too; credentials of the caller are none of them."""
    text = next((text for path, text in found.files.items() if path.endswith(SETTINGS)), b"")
    return Npmrc(text.decode(errors="replace"))


def tool_version(manifest: bytes | None) -> ToolVersion | None:
    """What `packageManager` of a package.json says; None for nothing that corepack takes."""
    try:
        document = msgspec.json.decode(manifest or b"")
    except (msgspec.DecodeError, RecursionError):
        return None
    text = document.get("packageManager") if isinstance(document, dict) else None
    found = _MANAGER.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return None
    digest = f"{found[3]}:{found[4]}" if found[3] else ""
    return ToolVersion(found[1], found[2], digest)


def manifest_text(tool: ToolVersion | None, name: str) -> dict[str, object]:
    """What of a package.json says which version of the manager `name` is wanted."""
    if tool is None or tool.name != name:
        return {}
    digest = f"+{tool.digest.replace(':', '.')}" if tool.digest else ""
    return {"packageManager": f"{tool.name}@{tool.version}{digest}"}


def corepack_document(one: Artifact) -> bytes:
    """What the server of the fetch step says to corepack of a package manager's version."""
    tarball = f"{SERVED}/{one.name}/-/{one.file}"
    dist: dict[str, object] = {"tarball": tarball, "signatures": []}
    if one.digest.startswith("sha512:"):
        dist["integrity"] = to_integrity(one.digest)
    return msgspec.json.encode({"name": one.name, "version": one.version, "dist": dist})


def is_package(name: str, version: str) -> bool:
    """Whether npm's registry may have a package of this name and version."""
    return (
        _NAME.fullmatch(name) is not None
        and _VERSION.fullmatch(version) is not None
        and not {"..", "."} & {*name.split("/"), version}
    )


def tarball_name(name: str, version: str) -> str:
    """The name of a package's file in its registry."""
    return f"{name.rpartition('/')[2]}-{version}.tgz"


def default_address(name: str, version: str) -> str:
    """Where npm's own registry has a package's file."""
    return f"{REGISTRY}/{name}/-/{tarball_name(name, version)}"


def purl(name: str, version: str) -> str:
    """The package's URL, as SBOMs name it."""
    return f"pkg:npm/{quote(name, safe='/')}@{version}"


def content_path(digest: str) -> str:
    """Where npm's cache has the content with this digest."""
    name, _, value = digest.partition(":")
    return f"_cacache/content-v2/{name}/{value[:2]}/{value[2:4]}/{value[4:]}"


def fits(wanted: object, have: str) -> bool:
    """Whether a list of a package's `os`, `cpu` or `libc` has this one, or does not refuse it."""
    if not isinstance(wanted, list):
        return True
    refused = [name[1:] for name in wanted if str(name).startswith("!")]
    named = [name for name in wanted if not str(name).startswith("!")]
    return have not in refused and (not named or have in named)


def fits_platform(entry: Mapping[str, object]) -> bool:
    """Whether a package with these conditions is for this machine."""
    return (
        fits(entry.get("os"), "linux")
        and fits(entry.get("cpu"), cpu_name())
        and fits(entry.get("libc"), libc())
    )


def cpu_name() -> str:
    """This machine, as Node.js names it."""
    machine = os.uname().machine
    return {"x86_64": "x64", "aarch64": "arm64", "i686": "ia32"}.get(machine, machine)


def libc() -> str:
    """The C library of this machine, as packages name it."""
    return "glibc" if "CS_GNU_LIBC_VERSION" in os.confstr_names else "musl"


def program_state(program: str, path: str) -> str:
    """What differs where another version of a program was installed."""
    import shutil

    found = shutil.which(program, path=path)
    if found is None:
        return ""
    try:
        real = os.path.realpath(found)
        state = os.stat(real)  # noqa: PTH116 -- follows the link on purpose
    except OSError:
        return ""
    return f"{real}:{state.st_size}:{state.st_mtime_ns}"


def tool_message(output: bytes) -> str:
    """The lines of a tool's output that say why it failed."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines()]
    said = [line for line in lines if line and not line.startswith("at ")]
    errors = [line for line in said if _ERROR.search(line)]
    return "; ".join(errors[:3] or said[-3:])[:400] or "it said nothing"
