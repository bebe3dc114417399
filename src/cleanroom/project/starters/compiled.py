"""Rust with Cargo, Go, and Java with Maven and Gradle."""

from __future__ import annotations

import re
from pathlib import Path

from cleanroom.core.files import is_file
from cleanroom.project import manifests
from cleanroom.project.manifests import read_text, table
from cleanroom.project.starters.base import Starter, phases

RUST_SIGNS = ("Cargo.toml",)
GO_SIGNS = ("go.mod", "go.work")
MAVEN_SIGNS = ("pom.xml",)
GRADLE_SIGNS = manifests.GRADLE_FILES

_GO_VERSION = (1, 24)
_JAVA_VERSION = 21
_COMPILED = "2m"  # a first run compiles all packages too


def rust(root: Path) -> Starter:
    """The phases of a Cargo package or workspace."""
    cargo = manifests.read_toml(root / "Cargo.toml")
    locked = " --locked" if is_file(root / "Cargo.lock") else ""
    whole = " --workspace" if "workspace" in cargo else ""
    name = table(cargo, "package").get("name")
    commands = {
        "init": [f"cargo fetch{locked}"],
        "build": [f"cargo build{whole}{locked} --all-targets"],
        "test": [f"cargo test{whole}{locked}"],
        # `cargo check` would compile everything once more, in another way than the build did.
        # The tree has a line for each crate; what is wrong comes on the other stream.
        "validate": [f"cargo tree{whole}{locked} >/dev/null"],
    }
    return Starter(
        language="Rust, cargo",
        name=name if isinstance(name, str) else "",
        image="rust:1-slim",
        slo=_COMPILED,
        phases=phases(commands),
    )


def go(root: Path) -> Starter:
    """The phases of a Go module, or of the modules of a workspace."""
    module = read_text(root / "go.mod")
    work = read_text(root / "go.work")
    packages = " ".join(_go_packages(work, is_file(root / "go.mod")))
    # In a workspace `go mod download` wants modules that no sum names.
    download = f"go list -deps -test {packages} >/dev/null" if work else "go mod download"
    commands = {
        "init": [download],
        "build": [f"go build {packages}"],
        "test": [f"go test {packages}"],
        "validate": [f"go vet {packages}"],
    }
    path = re.search(r"^module\s+\"?([^\s\"]+)", module, re.MULTILINE)
    name = re.sub(r"/v\d+$", "", path[1]).rpartition("/")[2] if path else ""
    version = re.search(r"^go\s+(\d+)\.(\d+)", module or work, re.MULTILINE)
    asked = (int(version[1]), int(version[2])) if version else _GO_VERSION
    return Starter(
        language="Go",
        name=name,
        slo=_COMPILED,
        image="golang:{}.{}".format(*max(_GO_VERSION, asked)),
        phases=phases(commands),
    )


def _go_packages(work: str, has_module: bool) -> list[str]:
    """The patterns of all packages: of a workspace one for each of its modules."""
    block = re.search(r"^use\s*\(([^)]*)\)", work, re.MULTILINE)
    used = block[1].split("\n") if block else re.findall(r"^use\s+([^\s(]+)", work, re.MULTILINE)
    folders = [line.partition("//")[0].strip().strip('"') for line in used]
    plain = [folder.rstrip("/") for folder in folders if re.fullmatch(r"\.[\w./-]*", folder)]
    if has_module and "." not in plain:
        plain.insert(0, ".")
    return [f"{folder}/..." for folder in plain] or ["./..."]


def maven(root: Path) -> Starter:
    """The phases of a Maven project.

    The wrapper `./mvnw` would download a Maven in each phase, and phases have no network.
    """
    mvn = "mvn -B"
    # Before they are compiled Maven looks for modules that others need in a repository.
    has_modules = "<module>" in _pom(root)
    commands = {
        "init": [f"{mvn} test-compile" if has_modules else f"{mvn} dependency:resolve"],
        "build": [f"{mvn} package -DskipTests"],
        "test": [f"{mvn} test"],
        "validate": [f"{mvn} verify -DskipTests"],
    }
    own = re.sub(r"<(parent|dependencies|build|profiles)>.*?</\1>", "", _pom(root), flags=re.DOTALL)
    name = re.search(r"<artifactId>\s*([^<\s]+)\s*</artifactId>", own)
    return Starter(
        language="Java, Maven",
        name=name[1] if name else "",
        slo=_COMPILED,
        image=f"maven:3-eclipse-temurin-{_java_version(_pom(root))}",
        phases=phases(commands),
    )


def _pom(root: Path) -> str:
    return re.sub(r"<!--.*?-->", "", read_text(root / "pom.xml"), flags=re.DOTALL)


def gradle(root: Path) -> Starter:
    """The phases of a Gradle build."""
    program = ("./gradlew" if is_file(root / "gradlew") else "gradle") + " --no-daemon"
    commands = {
        "init": [f"{program} dependencies"],
        "build": [f"{program} assemble"],
        "test": [f"{program} test"],
        "validate": [f"{program} check"],
    }
    settings = "\n".join(read_text(root / name) for name in manifests.GRADLE_FILES)
    name = re.search(r"rootProject\.name\s*=\s*[\"']([^\"']+)", settings)
    return Starter(
        language="Java, Gradle",
        name=name[1] if name else "",
        slo=_COMPILED,
        image=f"gradle:8-jdk{_JAVA_VERSION}",
        phases=phases(commands),
    )


def _java_version(pom: str) -> int:
    named = re.search(
        r"<(?:maven\.compiler\.(?:release|target|source)|java\.version)>\s*(\d+)", pom
    )
    return max(_JAVA_VERSION, int(named[1])) if named else _JAVA_VERSION
