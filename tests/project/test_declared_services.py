"""Services that depend on others, come after a phase, or are there several times."""

from __future__ import annotations

from pathlib import Path

import pytest

from cleanroom.model.errors import ProjectError
from cleanroom.model.plan import Plan
from cleanroom.project.loader import load

PHASES = """
[lifecycle.build]
command = "make"
[lifecycle.test]
command = "make test"
cleanroom.containers = ["api"]
"""
API = '[cleanroom.services.api]\ncommand = ["./api"]\nready = { tcp = 80 }\n'


def plan(tmp_path: Path, text: str, *phases: str) -> Plan:
    (tmp_path / "make.toml").write_text('[project]\nname = "x"\n' + text + PHASES)
    return load(tmp_path, phases, caller={})


def test_a_phase_has_what_its_services_depend_on(tmp_path: Path):
    """Also over several steps, each once; what it names itself comes first."""
    text = (
        API
        + 'depends_on = ["web", "redis"]\n'
        + API.replace("api", "web").replace("80", "81")
        + 'depends_on = ["redis", "postgresql"]\n'
    )
    found = plan(tmp_path, text, "test")
    assert found.phases[0].services == ("api", "web", "redis", "postgres")
    assert {spec.name for spec in found.services} == {"api", "web", "redis", "postgres"}


def test_replicas_are_services_of_their_own(tmp_path: Path):
    """A phase that names the service has all; the project's names for it are those of the first."""
    found = plan(tmp_path, API + 'replicas = 3\nenv = { API = "{url}" }\n', "test")
    assert found.phases[0].services == ("api", "api-2", "api-3")
    assert [spec.env for spec in found.services] == [{"API": "{url}"}, {}, {}]
    assert [spec.replica_of for spec in found.services] == ["", "api", "api"]


def test_a_service_that_a_phase_builds_comes_after_it(tmp_path: Path):
    """Where the run has that phase it has to come first; another run takes what is there."""
    text = API + 'after = "build"\n'
    assert plan(tmp_path, text, "build", "test").services[0].after == "build"
    assert plan(tmp_path, text, "test").services[0].after == "build"
    with pytest.raises(ProjectError, match="phase 'test' needs it before"):
        plan(tmp_path, text, "test", "build")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (API + 'after = "biuld"\n', "expected a phase, found 'biuld'"),
        (API + 'depends_on = ["api"]\n', "api -> api"),
        (API + 'depends_on = ["posgres"]\n', "expected a service, found 'posgres'"),
    ],
)
def test_what_cannot_be_waited_for_is_refused(tmp_path: Path, text: str, said: str):
    """By the service's name, before anything runs."""
    with pytest.raises(ProjectError, match=said) as caught:
        plan(tmp_path, text, "test")
    assert "api" in str(caught.value)


def test_an_everyday_service_takes_single_keys(tmp_path: Path):
    """A table without a command completes the one that is there; with one it is the project's."""
    phases = PHASES.replace('"api"', '"mail"')
    head = '[project]\nname = "x"\n[cleanroom.services.mail]\n'
    (tmp_path / "make.toml").write_text(head + 'port = 2525\nenv = { MX = "{host}" }\n' + phases)
    (spec,) = load(tmp_path, ("test",), caller={}).services
    assert (spec.port, spec.env["MX"], spec.needs) == (2525, "{host}", "aiosmtpd")
    assert "MAILBOX_URL" in spec.env
    (tmp_path / "make.toml").write_text(head + 'command = "maild"\nready = { tcp = 1 }\n' + phases)
    (spec,) = load(tmp_path, ("test",), caller={}).services
    assert (spec.command, spec.env, spec.needs) == (("maild",), {}, "")
