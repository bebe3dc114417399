"""Python projects: pip, uv and poetry; pytest, unittest, Django, tox and nox."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from cleanroom.core.files import is_file, is_folder
from cleanroom.project import manifests
from cleanroom.project.manifests import read_text, requirement_name, table, texts
from cleanroom.project.starters.base import Starter, StarterService, no_tests, phases
from cleanroom.project.starters.files import files_below
from cleanroom.project.tools import virtual_environments

SIGNS = (
    "pyproject.toml",
    "setup.py",
    "setup.cfg",
    "requirements.txt",
    "manage.py",
    "tox.ini",
    "noxfile.py",
    "Pipfile",
)

_FOREIGN = {"Pipfile": "pipenv", "pdm.lock": "pdm", "environment.yml": "conda"}
_DEFAULT_VERSION = (3, 12)
_TEST_FILES = re.compile(r"(?:.*/)?(?:test_[^/]*|[^/]*_test|tests)\.py|tests?/.*(?<!__)\.py")
_TESTING = ("test", "tests", "testing", "dev", "develop", "development")
_POSTGRES_DRIVERS = frozenset(
    ("psycopg", "psycopg-binary", "psycopg2", "psycopg2-binary", "asyncpg", "pg8000")
)
_SETTINGS_FILES = re.compile(
    r"(?:.*/)?(?:(?:settings|config|conf|database|db)\.py"
    r"|settings/(?!prod|live|staging|deploy)[^/]*\.py)"
)
_POSTGRES = re.compile(
    r"postgres(?:ql)?(?:\+\w+)?://|django\.db\.backends\.postgresql|[\"']postgresql\+\w+[\"']"
)
_KEYVALUE_CLIENTS = frozenset(
    ("redis", "valkey", "aioredis", "arq", "celery", "django-redis", "dramatiq", "huey", "rq")
)
_SOURCES_MOST = 200
_SKIPPED = r"'(^|/)(\.venv|venv|env|\.tox|\.nox|node_modules)/'"


class _Project(NamedTuple):
    """What the files of a Python project say."""

    root: Path
    pyproject: dict[str, Any]
    manager: manifests.PythonManager
    declared: frozenset[str]  # normalised names of all packages
    environment: str  # folder of its virtual environment
    tests: tuple[str, ...]  # files

    @property
    def is_package(self) -> bool:
        """Whether it can be built and installed."""
        return "build-system" in self.pyproject or is_file(self.root / "setup.py")

    @property
    def has_pytest_tests(self) -> bool:
        """Whether pytest runs its tests, by a setting or by the tests' style."""
        settings = ("pytest.ini", "conftest.py", "tests/conftest.py", "test/conftest.py")
        if any(is_file(self.root / name) for name in settings):
            return True
        if "pytest" in table(self.pyproject, "tool"):
            return True
        found = [read_text(self.root / name) for name in self.tests[:50]]
        return bool(found) and not any(
            ("unittest" in text or "TestCase" in text) and "import pytest" not in text
            for text in found
        )


def starter(root: Path) -> Starter:
    """The phases of a Python project."""
    project = _read(root)
    install = _install(project)
    python = f"{project.environment}/bin/python" if install else "python3"
    test, prepare = _tests(project, python)
    if " -m " in test and _has_scripts(project):
        # Its tests may call them by name, as from an activated environment.
        test = f'PATH="$PWD/{project.environment}/bin:$PATH" {test}'
    compiled = f"{python} -m compileall -q -x {_SKIPPED} ."
    wheel = _wheel(project) if install else ""
    commands = {
        "init": [*(install or ["python3 --version"]), *prepare],
        "build": [wheel or compiled],
        "test": [test],
        "validate": [compiled if wheel else "", *_checks(project, python, bool(install))],
    }
    variables = {}
    if _installer(project) == "poetry":
        variables["POETRY_VIRTUALENVS_IN_PROJECT"] = "true"
    if _uses_django(project) and " -m pytest" in test and not _names_settings(project):
        variables.update(_settings_of(project))
    if not install and is_folder(root / "src"):
        variables["PYTHONPATH"] = "src"
    described = {"init": "Show the interpreter: no packages are needed"} if not install else {}
    return Starter(
        language=f"Python, {project.manager}",
        name=_name(project),
        image=f"python:{'.'.join(map(str, _version(project)))}-slim",
        phases=phases(commands, **described),
        variables=variables,
        comments=(*no_tests(commands), *_foreign(root)),
        services=_services(project) if test else (),
    )


def _foreign(root: Path) -> tuple[str, ...]:
    """Comments on lock files of managers that are not known here."""
    return tuple(
        f"{name}: its packages are not installed, add {manager}'s command to [lifecycle.init]."
        for name, manager in _FOREIGN.items()
        if is_file(root / name)
    )


def _read(root: Path) -> _Project:
    environments = virtual_environments(root)
    declared = manifests.declared_python_packages(root)
    return _Project(
        root=root,
        pyproject=manifests.read_toml(root / "pyproject.toml"),
        manager=manifests.python_manager(root),
        declared=frozenset(requirement_name(requirement) for requirement in declared),
        environment=environments[0].name if environments else ".venv",
        tests=tuple(name for name in files_below(root) if _TEST_FILES.fullmatch(name)),
    )


def _installer(project: _Project) -> str:
    """The program that installs the packages.

    pip takes the files of poetry's lock, and is there where poetry is not.
    """
    locked = project.manager == "poetry" and is_file(project.root / "poetry.lock")
    return "pip" if locked else project.manager


def _install(project: _Project) -> list[str]:
    """The commands that install the packages; none where it needs none."""
    if _installer(project) == "poetry":
        return [f"poetry install --no-interaction{_poetry_groups(project)}"]
    if project.manager == "uv":
        frozen = " --frozen" if is_file(project.root / "uv.lock") else ""
        return [f"uv sync{frozen}{_uv_groups(project)}"]
    folder = project.environment
    environment = f"[ -x {folder}/bin/python ] || python3 -m venv {folder}"
    if is_file(project.root / "pylock.toml") and not manifests.requirement_files(project.root):
        # The pip of most interpreters does not read it yet.
        return [environment, f"uv pip install -p {folder} -r pylock.toml"]
    if not project.declared and not is_file(project.root / "setup.py"):
        return []
    return [environment, *_pip_lines(project)]


def _pip_lines(project: _Project) -> Iterator[str]:
    pip = f"{project.environment}/bin/pip install"
    # Where one requirement has hashes pip takes none without, so that those are apart.
    hashed: list[str] = []
    others: list[str] = []
    for file in manifests.requirement_files(project.root):
        has_hashes = "--hash" in read_text(project.root / file)
        (hashed if has_hashes else others).append(f"-r {file}")
    if others and is_file(project.root / "constraints.txt"):
        others.append("-c constraints.txt")
    others += [*_own_package(project), *(shlex.quote(name) for name in _undeclared(project))]
    for group in (hashed, others):
        if group:
            yield f"{pip} {' '.join(group)}"


def _own_package(project: _Project) -> list[str]:
    """What pip is to install beside requirement files: the project, or what it depends on."""
    extras = table(project.pyproject, "project", "optional-dependencies")
    groups = table(project.pyproject, "dependency-groups")
    named = [
        shlex.quote(requirement)
        for group in _TESTING
        for requirement in _group(groups, group, depth=8)
    ]
    named += [shlex.quote(name) for name in _poetry_packages(project)]
    if project.is_package and _is_built(project):
        chosen = ",".join(extra for extra in extras if extra in _TESTING)
        return [f"-e '.[{chosen}]'" if chosen else "-e .", *named]
    if manifests.requirement_files(project.root):
        return named
    wanted = [
        *texts(table(project.pyproject, "project").get("dependencies")),
        *(each for extra in extras if extra in _TESTING for each in texts(extras[extra])),
    ]
    return [*(shlex.quote(each) for each in wanted), *named]


def _is_built(project: _Project) -> bool:
    """Whether the project itself is a package, and not only a list of them."""
    return table(project.pyproject, "tool", "poetry").get("package-mode") is not False


def _poetry_packages(project: _Project) -> Iterator[str]:
    """Packages that only poetry's own tables name; which version of each the lock says."""
    poetry = table(project.pyproject, "tool", "poetry")
    groups = table(poetry, "group")
    tables = [table(poetry, "dev-dependencies")]
    for name in groups:
        if name in _TESTING or not table(groups, name).get("optional"):
            tables.append(table(groups, name, "dependencies"))
    if not (project.is_package and _is_built(project)):
        tables.append(table(poetry, "dependencies"))
    for found in tables:
        for name, wanted in found.items():
            extras = texts(wanted.get("extras")) if isinstance(wanted, dict) else ()
            if name != "python":
                yield f"{name}[{','.join(extras)}]" if extras else name


def _group(groups: Mapping[str, Any], name: str, *, depth: int) -> Iterator[str]:
    """The requirements of a dependency group, and of those that it includes."""
    found = groups.get(name)
    for item in found if isinstance(found, list) else ():
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict) and depth:
            yield from _group(groups, str(item.get("include-group")), depth=depth - 1)


def _undeclared(project: _Project) -> list[str]:
    """The runner of the tests, where no file names it."""
    other = _other_runner(project) or is_file(project.root / "manage.py")
    needed = project.has_pytest_tests and not other
    return ["pytest"] if needed and "pytest" not in project.declared else []


def _uv_groups(project: _Project) -> str:
    groups = table(project.pyproject, "dependency-groups")
    extras = table(project.pyproject, "project", "optional-dependencies")
    # The packages of members are not those of the root, but their tests run with it.
    members = " --all-packages" if table(project.pyproject, "tool", "uv", "workspace") else ""
    # uv installs the group `dev` by itself.
    options = [f" --group {name}" for name in groups if name in _TESTING and name != "dev"]
    options += [f" --extra {name}" for name in extras if name in _TESTING]
    return "".join((members, *options))


def _poetry_groups(project: _Project) -> str:
    groups = table(project.pyproject, "tool", "poetry", "group")
    extras = table(project.pyproject, "project", "optional-dependencies")
    optional = [name for name in groups if table(groups, name).get("optional")]
    options = [f" --with {name}" for name in optional if name in _TESTING]
    options += [f" --extras {name}" for name in extras if name in _TESTING]
    return "".join(options)


def _tests(project: _Project, python: str) -> tuple[str, list[str]]:
    """The command that runs the tests, and those that prepare it."""
    django = _uses_django(project)
    # Without settings pytest imports no model; tests that need pytest keep it.
    unset = django and not _names_settings(project) and not _imports_pytest(project)
    if _uses_pytest(project) and project.tests and not unset:
        return f"{python} -m pytest -q", []
    if django:
        return f"{python} manage.py test", []
    runner = _other_runner(project)
    program = f"{project.environment}/bin/{runner}" if runner in project.declared else runner
    if runner == "tox":
        return f"{program} -e py", [f"{program} -e py --notest"]
    if runner == "nox":
        session = _nox_session(project)
        return f"{program} -R -s {session}", [f"{program} --install-only -s {session}"]
    if not project.tests:
        return "", []
    if project.has_pytest_tests:
        return f"{python} -m pytest -q", []
    return f"{python} -m unittest discover{_discovery(project)}", []


def _uses_pytest(project: _Project) -> bool:
    return any(name == "pytest" or name.startswith("pytest-") for name in project.declared)


def _services(project: _Project) -> tuple[StarterService, ...]:
    """The services that tests evidently need, or ask for by our own fixtures."""
    names = (name for name in files_below(project.root) if name.endswith(".py"))
    sources = [read_text(project.root / name) for name in islice(names, _SOURCES_MOST)]
    needed = {
        "postgres": _needs_postgres(project) or _occurs("cleanroom_postgres", sources),
        "redis": _needs_redis(project, sources) or _occurs("cleanroom_redis", sources),
    }
    return tuple(StarterService(name=name, keys={}) for name, there in needed.items() if there)


def _occurs(word: str, sources: Sequence[str]) -> bool:
    return any(word in source for source in sources)


def _needs_postgres(project: _Project) -> bool:
    """A driver is declared, and the settings name PostgreSQL and no other."""
    if not _POSTGRES_DRIVERS & project.declared:
        return False
    names = [name for name in files_below(project.root) if _SETTINGS_FILES.fullmatch(name)]
    texts = [read_text(project.root / name) for name in names[:50]]
    return not any("sqlite" in text for text in texts) and any(map(_POSTGRES.search, texts))


def _needs_redis(project: _Project, sources: Sequence[str]) -> bool:
    """A client is declared, no imitation is, and the variable is read by which it is found."""
    if not _KEYVALUE_CLIENTS & project.declared or "fakeredis" in project.declared:
        return False
    return _occurs("REDIS_URL", sources)


def _has_scripts(project: _Project) -> bool:
    """Whether installing it makes programs of its own."""
    own = table(project.pyproject, "project")
    poetry = table(project.pyproject, "tool", "poetry")
    setup = read_text(project.root / "setup.cfg") + read_text(project.root / "setup.py")
    named = own.get("scripts") or own.get("gui-scripts") or poetry.get("scripts")
    return project.is_package and (bool(named) or "console_scripts" in setup)


def _uses_django(project: _Project) -> bool:
    return is_file(project.root / "manage.py")


def _names_settings(project: _Project) -> bool:
    """Whether pytest is told which settings Django has."""
    files = ("pytest.ini", "tox.ini", "setup.cfg", "pyproject.toml", "conftest.py")
    places = (*files, "tests/conftest.py", "test/conftest.py")
    named = ("DJANGO_SETTINGS_MODULE", "--ds", "settings.configure")
    texts = [read_text(project.root / name) for name in places]
    return any(word in text for text in texts for word in named)


def _imports_pytest(project: _Project) -> bool:
    found = (read_text(project.root / name) for name in project.tests[:50])
    return any(re.search(r"^\s*(import|from) pytest\b", text, re.M) for text in found)


def _settings_of(project: _Project) -> dict[str, str]:
    """The settings that manage.py names."""
    found = re.search(
        r"DJANGO_SETTINGS_MODULE[\"']\s*,\s*[\"']([\w.]+)[\"']",
        read_text(project.root / "manage.py"),
    )
    return {"DJANGO_SETTINGS_MODULE": found[1]} if found else {}


def _other_runner(project: _Project) -> str:
    tool = table(project.pyproject, "tool")
    if is_file(project.root / "tox.ini") or is_file(project.root / "tox.toml") or "tox" in tool:
        return "tox"
    return "nox" if is_file(project.root / "noxfile.py") else ""


def _nox_session(project: _Project) -> str:
    found = re.findall(r"^def (\w+)\(session", read_text(project.root / "noxfile.py"), re.M)
    testing = [name for name in found if "test" in name]
    return next(iter([*testing, *found]), "tests")


def _discovery(project: _Project) -> str:
    """Where unittest is to look: in the folder that all tests are in, where it is one."""
    folders = {name.rpartition("/")[0].partition("/")[0] for name in project.tests}
    if len(folders) > 1 or folders == {""}:
        return ""
    (folder,) = folders
    top = " -t ." if is_file(project.root / folder / "__init__.py") else ""
    return f" -s {folder}{top}"


def _wheel(project: _Project) -> str:
    """The command that builds the package; empty for a project that is none."""
    if not (project.is_package and _is_built(project)):
        return ""
    # Without a build system older ones of pip call setup.py, which may lack bdist_wheel.
    isolated = "" if "build-system" in project.pyproject else " --use-pep517"
    by_manager = {
        "pip": f"{project.environment}/bin/pip wheel -q --no-deps{isolated} -w dist .",
        "uv": "uv build --wheel",
        "poetry": "poetry build --format wheel",
    }
    return by_manager[_installer(project)]


def _checks(project: _Project, python: str, installed: bool) -> Iterable[str]:
    if is_file(project.root / "manage.py"):
        return [f"{python} manage.py check"]
    if not installed:
        return [f"{python} -W always -m compileall -q -f -x {_SKIPPED} ."]
    by_manager = {"pip": f"{python} -m pip check", "uv": "uv pip check", "poetry": "poetry check"}
    return [by_manager[_installer(project)]]


def _name(project: _Project) -> str:
    own = table(project.pyproject, "project").get("name")
    poetry = table(project.pyproject, "tool", "poetry").get("name")
    found = next((name for name in (own, poetry) if isinstance(name, str)), "")
    if found:
        return found
    setup = read_text(project.root / "setup.cfg") + read_text(project.root / "setup.py")
    named = re.search(r"\bname\s*=\s*[\"']?([A-Za-z0-9._-]+)", setup)
    return named[1] if named else ""


def _version(project: _Project) -> tuple[int, int]:
    """The version that the project pins, else the newest of the default and its lowest."""
    pinned = re.match(r"3\.(\d+)", read_text(project.root / ".python-version").strip())
    if pinned:
        return 3, int(pinned[1])
    required = str(table(project.pyproject, "project").get("requires-python", ""))
    lowest = re.search(r">=\s*3\.(\d+)", required)
    return max(_DEFAULT_VERSION, (3, int(lowest[1]))) if lowest else _DEFAULT_VERSION
