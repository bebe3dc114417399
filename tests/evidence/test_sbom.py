"""The bill of materials: valid CycloneDX, complete, and a function of the run's records."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given, settings
from hypothesis import strategies as st
from packageurl import PackageURL

from cleanroom.dependencies.discovery import folders, opened
from cleanroom.dependencies.managers import Managers
from cleanroom.dependencies.model import Artifact, Fetched, Problem, Stored
from cleanroom.dependencies.settings import Settings
from cleanroom.evidence.reports.render import render
from cleanroom.evidence.reports.result import PhaseResult, RunResult
from cleanroom.evidence.reports.sbom import read_record, sbom
from support.paths import ROOT

VALIDATOR = JsonStrictValidator(SchemaVersion.V1_6)
SHA256, SHA512 = "a" * 64, "b" * 128


def phase(name: str, result: str = "passed", hermetic: bool = True) -> PhaseResult:
    return PhaseResult(
        name=name, result=result, hermetic=hermetic, exit_code=0, duration_seconds=1.0
    )


RUN = RunResult(
    run_id="20261129-053000-abcde",
    project="shop",
    version="0.1.0",
    backend="embedded",
    started_unix_ns=1_795_930_200 * 10**9,
    phases=(phase("init", hermetic=False), phase("build"), phase("test", "skipped")),
)


def stored(name: str = "left-pad", *, sha256: str = SHA256, **more: Any) -> Stored:
    fields: dict[str, Any] = {
        "name": name,
        "version": "1.0.0",
        "file": f"{name}-1.0.0.tgz",
        "url": f"https://registry.example/{name}-1.0.0.tgz",
        "digest": f"sha512:{SHA512}",
        "purl": f"pkg:npm/{name}@1.0.0",
        **more,
    }
    artifact = Artifact(**fields)
    return Stored(artifact=artifact, sha256=sha256, size=1, host="registry.example:443")


def fetched(*files: Stored, manager: str = "npm", **more: Any) -> Fetched:
    return Fetched(manager=manager, folder="", name="package-lock.json", files=files, **more)


def made(*sets: Fetched, run: RunResult = RUN) -> dict[str, Any]:
    """The bill of materials of these sets, which is a valid one."""
    text = sbom(run, sets).decode()
    assert VALIDATOR.validate_str(text) is None, text
    found: dict[str, Any] = json.loads(text)
    return found


def properties(component: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in component.get("properties", [])}


def test_a_package_has_its_names_digests_address_and_phases():
    """Both digests: the lock's own and SHA-256; phases are those that ran without a network."""
    (component,) = made(fetched(stored()))["components"]
    assert (component["type"], component["name"], component["version"]) == (
        "library",
        "left-pad",
        "1.0.0",
    )
    assert component["purl"] == component["bom-ref"] == "pkg:npm/left-pad@1.0.0"
    assert component["hashes"] == [
        {"alg": "SHA-256", "content": SHA256},
        {"alg": "SHA-512", "content": SHA512},
    ]
    (reference,) = component["externalReferences"]
    assert reference["url"] == "https://registry.example/left-pad-1.0.0.tgz"
    assert properties(component) == {
        "cleanroom:manager": "npm",
        "cleanroom:lock-file": "package-lock.json",
        "cleanroom:host": "registry.example:443",
        "cleanroom:phases": "build",
    }


def test_the_run_and_the_tool_are_named():
    """By the run's own clock: the same records give the same bytes."""
    found = made(fetched(stored()))
    metadata = found["metadata"]
    assert metadata["component"]["name"] == "shop"
    assert metadata["tools"]["components"][0]["version"] == "0.1.0"
    assert metadata["timestamp"] == "2026-11-29T05:30:00Z"
    assert properties(metadata)["cleanroom:run-id"] == RUN.run_id
    assert found == made(fetched(stored()))
    other = made(fetched(stored()), run=msgspec.structs.replace(RUN, run_id="another"))
    assert other["serialNumber"] != found["serialNumber"]


@pytest.mark.parametrize("of", [{"digest": ""}, {"digest": f"sha256:{SHA256}", "pinned": False}])
def test_a_file_that_no_lock_pins_is_marked(of: dict[str, Any]):
    """Also where an index gave a digest: the lock has none."""
    (component,) = made(fetched(stored(**of)))["components"]
    assert properties(component)["cleanroom:unpinned"] == "true"


def test_an_entry_that_was_not_fetched_is_marked():
    """It is named, with the reason, and has no digest."""
    problem = Problem(entry="git-thing", why="git dependencies are not fetched yet")
    (component,) = made(fetched(problems=(problem,)))["components"]
    assert (component["name"], "hashes" in component) == ("git-thing", False)
    assert properties(component)["cleanroom:not-fetched"] == problem.why


def test_a_digest_that_cyclonedx_does_not_have_is_kept_as_a_property():
    """Go's h1."""
    own = stored("a", digest="h1:abc=", purl="pkg:golang/a@v1")
    (component,) = made(fetched(own, manager="go"))["components"]
    assert [one["alg"] for one in component["hashes"]] == ["SHA-256"]
    assert properties(component)["cleanroom:lock-digest"] == "h1:abc="


def test_a_package_of_two_sets_or_with_two_files_is_one_component():
    """Each file has its digests at its address."""
    same = fetched(stored()), msgspec.structs.replace(fetched(stored()), name="web/package.json")
    assert len(made(*same)["components"]) == 1
    mod = stored("a", purl="", sha256="c" * 64, url="https://proxy.example/a.mod")
    zip_file = stored("a", purl="pkg:golang/a@1.0.0", url="https://proxy.example/a.zip")
    (component,) = made(fetched(mod, zip_file, manager="go"))["components"]
    assert (component["purl"], "hashes" in component) == ("pkg:golang/a@1.0.0", False)
    assert len(component["externalReferences"]) == len(component["components"]) == 2
    (alone,) = made(fetched(mod, manager="go"))["components"]
    assert alone["type"] == "file"


def test_a_login_in_an_address_is_left_out():
    """Managers give none; a record may come from anywhere."""
    assert "hunter2" not in json.dumps(made(fetched(stored(url="https://me:hunter2@a.example/x"))))


def test_a_record_that_was_changed_is_none():
    """Its digest is in the run's events."""
    data = msgspec.json.encode([fetched(stored())])
    sha256 = hashlib.sha256(data).hexdigest()
    assert read_record(data, sha256) == (fetched(stored()),)
    assert read_record(data + b" ", sha256) is None
    assert read_record(b"{}", hashlib.sha256(b"{}").hexdigest()) is None


def test_runs_without_dependencies_have_none():
    """And those with an empty list have one without components."""
    assert "sbom.cdx.json" not in render(RUN)
    assert made()["components"] == []
    assert json.loads(render(RUN, ())["sbom.cdx.json"]) == made()


hostile = st.text(max_size=40)
artifacts = st.builds(
    Artifact,
    name=hostile,
    version=hostile,
    file=hostile,
    url=st.one_of(hostile, hostile.map("https://a.example/".__add__)),
    digest=st.sampled_from(
        ["", f"sha512:{SHA512}", f"sha256:{SHA256}", "h1:x=", "sha1:" + "c" * 40]
    ),
    pinned=st.booleans(),
    purl=st.sampled_from(["", "pkg:npm/a@1", "pkg:pypi/b@2"]),
)
files = st.builds(
    Stored,
    artifact=artifacts,
    sha256=st.sampled_from(["a" * 64, "b" * 64]),
    size=st.just(1),
    host=hostile,
)
sets = st.builds(
    Fetched,
    manager=st.sampled_from(["npm", "uv"]),
    folder=hostile,
    name=hostile,
    files=st.lists(files, max_size=6).map(tuple),
    problems=st.lists(st.builds(Problem, entry=hostile, why=hostile), max_size=3).map(tuple),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(sets, max_size=3), st.randoms())
def test_any_record_gives_a_valid_document_in_which_nothing_is_lost(
    given_sets: list[Fetched], random: Any
):
    """Whatever names and addresses say; and the order of files makes no difference."""
    found = made(*given_sets)
    components = found.get("components", [])
    assert len({one["bom-ref"] for one in components}) == len(components)
    names = {one["name"] for one in components}
    for one in given_sets:
        assert all(problem.entry in names or one.name in names for problem in one.problems)
    digests = set(re.findall(r'"content": ?"([ab]{64})"', json.dumps(components)))
    assert {one.sha256 for each in given_sets for one in each.files} <= digests
    again = [msgspec.structs.replace(one, files=one.files[::-1]) for one in given_sets]
    random.shuffle(again)
    shuffled = made(*again)
    refs = sorted(one["bom-ref"] for one in shuffled.get("components", []))
    assert refs == sorted(one["bom-ref"] for one in components)


LOCKS = {"Cargo.lock": "workspace.Cargo.lock", "go.sum": "command.go.sum"}


@pytest.mark.parametrize("name", LOCKS)
def test_package_urls_of_real_locks_are_canonical(tmp_path: Path, name: str):
    """As the library of purl-spec writes them."""
    text = (ROOT / "tests/fixtures/dependencies" / LOCKS[name]).read_bytes()
    (tmp_path / name).write_bytes(text)
    (tmp_path / "go.mod").write_text("module m\nrequire a v1\n")
    managers = Managers(Settings({}, tmp_path))
    with opened(tmp_path) as root:
        urls = [
            artifact.purl
            for folder in folders(root)
            for manager in managers.of(folder)
            if (found := manager.find(folder)) is not None
            for artifact in manager.read(found).artifacts
            if artifact.purl
        ]
    assert urls
    assert [PackageURL.from_string(url).to_string() for url in urls] == urls
