"""Small projects as people write them, without a key of ours: name -> files."""

from __future__ import annotations

from pathlib import Path

_BUILD_SYSTEM = '[build-system]\nrequires = ["setuptools"]\n'
_UNITTEST = "import unittest\n\n\nclass T(unittest.TestCase):\n    def test(self):\n        pass\n"
_PYTEST = "def test_one():\n    assert True\n"
_LOCK = "# yarn lockfile v1\n"

STRANGERS: dict[str, dict[str, str]] = {
    "python-files": {"app.py": "x = 1\n", "tests/test_app.py": _UNITTEST},
    "python-requirements": {
        "requirements.txt": "flask==3.0 --hash=sha256:aa\n",
        "requirements-dev.txt": "pytest\n",
        "tests/test_app.py": _PYTEST,
    },
    "python-hashed-package": {
        "requirements.txt": "flask==3.0 --hash=sha256:aa\n",
        "pyproject.toml": f'{_BUILD_SYSTEM}[project]\nname = "shop"\n',
        "conftest.py": "",
        "tests/test_app.py": _PYTEST,
    },
    "python-pyproject": {
        "pyproject.toml": _BUILD_SYSTEM
        + '[project]\nname = "shop"\nrequires-python = ">=3.13"\ndependencies = ["flask"]\n'
        + '[project.optional-dependencies]\ntest = ["pytest"]\ndocs = ["mkdocs"]\n'
        + '[dependency-groups]\ndev = ["ruff>=1", { include-group = "more" }]\nmore = ["mypy"]\n',
        "src/shop/__init__.py": "",
        "tests/test_shop.py": _PYTEST,
    },
    "python-application": {
        "pyproject.toml": '[project]\nname = "job"\ndependencies = ["httpx>=0.27"]\n',
        "job.py": "",
    },
    "python-src-without-packages": {
        "pyproject.toml": f'{_BUILD_SYSTEM}[project]\nname = "plain"\n',
        "src/plain/__init__.py": "",
        "tests/__init__.py": "",
        "tests/test_plain.py": _UNITTEST,
    },
    "python-uv": {
        "pyproject.toml": _BUILD_SYSTEM
        + '[project]\nname = "quick"\ndependencies = ["flask"]\n'
        + '[dependency-groups]\ndev = ["pytest"]\ntest = ["pytest-cov"]\n',
        "uv.lock": "version = 1\n",
        ".python-version": "3.11.7\n",
    },
    "python-uv-workspace": {
        "pyproject.toml": '[project]\nname = "acme"\nversion = "1"\n'
        + '[tool.uv.workspace]\nmembers = ["packages/*"]\n'
        + '[dependency-groups]\ntest = ["pytest"]\n',
        "packages/core/pyproject.toml": _BUILD_SYSTEM
        + '[project]\nname = "core"\ndependencies = ["attrs"]\n',
        "packages/core/src/core/__init__.py": "",
        "packages/core/tests/test_core.py": _PYTEST,
        "uv.lock": "version = 1\n",
    },
    "python-poetry": {
        "pyproject.toml": '[tool.poetry]\nname = "verse"\n[tool.poetry.dependencies]\n'
        + 'python = "^3.11"\nflask = "^3"\n[tool.poetry.group.test]\noptional = true\n'
        + '[tool.poetry.group.test.dependencies]\npytest = "*"\n',
        "poetry.lock": "",
    },
    "python-pylock": {
        "pyproject.toml": '[project]\nname = "locked"\ndependencies = ["six", "pytest"]\n',
        "pylock.toml": 'lock-version = "1.0"\n',
        "test_locked.py": _PYTEST,
    },
    "python-pipenv": {"Pipfile": '[packages]\nflask = "*"\n', "app.py": ""},
    "python-django": {
        "manage.py": "",
        "requirements.txt": "django==5.2\npsycopg\n",
        "shop/tests.py": "from django.test import TestCase\n",
        ".venv/pyvenv.cfg": "",
    },
    "python-tox": {"setup.py": 'setup(name="old")\n', "tox.ini": "[testenv]\ndeps = pytest\n"},
    "python-nox": {
        "pyproject.toml": '[project]\nname = "noxed"\n',
        "noxfile.py": "def lint(session):\n    ...\n\n\ndef unit_tests(session):\n    ...\n",
    },
    "node-npm": {
        "package.json": '{"name": "@me/web", "engines": {"node": ">=24"}, "scripts": {"build": '
        '"tsc", "test": "vitest", "lint": "eslint ."}, "dependencies": {"left-pad": "1"}}',
        "package-lock.json": "{}",
        "tsconfig.json": "{}",
    },
    "node-npm-without-lock": {
        "package.json": '{"scripts": {"test": "echo \\"Error: no test specified\\" && exit 1"}, '
        '"devDependencies": {"left-pad": "1"}}',
        ".nvmrc": "v20.1.0\n",
    },
    "node-without-packages": {
        "package.json": '{"name": "tiny", "main": "index.js"}',
        "index.js": "",
        "test/index.test.js": "",
    },
    "node-vue": {
        "package.json": '{"name": "front", "scripts": {"build": "vite build", '
        '"test:unit": "vitest", "test:e2e": "playwright test"}, "devDependencies": {"vite": "6"}}',
        "package-lock.json": "{}",
        "src/Hi.spec.ts": "",
    },
    "node-node-tests-beside-jest": {
        "package.json": '{"name": "tool", "devDependencies": {"jest": "29"}}',
        "a.js": "",
        "test/a.js": "",
    },
    "node-vitest-without-script": {
        "package.json": '{"name": "front", "devDependencies": {"vitest": "3"}}',
        "package-lock.json": "{}",
        "src/__tests__/hi.tsx": "",
    },
    "node-react-scripts": {
        "package.json": '{"name": "front", "scripts": {"build": "react-scripts build", '
        '"test": "react-scripts test"}, "dependencies": {"react-scripts": "5"}}',
        "package-lock.json": "{}",
    },
    "node-pnpm": {
        "package.json": '{"name": "p", "scripts": {"test": "jest"}, "dependencies": {"a": "1"}}',
        "pnpm-lock.yaml": "",
    },
    "node-yarn-classic": {
        "package.json": '{"name": "y", "scripts": {"test": "jest"}, "dependencies": {"a": "1"}}',
        "yarn.lock": _LOCK,
    },
    "node-yarn-berry": {
        "package.json": '{"name": "y", "scripts": {"test": "jest"}, "dependencies": {"a": "1"}}',
        "yarn.lock": "__metadata:\n  version: 8\n",
    },
    "rust": {"Cargo.toml": '[package]\nname = "crab"\n', "Cargo.lock": "", "src/lib.rs": ""},
    "rust-workspace": {
        "Cargo.toml": '[workspace]\nmembers = ["a"]\n',
        "a/Cargo.toml": '[package]\nname = "a"\n',
    },
    "go": {"go.mod": "module example.com/me/gopher/v2\n\ngo 1.26.1\n", "main.go": ""},
    "go-workspace": {
        "go.work": "go 1.24\n\nuse (\n\t./api\n\t./lib // shared\n)\n",
        "api/go.mod": "module api\n",
        "lib/go.mod": "module lib\n",
    },
    "maven": {
        "pom.xml": "<project><parent><artifactId>parent</artifactId></parent>"
        "<!-- <artifactId>no</artifactId> --><artifactId>shop</artifactId>"
        "<properties><java.version>25</java.version></properties></project>",
    },
    "maven-modules": {
        "pom.xml": "<project><artifactId>shop</artifactId><packaging>pom</packaging>"
        "<modules><module>core</module><module>web</module></modules></project>",
        "core/pom.xml": "<project><artifactId>core</artifactId></project>",
        "web/pom.xml": "<project><artifactId>web</artifactId></project>",
        "mvnw": "#!/bin/sh\n",
    },
    "gradle": {
        "settings.gradle.kts": 'rootProject.name = "grad"\n',
        "build.gradle.kts": "plugins { java }\n",
        "gradlew": "",
    },
    "make": {
        "Makefile": "CC := cc\nall prog: prog.c\n\t$(CC) prog.c\ncheck:\n\t./prog\ninstall:\n\tcp\n"
    },
    "cmake": {
        "CMakeLists.txt": "cmake_minimum_required(VERSION 3.16)\n# project(no)\n"
        "project(ring C)\nadd_subdirectory(tests)\n",
        "tests/CMakeLists.txt": "add_test(NAME ring COMMAND ring_test)\n",
    },
    "just": {
        "justfile": 'x := "1"\nbuild target="all":\n  echo\ntest *args:\n  echo\n'
        + "lint path:\n  echo\n"
    },
    "monorepo": {
        "backend/pyproject.toml": '[project]\nname = "api"\ndependencies = ["pytest"]\n',
        "frontend/package.json": '{"name": "web", "scripts": {"build": "vite build"}}',
        "services/mail/go.mod": "module mail\n",
        "docs/package.json": "{}",
    },
    "django-with-frontend": {
        "manage.py": "",
        "requirements.txt": "django\n",
        "frontend/package.json": '{"name": "web", "scripts": {"test": "vitest"}}',
        "plugin/requirements.txt": "six\n",
    },
    "unknown": {"README": ""},
}


def lay_out(root: Path, files: dict[str, str]) -> Path:
    """Write these files below `root`."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root
