"""Maven: what a build's projects need, resolved by Maven itself and pinned on first use.

Maven has no lock, and only Maven knows what a project's parents, profiles and imports come to.
So the caller's own Maven reads the projects in an environment that reaches their repositories, and
an extension of ours (`inside/Resolve.java`) has it resolve what phases may ask for.
No plugin and no extension runs there, neither the project's nor a package's.
What it downloaded counts only where its digest is the one that the repository gives the engine.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import anyio.to_thread
import msgspec

from cleanroom.dependencies import inside
from cleanroom.dependencies.discovery import ProjectFolder
from cleanroom.dependencies.maven_pom import (
    EXTENSIONS,
    OPTIONS,
    POM,
    WRAPPER,
    build_files,
    core_extensions,
    dependencies,
    is_module,
    own_coordinates,
    read_pom,
    repositories,
    safe_options,
)
from cleanroom.dependencies.maven_repository import (
    Inside,
    conflicts,
    files_inside,
    link_all,
    moving,
    path_of,
)
from cleanroom.dependencies.maven_settings import FILE as SETTINGS_FILE
from cleanroom.dependencies.maven_settings import MavenSettings, is_address
from cleanroom.dependencies.maven_xml import Node, NotXml
from cleanroom.dependencies.model import (
    Access,
    Artifact,
    Complete,
    Found,
    Lock,
    Overlay,
    Problem,
)
from cleanroom.dependencies.session import WORK, Manager, Page, Session, ToolResult, ToolRun
from cleanroom.dependencies.settings import Settings, basic, host_of
from cleanroom.model.errors import DependencyRejected, DependencyUnavailable, ProjectError

CENTRAL = "https://repo.maven.apache.org/maven2"
PROGRAM = "Resolve.java"
HOME_M2 = "/home/cleanroom/.m2"
OFFLINE = b"<settings><offline>true</offline></settings>\n"
_SHA1 = re.compile(rb"\s*([0-9A-Fa-f]{40})\b")
_ANSWER_MAX = 4 << 20
# Programs of some seconds gain nothing by Java's second compiler, which took half of their time.
# Not every machine of Java has two.
_QUICK = "-XX:+IgnoreUnrecognizedVMOptions -XX:TieredStopAtLevel=1"
# Milliseconds of silence; Maven's own are half an hour. The second is that of Maven before 3.9.
_TIMEOUTS = ("-Daether.connector.requestTimeout=30000", "-Dmaven.wagon.rto=30000")
# Needs Maven 3, whose parts the program replaces, and a compiler for it.
_SCRIPT = r"""
about=$(mvn -B --version) || { echo "$about"; exit 1; }
case "$about" in *'Apache Maven 3.'*) ;; *) echo "this needs Maven 3, found: $about"; exit 1;; esac
home=$(printf '%s\n' "$about" | sed -n 's/^Maven home: //p')
compiler=javac
if [ -n "$JAVA_HOME" ]; then compiler=$JAVA_HOME/bin/javac; fi
command -v "$compiler" >/dev/null || { echo 'this needs a JDK, found no javac'; exit 1; }
quick=$(printf ' -J%s' $MAVEN_OPTS)
"$compiler" $quick -source 8 -target 8 -nowarn -proc:none -cp "$home/lib/*" -d extension \
  Resolve.java
exec mvn -B -ntp "$@"
"""


class Maven(Manager):
    """Maven and the repositories that projects and the caller's settings name."""

    name = "maven"
    layout = 2

    def __init__(self, settings: Settings) -> None:
        own = MavenSettings.of(settings.text(SETTINGS_FILE), settings.variables)
        proxy, without = own.proxy()
        if proxy and not settings.proxy:
            further = {"HTTPS_PROXY": proxy, "NO_PROXY": without}
            settings = settings._replace(variables={**settings.variables, **further})
        super().__init__(settings)
        self._own = own
        # the files of each build, by the path of its first project
        self._builds: dict[str, dict[str, bytes]] = {}
        # where the resolving Maven left a file
        self._inside: dict[Artifact, Path] = {}

    def find(self, folder: ProjectFolder) -> Found | None:
        """The projects of the build that begins in this folder; None in that of a module."""
        # A link or a pipe in its place is not read.
        if POM not in folder.names or folder.read(POM) is None:
            return None
        files = self._build(folder, POM)
        depth = folder.path.count("/") + bool(folder.path)
        for number in range(1, depth + 1):
            above = f"{'../' * number}{POM}"
            if folder.read(above) is not None and is_module(
                folder.inside(POM), self._build(folder, above)
            ):
                return None
        return Found(
            self.name, folder.path, {**files, **folder.files((EXTENSIONS, OPTIONS, WRAPPER))}
        )

    def _build(self, folder: ProjectFolder, name: str) -> dict[str, bytes]:
        path = folder.inside(name)
        if path not in self._builds:
            self._builds[path] = build_files(folder, name)
        return self._builds[path]

    def read(self, found: Found) -> Lock:
        """What the projects themselves depend on: the rest Maven resolves.

        Raises:
            ProjectError: a project cannot be read.
        """
        poms = _poms(found)
        own = own_coordinates(poms)
        needed = {one for pom in poms for one in dependencies(pom)}
        names = tuple(sorted(one for one in needed if one.partition(" ")[0] not in own))
        # Maven gets the plugins of every project too, and no file pins those
        unresolved = (*names, "plugins and all that these need")
        return Lock(
            unresolved=unresolved,
            unpinned=unresolved,
            problems=tuple(self._problems(found, poms)),
            cautions=tuple(self._cautions(found)),
        )

    def _cautions(self, found: Found) -> Iterable[str]:
        """Maven takes a version of the first repository that has it, whoever put it there."""
        hosts = self._hosts(found)
        if self._own.mirrors_central:
            hosts -= {host_of(CENTRAL)} - self.named_hosts()
        if self.named_hosts() and len(hosts) > 1:
            yield (
                f"any of {len(hosts)} repositories may give what no lock pins "
                f"({', '.join(sorted(hosts))}): name a mirror of all of them in settings.xml"
            )

    def _problems(self, found: Found, poms: Iterable[Node]) -> Iterable[Problem]:
        for one in dict.fromkeys(one for pom in poms for one in repositories(pom)):
            if not one.url.startswith("https://") or not is_address(one.url):
                yield Problem(
                    entry=f"repository {one.id} {one.url}"[:200],
                    why="its address is none of https, so it is not asked",
                    hint="name it in your own settings.xml, as a mirror or in a profile",
                )
        if self._own.unreadable:
            why = f"it cannot be read: {self._own.unreadable}"
            yield Problem(entry="your own settings.xml", why=why)
        for name in self._own.encrypted():
            yield Problem(entry=f"server {name}", why="only Maven can read its password")
        if _beside(found, WRAPPER):
            yield Problem(
                entry="the Maven that ./mvnw downloads",
                why="distributions of Maven are not fetched yet",
                hint="phases that call mvn instead of ./mvnw have yours",
            )
        if EXTENSIONS in {os.path.relpath(path, found.folder or ".") for path in found.files}:
            _core_extensions(found)

    def context(self) -> str:
        """Which Maven and which Java: they decide on default versions and on profiles."""
        variables = self.settings.variables
        programs = [shutil.which(name, path=variables.get("PATH")) for name in ("mvn", "java")]
        paths = [os.path.realpath(one) for one in programs if one]
        return "\0".join([*paths, variables.get("JAVA_HOME", "")])

    async def resolve(self, session: Session, found: Found, lock: Lock) -> tuple[Artifact, ...]:
        """What Maven resolves, each file with the digest that its repository gives.

        Raises:
            DependencyUnavailable: Maven is not there, or cannot read the projects.
        """
        hosts = self._hosts(found)
        result = await session.run(self._tool(found, hosts))
        if result.exit_code:
            raise _maven_failed(found, result.output)
        answer = await anyio.to_thread.run_sync(_read_answer, result)
        sources = {
            words[1]: words[2].rstrip("/")
            for words in answer
            if words[0] == "repository" and len(words) == 3
            if is_address(words[2]) and host_of(words[2]) in hosts
        }
        listed = partial(_listed, result.folder / "repository", sources)
        files = await anyio.to_thread.run_sync(listed)
        for problem in (*_answered(answer), *_moving(files)):
            session.note(problem)
        fixed = [one for one in files if not moving(one.artifact)]
        # One that a repository lacks leaves the others in force.
        pages = [Page(f"{one.artifact.url}.sha1", optional=True) for one in fixed]
        digests = map(_sha1, await session.read(pages))
        pinned = {
            _with_digest(one.artifact, digest): one.path
            for one, digest in zip(fixed, digests, strict=True)
        }
        self._inside |= pinned
        return tuple(pinned)

    def _tool(self, found: Found, hosts: Iterable[str]) -> ToolRun:
        settings = self.settings
        poms = {path: content for path, content in found.files.items() if path.endswith(".xml")}
        poms = {path: content for path, content in poms.items() if not path.endswith(EXTENSIONS)}
        program = (Path(inside.__file__).parent / PROGRAM).read_bytes()
        classes = b"Resolve\nResolve$WithoutExtensions\n"
        own = self._own.for_fetch(settings.proxy, settings.no_proxy)
        words = [
            *("-s", "settings.xml", "-f", f"project/{found.name}"),
            f"-Dmaven.repo.local={WORK}/repository",
            "-Dmaven.artifact.threads=16",
            *_TIMEOUTS,
            f"-Dmaven.ext.class.path={WORK}/extension",
            f"-Dcleanroom.answer={WORK}/answer",
            f"-Dcleanroom.hosts={','.join(sorted(hosts))}",
            f"-Dcleanroom.trusted={','.join(sorted(self.named_hosts()))}",
            f"-Dcleanroom.extensions={','.join(_core_extensions(found))}",
            *_options(found),
            "validate",
        ]
        return ToolRun(
            ["sh", "-ec", _SCRIPT, "maven", *words],
            files={
                **{f"project/{path}": content for path, content in poms.items()},
                PROGRAM: program,
                "extension/META-INF/sisu/javax.inject.Named": classes,
                "settings.xml": own.encode(),
            },
            variables={"MAVEN_SKIP_RC": "1", "MAVEN_OPTS": _QUICK},
            egress=sorted(hosts),
            wanted=f"what {found.name} asks for",
        )

    def _hosts(self, found: Found) -> frozenset[str]:
        """HOST:PORT of the repositories that may be asked."""
        named = self.named_hosts()
        if self._own.mirrors_all:
            return named
        addresses = {one.url for pom in _poms(found) for one in repositories(pom)}
        public = (one for one in addresses if one.startswith("https://") and is_address(one))
        return named | {host_of(CENTRAL)} | {host_of(one) for one in public}

    def credentials(self, url: str) -> Mapping[str, str]:
        """The login of a server whose address the caller's settings have."""
        login = self._own.login(url)
        return basic(*login) if login else super().credentials(url)

    def named_hosts(self) -> frozenset[str]:
        """The hosts of mirrors and repositories in the caller's settings."""
        return frozenset(map(host_of, self._own.addresses.values()))

    def downloaded(self, artifact: Artifact) -> Path | None:
        """What the resolving Maven downloaded."""
        return self._inside.get(artifact)

    def local_copies(self, artifact: Artifact) -> Sequence[Path]:
        """The caller's own repository."""
        return (self.settings.home / ".m2/repository" / path_of(artifact),)

    async def lay_out(
        self, session: Session, sets: Sequence[Complete], view: Path, place: str
    ) -> None:
        """A `.m2` folder with the repository and settings that are offline.

        Raises:
            DependencyRejected: two builds have different files of one name.
        """
        stored = [one for _, fetched in sets for one in fetched.files]
        if different := conflicts(stored):
            raise DependencyRejected(
                "CR-FETCH-012",
                f"{different[0]}: two builds of the project have different files of this name",
                hint="see which repository gives each of them",
            )
        files = [(one.artifact, session.file(one)) for one in stored]
        (view / "m2/repository").mkdir(parents=True)
        await anyio.to_thread.run_sync(link_all, files, view / "m2/repository")
        await anyio.to_thread.run_sync((view / "m2/settings.xml").write_bytes, OFFLINE)

    def access(self, view: str) -> Access:
        """Maven writes to its repository, so phases have it copy-on-write, in their home."""
        # Java takes its user's home from the accounts; where those are the host's, this counts.
        variables = {"MAVEN_OPTS": f"-Dmaven.repo.local={HOME_M2}/repository"}
        return Access(variables, overlays=(Overlay(f"{view}/m2", HOME_M2),))


# --- the project


def _poms(found: Found) -> list[Node]:
    """The projects, read.

    Raises:
        ProjectError: one is none of Maven's.
    """
    nodes = []
    for path, content in found.files.items():
        if path.endswith((EXTENSIONS, OPTIONS, WRAPPER)):
            continue
        try:
            nodes.append(read_pom(content))
        except NotXml as error:
            raise _unreadable(path, error) from error
    return nodes


def _beside(found: Found, name: str) -> bytes:
    """A file of the build's own folder; empty where it is not there."""
    return found.files.get(os.path.normpath(os.path.join(found.folder, name)), b"")


def _core_extensions(found: Found) -> list[str]:
    content = _beside(found, EXTENSIONS)
    if not content:
        return []
    try:
        return core_extensions(content)
    except NotXml as error:
        raise _unreadable(os.path.join(found.folder, EXTENSIONS), error) from error


def _options(found: Found) -> list[str]:
    return safe_options(_beside(found, OPTIONS))


def _unreadable(path: str, error: NotXml) -> ProjectError:
    return ProjectError(
        "CR-FETCH-006",
        f"expected a file of Maven's, found another one: {error}",
        hint="`mvn validate` says more",
        where=f"{path}:1:1",
    )


# --- what Maven answered


def _read_answer(result: ToolResult) -> list[list[str]]:
    """The lines of the answer, as words; none where something else lies in its place."""
    text = result.read("answer", _ANSWER_MAX).decode(errors="replace")
    return [line.split("\t") for line in text.splitlines() if line]


def _listed(folder: Path, sources: Mapping[str, str]) -> list[Inside]:
    return list(files_inside(folder, sources))


def _answered(answer: Iterable[Sequence[str]]) -> Iterable[Problem]:
    """What Maven could not resolve, and the repositories that might have had it.

    Descriptions of dependencies name many that nobody needs.
    """
    missing = [words for words in answer if words[0] == "missing" and len(words) == 3]
    for words in missing:
        yield Problem(entry=words[1][:200], why=f"Maven cannot resolve it: {words[2][:300]}")
    for words in answer:
        if missing and words[0] == "refused" and len(words) == 2:
            why = "neither the projects nor your settings.xml name this repository"
            yield Problem(entry=f"repository {words[1]}"[:200], why=why)


def _moving(files: Iterable[Inside]) -> Iterable[Problem]:
    """Snapshots: the same name is another file tomorrow."""
    entries = {
        f"{one.artifact.name} {one.artifact.version}" for one in files if moving(one.artifact)
    }
    for entry in sorted(entries):
        yield Problem(
            entry=entry,
            why="a snapshot is another file tomorrow",
            hint="name a released version",
        )


def _sha1(document: bytes) -> str:
    """The digest in a `.sha1` file, which may name its file too; "" where it has none."""
    found = _SHA1.match(document) or re.search(rb"\b([0-9A-Fa-f]{40})\s*$", document)
    return f"sha1:{found[1].decode().lower()}" if found else ""


def _with_digest(artifact: Artifact, digest: str) -> Artifact:
    return msgspec.structs.replace(artifact, digest=digest)


def _maven_failed(found: Found, output: bytes) -> DependencyUnavailable:
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("[ERROR]").strip() for line in lines if line.startswith("[ERROR]")]
    text = "; ".join(errors[:2] or lines[-2:])[:400] or "it said nothing"
    return DependencyUnavailable(
        "CR-FETCH-009",
        f"{found.name}: Maven cannot resolve it: {text}",
        hint="install Maven 3 and a JDK where PATH leads to them, and see that `mvn test` works",
    )
