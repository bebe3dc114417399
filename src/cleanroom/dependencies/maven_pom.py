"""Maven's projects: which files belong to one build, and what they name. Pure but for reading."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from cleanroom.dependencies.discovery import ProjectFolder
from cleanroom.dependencies.maven_xml import Node, NotXml, read_xml

POM = "pom.xml"
EXTENSIONS, OPTIONS = ".mvn/extensions.xml", ".mvn/maven.config"
WRAPPER = ".mvn/wrapper/maven-wrapper.properties"
MODULES_MAX = 1000
# Properties that people give on the command line to name versions (Maven's "CI friendly versions").
_VERSION_OPTION = re.compile(r"-D(?:revision|changelist|sha1)=[A-Za-z0-9._+-]{0,100}")
_PROFILES_OPTION = re.compile(r"(?:-P|--activate-profiles[= ])\s*([A-Za-z0-9._+!,?-]{1,200})")
_COORDINATE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,199}")


class Repository(NamedTuple):
    """An address that a project has artifacts come from."""

    id: str
    url: str


def read_pom(content: bytes) -> Node:
    """A project's root element.

    Raises:
        NotXml: it is no project of Maven's.
    """
    root = read_xml(content)
    if root.name != "project":
        raise NotXml(f"its root is <{root.name[:50]}> and not <project>")
    return root


def build_files(folder: ProjectFolder, name: str = POM) -> dict[str, bytes]:
    """The projects of one build: this one, its modules, and parents that lie in the project.

    By their paths relative to the project's root, this one first.
    """
    found: dict[str, bytes] = {}
    pending = [folder.inside(name)]
    while pending and len(found) < MODULES_MAX:
        path = pending.pop(0)
        # `read` takes paths relative to the folder
        content = None if path in found else folder.read(os.path.relpath(path, folder.path or "."))
        if content is None:
            continue
        found[path] = content
        try:
            pending += _named(path, read_pom(content))
        except NotXml:
            continue  # `read` of the manager says so
    return found


def _named(path: str, pom: Node) -> Iterator[str]:
    """The files of a project's modules and of its parent; those outside are not read."""
    around = os.path.dirname(path)
    parents = [one for one in pom.all("parent") if not one.all("relativePath")]
    names = [module.text for module in modules(pom)]
    names += [node.text for node in pom.at("parent/relativePath") if node.text]
    names += ["../pom.xml" for _ in parents]
    for name in names:
        if not name or "\0" in name or name.startswith("/") or "${" in name:
            continue
        file = name if name.endswith(".xml") else f"{name}/{POM}"
        joined = os.path.normpath(os.path.join(around, file.replace("\\", "/")))
        if not joined.startswith(".."):
            yield joined


def modules(pom: Node) -> Iterator[Node]:
    """The modules of a project, also those that a profile adds."""
    for path in ("modules/module", "subprojects/subproject"):
        yield from pom.at(path)
        yield from pom.at(f"profiles/profile/{path}")


def repositories(pom: Node) -> Iterator[Repository]:
    """The repositories that a project names, of artifacts and of plugins."""
    for above in ("", "profiles/profile/"):
        for kind in ("repositories/repository", "pluginRepositories/pluginRepository"):
            for node in pom.at(f"{above}{kind}"):
                yield Repository(node.value("id"), node.value("url"))


def dependencies(pom: Node) -> Iterator[str]:
    """What a project itself depends on, "group:artifact version" with the words of its file."""
    for above in ("", "profiles/profile/"):
        for node in pom.at(f"{above}dependencies/dependency"):
            words = f"{node.value('groupId')}:{node.value('artifactId')} {node.value('version')}"
            yield words.strip()[:200]


def core_extensions(content: bytes) -> list[str]:
    """The coordinates in `.mvn/extensions.xml`.

    Raises:
        NotXml: it is none.
    """
    found = []
    for node in read_xml(content).all("extension"):
        words = [node.value(name) for name in ("groupId", "artifactId", "version")]
        if all(map(_COORDINATE.fullmatch, words)):
            found.append(":".join(words))
    return found


def safe_options(content: bytes) -> list[str]:
    """Those options of `.mvn/maven.config` that name versions or profiles; no others are taken."""
    text = content.decode(errors="replace")
    return [
        *_VERSION_OPTION.findall(text),
        *(f"-P{names}" for names in _PROFILES_OPTION.findall(text)),
    ]


def own_coordinates(poms: Iterable[Node]) -> set[str]:
    """ "group:artifact" of the projects themselves."""
    return {
        f"{pom.value('groupId') or pom.value('parent/groupId')}:{pom.value('artifactId')}"
        for pom in poms
    }


def is_module(path: str, files: Mapping[str, bytes]) -> bool:
    """Whether a build has this file besides its own first one."""
    return path in files and path != next(iter(files))
