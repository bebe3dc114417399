"""The specification of a phase's environment, computed from values alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec

from cleanroom.backends.base import EgressRule, EnvironmentSpec, Mount
from cleanroom.backends.memory.backend import MemoryBackend
from cleanroom.backends.memory.script import Script
from cleanroom.core.bus import Bus
from cleanroom.core.clock import SystemClock
from cleanroom.engine.phases.current_phase import CurrentPhase
from cleanroom.engine.phases.environment_spec import environment_spec, inside_path
from cleanroom.engine.phases.package_caches import package_caches
from cleanroom.engine.supervision.context import RunContext
from cleanroom.engine.supervision.service import ServiceAccess
from cleanroom.model.events import Subject
from cleanroom.model.plan import PhaseRun, ToolFile
from cleanroom.model.policy import Level, default_policy
from cleanroom.testing import phase, plan

CALLER = {"PATH": "/opt/tool/bin:/home/me/bin:/usr/bin", "EDITOR": "vi", "API_TOKEN": "s3cret"}
SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def spec(
    declared: PhaseRun, home: str = "", variables: dict[str, str] | None = None, **fields: Any
) -> EnvironmentSpec:
    planned = plan(declared, root="/p", **fields)
    bus = Bus("run-1", SystemClock())
    context = RunContext(
        run_id="run-1",
        plan=planned,
        bus=bus,
        backend=MemoryBackend(Script()),
        logs=cast(Any, None),
        redactor=cast(Any, None),
        caller=CALLER,
        scratch=Path("/scratch"),
        folder=cast(Any, None),
        home=home,
    )
    with bus.span(Subject("phase", declared.name)) as span:
        current = CurrentPhase(declared, planned.workspaces[0], 3, span)
        return environment_spec(context, current, ServiceAccess((), (), variables or {}))


def at(level: Level, **fields: Any) -> PhaseRun:
    return phase("test it", "true", policy=default_policy(level), **fields)


def test_an_environment_is_named_after_its_phase():
    """The number keeps two of one name apart; the name is fit for a control group."""
    assert spec(at(Level.MEDIUM)).id == "phase-3-test-it"


def test_only_what_is_named_enters_from_the_callers_variables():
    """At Medium: a variable that `pass` names, and no other."""
    variables = spec(at(Level.MEDIUM, passed=("EDITOR",))).variables
    assert variables["EDITOR"] == "vi"
    assert "API_TOKEN" not in variables


def test_low_inherits_variables_but_no_secret():
    """A secret enters where it is named."""
    assert "API_TOKEN" not in spec(at(Level.LOW)).variables
    assert spec(at(Level.LOW)).variables["EDITOR"] == "vi"
    assert spec(at(Level.LOW, passed=("API_TOKEN",))).variables["API_TOKEN"] == "s3cret"


def test_the_projects_variables_win_over_services_and_nothing_wins_over_the_markers():
    """A phase cannot say that it is not in a run."""
    declared = at(Level.MEDIUM, variables={"DATABASE_URL": "mine", "CLEANROOM_RUN_ID": "another"})
    variables = spec(declared, variables={"DATABASE_URL": "theirs"}).variables
    assert (variables["DATABASE_URL"], variables["CLEANROOM_RUN_ID"]) == ("mine", "run-1")


def test_the_allowlist_shows_the_phases_own_tools_only():
    """At High the caller's tools are not mounted."""
    assert Mount(source="/a", target="/a") in spec(at(Level.MEDIUM), tools=("/a",)).mounts
    assert spec(at(Level.HIGH, tools=("/b",)), tools=("/a",)).mounts == (
        Mount(source="/b", target="/b"),
    )


def test_a_home_cache_belongs_to_one_level():
    """A level that keeps none has a fresh one."""
    assert spec(at(Level.MEDIUM), home="/homes/p").home == "/homes/p/Medium"
    assert spec(at(Level.MEDIUM)).home == ""


def test_what_a_phase_with_egress_fetches_lies_where_it_is_kept():
    """For that phase and the others of its project; what the project says goes before, and a
    project without egress is left alone.
    """
    policy = msgspec.structs.replace(default_policy(Level.MEDIUM), egress=("a.example:443",))
    fetching = phase("fetch", "true", policy=policy, variables={"MAVEN_OPTS": "-Xmx1g"})
    found = spec(fetching, fetching=True).variables
    kept = ("CARGO_HOME", "GOMODCACHE", "GRADLE_USER_HOME", "npm_config_cache")
    assert all(found[name].startswith("/home/cleanroom/.cache/") for name in kept)
    assert found["MAVEN_OPTS"] == "-Xmx1g"
    medium, high = default_policy(Level.MEDIUM), default_policy(Level.HIGH)
    for policy, held in ((medium, True), (high, False), (default_policy(Level.LOW), False)):
        caches = package_caches(policy, plan(fetching=True), "/home/cleanroom")
        assert bool(caches) is held
        assert package_caches(policy, plan(), "/home/cleanroom") == {}
    maven = package_caches(medium, plan(fetching=True), "/h")["MAVEN_OPTS"]
    assert maven == "-Dmaven.repo.local=/h/.cache/m2"


def test_a_declared_host_may_be_an_ipv6_address():
    """Its brackets are of the notation."""
    policy = msgspec.structs.replace(default_policy(Level.MEDIUM), egress=("[::1]:443",))
    declared = phase("test", "true", policy=policy)
    assert spec(declared).egress == (EgressRule(host="::1", port=443),)


def test_the_reach_of_a_host_is_the_policys():
    """Private addresses where the entry says so, and for no other."""
    policy = msgspec.structs.replace(
        default_policy(Level.MEDIUM),
        egress=("a.example:443", "b.corp:443"),
        private_egress=("b.corp:443",),
    )
    rules = spec(phase("test", "true", policy=policy)).egress
    assert [rule.reach for rule in rules] == ["public", "private"]


def test_the_path_inside_names_folders_that_exist_there():
    """In the caller's order, then the system's; /opt unless an allowlist says all that is shown."""
    asked = CALLER["PATH"]
    assert inside_path(asked, ()) == f"/opt/tool/bin:/usr/bin:{SYSTEM.replace('/usr/bin:', '')}"
    assert inside_path(asked, ("/home/me/",), listed=True).startswith("/home/me/bin:/usr/bin:")


def test_version_managers_find_their_files_in_the_home_where_it_is_another():
    """At Low the home is the caller's own; at High only a declared manager is shown."""
    fields: dict[str, Any] = {
        "tools": ("/m",),
        "tool_variables": {"MISE_DATA_DIR": "/m"},
        "tool_files": (ToolFile(name=".mise-global.toml", text="[tools]", of="/m"),),
    }

    def given(declared: PhaseRun) -> tuple[dict[str, str], str | None]:
        found = spec(declared, **fields)
        return found.home_files, found.variables.get("MISE_GLOBAL_CONFIG_FILE")

    shown = ({".mise-global.toml": "[tools]"}, "/home/cleanroom/.mise-global.toml")
    assert given(at(Level.MEDIUM)) == shown
    assert given(at(Level.HIGH)) == ({}, None)
    assert given(at(Level.HIGH, tools=("/m",))) == shown
    assert given(at(Level.LOW)) == ({}, None)


def test_mise_reads_the_projects_own_configuration():
    """It refuses files that nobody trusts, and who runs the project's commands does."""
    found = spec(at(Level.MEDIUM), tools=("/m",), tool_variables={"MISE_DATA_DIR": "/m"})
    assert found.variables["MISE_TRUSTED_CONFIG_PATHS"] == "/p"
