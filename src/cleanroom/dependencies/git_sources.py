"""Git repositories as sources of packages: one commit each, fetched by git and kept as one file.

git runs in an environment of the fetch step that reaches one host; nothing there names a program
that it would start: no hooks, filters, helpers, and no configuration but that below. What it
brings is a pack of one commit, which `git_packs` checks outside against the commit's id (SHA-1).
"""

from __future__ import annotations

import configparser
import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

from cleanroom.dependencies.addresses import GIT_SCHEME
from cleanroom.dependencies.git_packs import (
    BYTES_MAX,
    FILE,
    LINK,
    PROGRAM,
    SUBMODULE,
    Entry,
    Pack,
    Unsafe,
    index,
)
from cleanroom.dependencies.model import Artifact
from cleanroom.dependencies.session import WORK, Session, ToolRun
from cleanroom.dependencies.settings import host_of
from cleanroom.dependencies.store import hard_link
from cleanroom.model.errors import DependencyRejected, DependencyUnavailable

SCHEME = GIT_SCHEME
ALGORITHM = "git"
SUBMODULES_MAX = 64
NESTED_MAX = 8  # submodules of submodules
CONFIGURATION = "gitconfig"
PACK, RESOLVED = "pack", "resolved"  # that the programs below write
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ADDRESS = re.compile(r"https://[A-Za-z0-9.:\[\]-]{1,255}/[A-Za-z0-9._~%/+@-]{1,1000}")
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,200}")
_TIME = 315_532_800 + 86_400  # of all files that are unpacked: as crates have it
_LINK_MAX = 4096

# Servers without the newer protocol give what references lead to, and nothing by its id.
FETCH = """
git init -q --bare repository && cd repository
fetch() { git fetch -q --no-tags --no-recurse-submodules --no-auto-gc "$@"; }
fetch --depth 1 "$1" "$2" || fetch "$1" '+refs/*:refs/fetched/*'
[ "$(git cat-file -t "$2")" = commit ]
echo "$2" > shallow
echo "$2" | git pack-objects -q --revs --stdout --window=0 --depth=0 --no-reuse-delta > ../pack
"""
# Behind a proxy every host is reached, and git sends a header to hosts that it is redirected to.
NO_REDIRECTS = """
if [ -n "$HTTPS_PROXY" ]; then git() { command git -c http.followRedirects=false "$@"; }; fi
"""
RESOLVE = 'git ls-remote -q "$1" $2 > resolved'

# git's own keys for everything by which a repository or a server could have it start a program.
_CONFIG = """[protocol]
    allow = never
[protocol "https"]
    allow = always
[core]
    hooksPath = /dev/null
    fsmonitor = false
    attributesFile = /dev/null
    askPass = true
[credential]
    helper =
[init]
    templateDir =
    defaultBranch = main
[transfer]
    fsckObjects = true
    bundleURI = false
[fetch "fsck"]
    zeroPaddedFilemode = ignore
    missingSpaceBeforeDate = ignore
    badTimezone = ignore
[gc]
    auto = 0
[maintenance]
    auto = false
[submodule]
    recurse = false
[http]
    lowSpeedLimit = 1
    lowSpeedTime = 60
"""


class GitSource(NamedTuple):
    """One commit of a repository."""

    url: str  # https, without credentials
    commit: str  # 40 hexadecimal digits

    @property
    def address(self) -> str:
        """As artifacts have it."""
        return f"{SCHEME}{self.url}@{self.commit}"


class Submodule(NamedTuple):
    """A repository inside of another one's files."""

    path: str
    source: GitSource


def checked_url(url: str) -> str:
    """The address of a repository that may be fetched, without credentials; "" for none."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    plain = f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
    try:
        valid = bool(urlsplit(plain).hostname) and (urlsplit(plain).port or 443) > 0
    except ValueError:
        return ""
    return plain if valid and _ADDRESS.fullmatch(plain) and ".." not in plain else ""


def is_commit(text: str) -> bool:
    """Whether it is the whole id of a commit."""
    return _COMMIT.fullmatch(text) is not None


def is_reference(text: str) -> bool:
    """Whether it may be the name of a branch or a tag."""
    return _REFERENCE.fullmatch(text) is not None and ".." not in text


def artifact(source: GitSource, name: str, version: str = "", kind: str = "") -> Artifact:
    """The file of the store that holds the commit; `kind` is the type of its package URL."""
    return Artifact(
        name=name,
        version=version or source.commit[:12],
        file=f"{source.commit}.pack",
        url=source.address,
        digest=f"{ALGORITHM}:{source.commit}",
        purl=f"pkg:{kind}/{name}@{version}?vcs_url={source.address}" if kind else "",
    )


def source_of(one: Artifact) -> GitSource | None:
    """The commit that an artifact is; None for other files."""
    if not one.url.startswith(SCHEME):
        return None
    url, _, commit = one.url.removeprefix(SCHEME).rpartition("@")
    return GitSource(url, commit)


# --- programs of the fetch step


def fetching(source: GitSource, headers: Mapping[str, str]) -> ToolRun:
    """How git fetches a commit: it leaves `PACK`."""
    return _run(FETCH, source.url, source.commit, headers)


def resolving(url: str, references: str, headers: Mapping[str, str]) -> ToolRun:
    """How git asks where references lead to: it leaves `RESOLVED`."""
    return _run(RESOLVE, url, references, headers)


def _run(script: str, url: str, further: str, headers: Mapping[str, str]) -> ToolRun:
    config = _CONFIG + "".join(
        f"    extraHeader = {_quoted(f'{name}: {value}')}\n" for name, value in headers.items()
    )
    if headers:
        script = NO_REDIRECTS + script
    return ToolRun(
        ["sh", "-ec", script, "git", url, further],
        files={CONFIGURATION: config.encode()},
        variables={
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": f"{WORK}/{CONFIGURATION}",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_PROTOCOL_FROM_USER": "0",
            "GIT_NO_REPLACE_OBJECTS": "1",
        },
        egress=[host_of(url)],
        wanted=f"a commit of {url}",
    )


def resolved(output: bytes, reference: str) -> tuple[str, str]:
    """Commit and full name of what a reference leads to, of `git ls-remote`; "" for none.

    A tag of its own object leads to the commit that stands behind it ("^{}").
    """
    found: dict[str, str] = {}
    for line in output.decode(errors="replace").splitlines():
        commit, _, name = line.partition("\t")
        if is_commit(commit):
            found[name] = commit
    for name in (reference, f"refs/tags/{reference}", f"refs/heads/{reference}"):
        if name in found:
            return found.get(f"{name}^{{}}", found[name]), name
    return "", ""


# --- what a commit holds


def submodules(pack: Pack, url: str) -> list[Submodule]:
    """The submodules of a commit, with their addresses; "" for one that may not be fetched.

    Raises:
        Unsafe: the commit is not whole.
    """
    entries = list(pack.entries())
    linked = {one.path: one.id for one in entries if one.mode == SUBMODULE}
    if not linked:
        return []
    text = next((pack.read(one.id) for one in entries if one.path == ".gitmodules"), b"")
    named = _gitmodules(text.decode(errors="replace"))
    found = []
    for path, commit in sorted(linked.items()):
        # git leaves out one that .gitmodules does not name
        if path not in named:
            continue
        own = named[path]
        joined = urljoin(f"{url.rstrip('/')}/", own) if own.startswith(("./", "../")) else own
        found.append(Submodule(path, GitSource(checked_url(joined), commit)))
    return found


def _gitmodules(text: str) -> dict[str, str]:
    """Path of each submodule, and its address as it stands there."""
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    try:
        parser.read_string("\n".join(line.strip() for line in text.splitlines()))
    except configparser.Error:
        return {}
    tables = [dict(parser.items(name)) for name in parser.sections()]
    return {str(one["path"]): str(one.get("url") or "") for one in tables if one.get("path")}


async def with_submodules(session: Session, artifacts: Iterable[Artifact]) -> list[Artifact]:
    """Fetch these commits; returns them with their submodules, and with those of submodules.

    Raises:
        DependencyRejected: what came is not the commit, or none that is used.
        DependencyUnavailable: one cannot be had.
    """
    found: dict[str, Artifact] = {}
    pending = [(one, 0) for one in artifacts]
    while pending:
        one, depth = pending.pop(0)
        source = source_of(one)
        if source is None or one.url in found:
            continue
        found[one.url] = one
        (stored,) = await session.download([one])
        try:
            with Pack(session.file(stored)) as pack:
                inner = submodules(pack, source.url)
        except Unsafe as error:
            raise refused(one, error) from error
        if inner and (depth == NESTED_MAX or len(found) > SUBMODULES_MAX):
            raise refused(one, Unsafe("it has too many submodules"))
        for module in inner:
            name = f"{one.name} {module.path}"[:200]
            if not module.source.url:
                raise DependencyUnavailable(
                    "CR-FETCH-003",
                    f"{ascii(name)[1:-1]}: a submodule whose address is not https",
                    hint="vendor the package, or fetch it in a phase with egress",
                )
            pending.append((artifact(module.source, one.name), depth + 1))
    return list(found.values())


def refused(one: Artifact, error: Unsafe) -> DependencyRejected:
    """The error of a commit that holds what is not used."""
    return DependencyRejected(
        "CR-FETCH-012",
        f"{one.name} {one.version} from {one.url.removeprefix(SCHEME)}: {ascii(str(error))[1:-1]}",
        hint="do not use it: look at the repository",
    )


def checkout_whole(
    packs: Mapping[str, Path], source: GitSource, folder: Path, depth: int = 0
) -> None:
    """Write a commit with its submodules into a new folder. `packs`: id of a commit -> file.

    Raises:
        Unsafe: a path cannot be written.
    """
    with Pack(packs[source.commit]) as pack:
        checkout(pack, folder)
        inner = submodules(pack, source.url)
    for module in inner:
        if module.source.commit not in packs or depth > NESTED_MAX:
            continue
        place = folder / module.path
        # Links were made last, so this one is in the commit as a folder; it is empty.
        place.rmdir()
        checkout_whole(packs, module.source, place, depth + 1)


def checkout(pack: Pack, folder: Path) -> None:
    """Write the files of a commit into a new folder: no filter, no attribute, no hook.

    Folders of submodules stay empty.

    Raises:
        Unsafe: a path cannot be written.
    """
    folder.mkdir(parents=True)
    links: list[Entry] = []
    left = BYTES_MAX
    try:
        for entry in pack.entries():
            left -= pack.objects[entry.id].size if entry.mode != SUBMODULE else 0
            if left < 0:
                raise Unsafe("it holds more bytes than a repository may")
            target = os.path.join(folder, entry.path)
            if entry.mode == SUBMODULE:
                os.makedirs(target, exist_ok=True)  # noqa: PTH103
                continue
            os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103
            if entry.mode == LINK:
                links.append(entry)
            else:
                _write(target, entry.mode, pack.chunks(entry.id))
        # Last: nothing is written through one.
        for entry in links:
            _link(pack, folder, entry)
    except (OSError, ValueError) as error:
        raise Unsafe(f"it cannot be unpacked: {error}") from error


def _write(target: str, mode: int, chunks: Iterable[bytes]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(target, flags, 0o755 if mode == PROGRAM else 0o644)
    with os.fdopen(descriptor, "wb", buffering=0) as out:
        for chunk in chunks:
            out.write(chunk)
        os.utime(descriptor, (_TIME, _TIME))


def _link(pack: Pack, folder: Path, entry: Entry) -> None:
    """A link; one that leads out is a file with its text, as git writes where there are none."""
    target = os.path.join(folder, entry.path)
    text = pack.read(entry.id, _LINK_MAX)
    to = text.decode(errors="surrogateescape")
    end = posixpath.normpath(posixpath.join(posixpath.dirname(entry.path), to))
    inside = to and "\0" not in to and not end.startswith(("/", "../")) and end != ".."
    if inside:
        Path(target).symlink_to(to)
    else:
        _write(target, FILE, (text,))


# --- repositories that git reads in phases


class Reference(NamedTuple):
    """What a bare repository has under a name."""

    name: str  # "refs/heads/main"
    commit: str


def bare_repository(
    folder: Path, packs: Mapping[str, Path], names: Iterable[Reference], *, partial: bool = False
) -> None:
    """A repository of these commits (id -> pack), without history, for git to clone from.

    `partial`: for clones with a filter, which take what is missing for promised. git that makes
    such a clone of a shallow repository starts itself again without an end (seen with 2.39).

    Raises:
        Unsafe: a pack is not that of its commit.
    """
    kept = folder / "objects" / "pack"
    kept.mkdir(parents=True)
    (folder / "refs").mkdir()
    for commit, path in packs.items():
        with Pack(path) as pack:
            if pack.commit != commit:
                raise Unsafe("a pack holds another commit than it should")
            hard_link(path, kept / f"pack-{pack.checksum.hex()}.pack")
            (kept / f"pack-{pack.checksum.hex()}.idx").write_bytes(index(pack))
    listed = {one.name: one.commit for one in names}
    listed |= {f"refs/heads/cleanroom-{commit}": commit for commit in packs}
    # pip fetches a commit again that no reference is named for.
    listed |= {f"refs/tags/{commit}": commit for commit in packs}
    head = next((name for name in listed if name.startswith("refs/heads/")), "")
    lines = ["# pack-refs with: peeled fully-peeled sorted "]
    lines += [f"{commit} {name}" for name, commit in sorted(listed.items())]
    (folder / "packed-refs").write_text("\n".join(lines) + "\n")
    (folder / "HEAD").write_text(f"ref: {head}\n")
    (folder / "info").mkdir()
    cut = folder / ("info/grafts" if partial else "shallow")
    cut.write_text("".join(f"{commit}\n" for commit in sorted(packs)))
    (folder / "config").write_text(
        "[core]\n\trepositoryformatversion = 0\n\tbare = true\n"
        "[uploadpack]\n\tallowAnySHA1InWant = true\n[advice]\n\tgraftFileDeprecated = false\n"
    )


def phase_config(repositories: Mapping[str, str]) -> bytes:
    """The system's configuration of git in phases: addresses are read from folders.

    `repositories`: address -> folder of its bare repository.
    """
    lines = [
        *("[include]", "\tpath = /etc/gitconfig"),
        # They belong to the engine's user, and phases may be another one.
        *("[safe]", "\tdirectory = *"),
        # For submodules git asks for this; the folders below are all that it would find.
        *('[protocol "file"]', "\tallow = always"),
    ]
    for url, folder in repositories.items():
        lines.append(f"[url {_quoted(f'file://{folder}')}]")
        lines += [f"\tinsteadOf = {_quoted(name)}" for name in _spellings(url)]
    return ("\n".join(lines) + "\n").encode()


def _spellings(url: str) -> Iterator[str]:
    """The address with and without its ending; the longest that fits counts for git."""
    plain = url.rstrip("/").removesuffix(".git")
    yield from (f"{plain}.git", f"{plain}/", plain)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "") + '"'
