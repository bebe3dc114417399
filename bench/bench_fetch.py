"""What does the fetch step cost a run that has its dependencies, and one that has not?

Warm: a project whose lock names 500 files, all of them in the store (4 KiB each); finding the lock
and checking every file against the store, in this process: what each run pays before its phases.
The command's share: `pipeline test` with `true` in the same project with and without its lock.
Cold: the engine's `fetch` with an empty store, and the package manager itself with empty caches, in
turn, from the same registry; their ratio. Maven has no lock, and its goal that fetches is
dependency:go-offline.
A second project with the same lock, and an empty home: the files that are fetched for it.
What has no tool or no registry here is not measured.
Units: milliseconds, files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from bench.figures import BenchmarkFailed, Figure, compared
from cleanroom.dependencies.managers import Managers
from cleanroom.dependencies.model import Fetched
from cleanroom.dependencies.settings import Settings
from cleanroom.dependencies.store import Store
from cleanroom.engine.fetch.find import FoundSet, find
from cleanroom.project import load

ENTRIES = 500
MAKE = '[project]\nname = "p"\n[lifecycle.test]\ncommand = "true"\n'


def measure(small: bool) -> list[Figure]:
    """All figures; at the smallest size where `small`."""
    entries, rounds = (20, 1) if small else (ENTRIES, 15)
    found = [_warm(name, entries, rounds) for name in LOCKS]
    found += _share(entries, 1 if small else 10)
    for name in () if small else COLD:
        found += _cold(name, 5)
    return found


# --- warm


def _body(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest() * 128


def _npm(entries: int) -> dict[str, str]:
    packages: dict[str, object] = {"": {}}
    for number in range(entries):
        digest = b64encode(hashlib.sha512(_body(number)).digest()).decode()
        packages[f"node_modules/package-{number}"] = {
            "version": "1.0.0",
            "resolved": f"https://registry.example/package-{number}/-/package-{number}-1.0.0.tgz",
            "integrity": f"sha512-{digest}",
        }
    return {"package-lock.json": json.dumps({"lockfileVersion": 3, "packages": packages})}


def _cargo(entries: int) -> dict[str, str]:
    lines = ["version = 4"]
    for number in range(entries):
        lines += [
            "[[package]]",
            f'name = "package-{number}"\nversion = "1.0.0"',
            'source = "registry+https://github.com/rust-lang/crates.io-index"',
            f'checksum = "{hashlib.sha256(_body(number)).hexdigest()}"',
        ]
    return {"Cargo.lock": "\n".join(lines), "Cargo.toml": "[package]\nname = 'p'\n"}


def _uv(entries: int) -> dict[str, str]:
    lines = ["version = 1"]
    for number in range(entries):
        file = f"https://files.example/package_{number}-1.0-py3-none-any.whl"
        digest = hashlib.sha256(_body(number)).hexdigest()
        lines += [
            f'[[package]]\nname = "package-{number}"\nversion = "1.0"',
            'source = { registry = "https://pypi.example/simple" }',
            f'wheels = [{{ url = "{file}", hash = "sha256:{digest}" }}]',
        ]
    return {"uv.lock": "\n".join(lines), "pyproject.toml": "[project]\nname = 'p'\n"}


LOCKS: dict[str, Callable[[int], dict[str, str]]] = {"npm": _npm, "cargo": _cargo, "uv": _uv}


def _warm(name: str, entries: int, rounds: int) -> Figure:
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder, "project"), Path(folder, "cache")
        root.mkdir()
        _write(root, {"make.toml": MAKE, **LOCKS[name](entries)})
        settings = Settings(dict(os.environ), Path(folder))
        plan = load(root, ("test",), caller=settings.variables)
        files = _fill(Store(cache), find(plan, Managers(settings)), name, entries)

        def check() -> int:
            store = Store(cache)
            sets = find(plan, Managers(settings))
            return sum(
                len(fetched.files)
                for one in sets
                if one.manager.name == name and (fetched := store.load(one.key)) is not None
            )

        if check() != files:
            raise BenchmarkFailed(f"{name}: not all files are in the store")
        values = tuple(1000 * _seconds(check) for _ in range(rounds))
    return Figure(
        benchmark="fetch",
        name=f"warm: {name}, found and checked",
        unit="ms",
        values=values,
        at_most=50.0,
        note=f"{entries} files",
    )


def _fill(store: Store, sets: list[FoundSet], name: str, entries: int) -> int:
    """Put every file that the locks of this manager name into the store."""
    one = next(one for one in sets if one.manager.name == name)
    named = one.manager.read(one.found).artifacts
    with store.building() as folder:
        stored = []
        for number, artifact in enumerate(named or _wheels(one, entries)):
            (folder / "file").write_bytes(_body(number))
            stored.append(store.add(artifact, folder / "file"))
    store.save(one.key, Fetched(manager=name, folder="", name=one.found.name, files=tuple(stored)))
    return len(stored)


def _wheels(one: FoundSet, entries: int):  # type: ignore[no-untyped-def]
    """What uv's manager chooses once it knows the interpreter."""
    from cleanroom.dependencies.model import Artifact

    return [
        Artifact(
            name=f"package-{number}",
            version="1.0",
            file=f"package_{number}-1.0-py3-none-any.whl",
            url=f"https://files.example/package_{number}-1.0-py3-none-any.whl",
            digest=f"sha256:{hashlib.sha256(_body(number)).hexdigest()}",
        )
        for number in range(entries)
    ]


def _share(entries: int, rounds: int) -> list[Figure]:
    """The whole command, with a lock that is in the store and without one."""
    with tempfile.TemporaryDirectory() as folder:
        bare, locked = Path(folder, "bare"), Path(folder, "locked")
        for root in (bare, locked):
            root.mkdir()
            _write(root, {"make.toml": MAKE})
        _write(locked, _npm(entries))
        environment = _environment(Path(folder))
        plan = load(locked, ("test",), caller=environment)
        settings = Settings.of(environment)
        cache = Path(environment["CLEANROOM_CACHE"])
        _fill(Store(cache), find(plan, Managers(settings)), "npm", entries)
        for root in (bare, locked):
            _engine(root, environment, "pipeline", "test")
        pairs = [
            (
                _seconds(lambda: _engine(bare, environment, "pipeline", "test")),
                _seconds(lambda: _engine(locked, environment, "pipeline", "test")),
            )
            for _ in range(rounds)
        ]
    return compared("fetch", "a run with the lock", "a run without it", pairs, beside="without")


# --- cold


class _Project(NamedTuple):
    """A project of a package manager, and how that fetches itself."""

    files: Mapping[str, str]
    fetch: str  # as the package manager does it, into $EMPTY
    lock: str = ""  # writes the lock, where the manager has one


def _go(*modules: str) -> _Project:
    imports = "".join(f'\t_ "{one}"\n' for one in modules)
    return _Project(
        {
            "go.mod": "module example.org/p\n\ngo 1.21\n",
            "main.go": f"package main\n\nimport (\n{imports})\n\nfunc main() {{}}\n",
        },
        "GOMODCACHE=$EMPTY GOFLAGS=-modcacherw go mod download",
        "GOFLAGS=-modcacherw go mod tidy",
    )


def _uv_project(*packages: str) -> _Project:
    return _Project(
        {
            "pyproject.toml": '[project]\nname = "p"\nversion = "1"\nrequires-python = ">=3.11"\n'
            f"dependencies = {json.dumps(packages)}\n"
        },
        "UV_PROJECT_ENVIRONMENT=$EMPTY/venv uv sync --frozen --no-install-project "
        "--cache-dir $EMPTY/cache",
        "uv lock",
    )


def _maven(*dependencies: str, parent: str = "") -> _Project:
    """A project whose dependencies are GROUP:NAME:VERSION, without one where a parent has it."""
    return _Project(
        {
            "pom.xml": "<project><modelVersion>4.0.0</modelVersion>"
            f"{_coordinates('parent', parent) if parent else ''}"
            "<groupId>org.example</groupId><artifactId>p</artifactId><version>1</version>"
            f"<dependencies>{''.join(_coordinates('dependency', one) for one in dependencies)}"
            "</dependencies></project>\n"
        },
        "mvn -B -ntp -q -Dmaven.repo.local=$EMPTY dependency:go-offline",
    )


def _coordinates(element: str, text: str) -> str:
    names = ("groupId", "artifactId", "version")
    pairs = zip(names, text.split(":"), strict=False)
    words = "".join(f"<{name}>{word}</{name}>" for name, word in pairs)
    return f"<{element}>{words}</{element}>"


_SPRING = "org.springframework.boot:spring-boot-starter"

# As large as one dependency or four, and as large as a service has them.
COLD = {
    "npm": _Project(
        {"package.json": '{"name": "p", "dependencies": {"express": "4.21.2"}}'},
        "npm ci --ignore-scripts --no-audit --no-fund --cache $EMPTY",
        "npm install --package-lock-only --ignore-scripts",
    ),
    "cargo": _Project(
        {
            "Cargo.toml": '[package]\nname = "p"\nversion = "1.0.0"\nedition = "2021"\n'
            '[dependencies]\nserde = { version = "1", features = ["derive"] }\nregex = "1"\n'
            'tokio = { version = "1", features = ["full"] }\n',
            "src/main.rs": "fn main() {}\n",
        },
        "CARGO_HOME=$EMPTY cargo fetch --locked",
        "cargo generate-lockfile",
    ),
    "uv": _uv_project("flask", "httpx", "rich", "pydantic"),
    "uv, a service": _uv_project(
        *("fastapi[all]", "sqlalchemy[asyncio]", "alembic", "asyncpg", "redis", "celery"),
        *("numpy", "pandas", "boto3", "cryptography", "opentelemetry-sdk", "pytest", "mypy"),
    ),
    "go": _go("github.com/spf13/cobra", "github.com/google/uuid"),
    "go, a service": _go(
        *("github.com/gin-gonic/gin", "github.com/spf13/cobra", "github.com/spf13/viper"),
        *("go.uber.org/zap", "github.com/prometheus/client_golang/prometheus"),
        *("github.com/redis/go-redis/v9", "github.com/jackc/pgx/v5", "google.golang.org/grpc"),
    ),
    "pip": _Project(
        {"requirements.in": "flask\nhttpx\nrich\npydantic\n"},
        "python3 -m pip download -q --no-cache-dir --require-hashes --only-binary :all: "
        "-r requirements.txt -d $EMPTY",
        "uv pip compile requirements.in --generate-hashes --no-header -q -o requirements.txt",
    ),
    "maven": _maven("com.fasterxml.jackson.core:jackson-databind:2.17.1", "junit:junit:4.13.2"),
    "maven, a service": _maven(
        *(f"{_SPRING}-{one}" for one in ("web", "test", "actuator")),
        parent=f"{_SPRING}-parent:3.2.5",
    ),
}


def _cold(name: str, rounds: int) -> list[Figure]:
    project = COLD[name]
    label = f"cold: {name}, `cleanroom-engine fetch`"
    with tempfile.TemporaryDirectory() as folder:
        root, around = Path(folder, "project"), Path(folder)
        root.mkdir()
        environment = _environment(around)
        _write(root, {"make.toml": MAKE, **project.files})
        try:
            # Not with the home that the engine has: it would take files from the caches there.
            _shell(root, _environment(around / "locking"), project.lock)
        except (BenchmarkFailed, OSError) as error:
            return [_not_here(label, str(error))]
        (root / "requirements.in").unlink(missing_ok=True)

        def own() -> None:
            empty = Path(tempfile.mkdtemp(dir=around))
            _shell(root, {**environment, "EMPTY": str(empty)}, project.fetch)

        def ours() -> None:
            cache = tempfile.mkdtemp(dir=around)
            _engine(root, {**environment, "CLEANROOM_CACHE": cache}, "fetch")

        try:
            pairs = [(_seconds(own), _seconds(ours)) for _ in range(rounds)]
        except BenchmarkFailed as error:
            return [_not_here(label, str(error))]
        found = compared("fetch", label, f"cold: {name} itself", pairs, beside=name)
        return [*found, _second(name, root, around, environment)]


def _second(name: str, root: Path, around: Path, environment: Mapping[str, str]) -> Figure:
    """How many files are fetched for another project with the same lock."""
    shutil.copytree(root, around / "second", ignore=shutil.ignore_patterns(".ggen"))
    variables = {**environment, "CLEANROOM_CACHE": str(around / "shared")}
    _engine(root, variables, "fetch")
    _engine(around / "second", variables, "fetch", "--offline")
    fetched = 0
    for log in (around / "second/.ggen/cleanroom/runs").glob("*/events.jsonl"):
        for line in log.read_text().splitlines():
            event = json.loads(line)["event"]
            if event.get("subject", {}).get("kind") == "fetch" and event["kind"] == "finished":
                fetched += event.get("attributes", {}).get("fetched", 0)
    return Figure(
        benchmark="fetch",
        name=f"{name}: fetched for a second project with the same lock",
        unit="files",
        values=(float(fetched),),
        at_most=0.0,
    )


def _not_here(name: str, why: str) -> Figure:
    return Figure(benchmark="fetch", name=name, unit="ms", values=(), note=why)


# --- processes


CONFIGURATION = (".npmrc", ".config/go/env", ".config/uv/uv.toml", ".config/pip/pip.conf")


def _environment(home: Path) -> dict[str, str]:
    """The caller's variables, with a home that has their configuration and no caches."""
    home.mkdir(exist_ok=True)
    for name in CONFIGURATION:
        if (own := Path.home() / name).is_file():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(own, home / name)
    rustup = os.environ.get("RUSTUP_HOME") or str(Path.home() / ".rustup")
    bin_folder = str(Path(sys.executable).parent)
    kept = {key: text for key, text in os.environ.items() if not key.startswith("CLEANROOM")}
    return {
        **kept,
        "HOME": str(home),
        "RUSTUP_HOME": rustup,
        "PATH": f"{os.environ['PATH']}:{bin_folder}",
        "CLEANROOM_CACHE": str(home / "cleanroom"),
    }


def _write(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def _engine(root: Path, environment: Mapping[str, str], *words: str) -> None:
    _run([sys.executable, "-m", "cleanroom", *words], root, environment)


def _shell(root: Path, environment: Mapping[str, str], command: str) -> None:
    _run(["sh", "-ec", command], root, environment)


def _run(argv: list[str], root: Path, environment: Mapping[str, str]) -> None:
    done = subprocess.run(argv, cwd=root, env=dict(environment), capture_output=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        raise BenchmarkFailed(f"{' '.join(argv[-2:])[:60]}: {said[-1][:160] if said else ''}")


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
