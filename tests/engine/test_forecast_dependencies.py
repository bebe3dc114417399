"""What `plan` says of dependencies, of projects and caches that strangers made."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cleanroom.dependencies.managers import Managers
from cleanroom.dependencies.settings import Settings
from cleanroom.dependencies.store import Store
from cleanroom.engine.fetch.errors import no_address
from cleanroom.engine.fetch.find import find
from cleanroom.engine.fetch.forecast import SetForecast, forecast_dependencies
from cleanroom.model.errors import ArtifactError
from cleanroom.project import load

INTEGRITY = f"sha512-{'A' * 86}=="
MAKE = '[project]\nname = "p"\n[lifecycle.test]\ncommand = "true"\n'
PNPM = (
    f"lockfileVersion: '9.0'\npackages:\n  a@1.0.0:\n    resolution: {{integrity: {INTEGRITY}}}\n"
)
YARN_1 = (
    '# yarn lockfile v1\n\n\na@1.0.0:\n  version "1.0.0"\n'
    f'  resolved "https://registry.yarnpkg.com/a/-/a-1.0.0.tgz"\n  integrity {INTEGRITY}\n'
)
YARN = (
    '__metadata:\n  version: 8\n  cacheKey: 10\n\n"a@npm:1.0.0":\n  version: 1.0.0\n'
    '  resolution: "a@npm:1.0.0"\n  languageName: node\n  linkType: hard\n'
)
NPM = json.dumps(
    {
        "lockfileVersion": 3,
        "packages": {"node_modules/a": {"version": "1.0.0", "integrity": INTEGRITY}},
    }
)


def forecast(tmp_path: Path, files: dict[str, str]) -> list[SetForecast]:
    project = tmp_path / "project"
    project.mkdir(exist_ok=True)
    for name, text in {"make.toml": MAKE, **files}.items():
        (project / name).write_text(text)
    caller = {"HOME": str(tmp_path), "PATH": "", "CLEANROOM_CACHE": str(tmp_path / "cache")}
    return forecast_dependencies(load(project, ["test"], caller=caller), caller)


@pytest.mark.parametrize("registry", ["https://[", "https://a:99999", "https://a:b", "//x", "x:y"])
@pytest.mark.parametrize("manager", ["pnpm", "yarn", "yarn 1"])
def test_a_registry_that_is_no_address_is_named(tmp_path: Path, manager: str, registry: str):
    """A project's own settings say where its packages come from: the fetch refuses them."""
    npmrc, yarnrc = f"registry={registry}\n", f'npmRegistryServer: "{registry}"\n'
    files = {
        "pnpm": {"pnpm-lock.yaml": PNPM, ".npmrc": npmrc},
        "yarn": {"yarn.lock": YARN, ".yarnrc.yml": yarnrc},
        "yarn 1": {"yarn.lock": YARN_1, ".npmrc": npmrc},
    }
    (found,) = forecast(tmp_path, files[manager])

    assert not found.hosts
    assert [one.entry for one in found.problems] == ["a 1.0.0"]


def test_a_refused_address_is_shown_without_its_login():
    """It may have been made of the registry that the caller's own configuration names."""
    shown = str(no_address("https://me:secret@registry.example/npm/@scope/a"))

    assert "https://***@registry.example/npm/@scope/a" in shown
    assert "secret" not in shown


def hostile_record(tmp_path: Path) -> Path:
    """A set of the project in the cache that names a file elsewhere; returns that file."""
    forecast(tmp_path, {"package-lock.json": NPM})
    store = Store(tmp_path / "cache")
    caller = {"HOME": str(tmp_path), "PATH": ""}
    plan = load(tmp_path / "project", ["test"], caller=caller)
    (one,) = find(plan, Managers(Settings.of(caller)))
    precious = tmp_path / "precious"
    precious.write_text("mine\n")
    name = os.path.relpath(precious, store.file("ab").parent)
    file = {"artifact": {"name": "a", "version": "1", "file": "f", "url": ""}, "sha256": name}
    record = {"manager": "npm", "folder": "", "name": "", "files": [{**file, "size": 1}]}
    (store.path / "sets" / f"{one.key}.json").write_text(json.dumps(record))
    return precious


def test_a_record_names_no_file_outside_of_the_store(tmp_path: Path):
    """What differs from its record is removed: that must be the store's own."""
    precious = hostile_record(tmp_path)

    (found,) = forecast(tmp_path, {"package-lock.json": NPM})

    assert precious.exists()
    assert not found.stored


def test_a_cache_that_others_can_change_is_not_read(tmp_path: Path):
    """As a run refuses it."""
    hostile_record(tmp_path)
    (tmp_path / "cache" / "dependencies").chmod(0o777)

    with pytest.raises(ArtifactError, match="others can write to"):
        forecast(tmp_path, {"package-lock.json": NPM})


NAMES = (
    *("uv.lock", "requirements.txt", "pylock.toml", "poetry.lock", "pyproject.toml", "setup.py"),
    *("tox.ini", "noxfile.py", "package-lock.json", "npm-shrinkwrap.json", "pnpm-lock.yaml"),
    *("yarn.lock", "Cargo.lock", "go.mod", "go.sum", "go.work", "go.work.sum", "pom.xml", ".npmrc"),
)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "device"])
def test_what_stands_in_the_place_of_a_lock_file_is_not_read(tmp_path: Path, kind: str):
    """A link may lead to any file of the caller's, a pipe would hold plan up."""
    (tmp_path / "secret").write_text("machine a login b password c\n")
    project = tmp_path / "project"
    project.mkdir()
    for name in NAMES:
        if kind == "pipe":
            os.mkfifo(project / name)
        elif kind == "folder":
            (project / name).mkdir()
        else:
            (project / name).symlink_to("../secret" if kind == "link" else "/dev/zero")

    assert forecast(tmp_path, {}) == []
