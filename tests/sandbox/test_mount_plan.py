"""Claims about what an environment sees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cleanroom.sandbox.filesystem import etc_files, mount_plan
from cleanroom.sandbox.filesystem.constants import HOME, USER_ID
from cleanroom.sandbox.filesystem.mount_ops import HomeLayers
from cleanroom.sandbox.filesystem.mount_plan import HostMount, MountPlan, View, WorkspaceView

HOST = mount_plan.HostFacts(
    links={"bin": "usr/bin"},
    folders=frozenset({"usr", "opt"}),
    etc={"ssl/certs": "folder", "services": "file"},
    devices=frozenset({"null"}),
    processors=False,
)


def planned(root: str = "/home/me/shop", builds: Sequence[str] = (), **changes: Any) -> MountPlan:
    layers = ("/cache/l2", "/cache/l1")
    workspace = WorkspaceView(root, layers, build_folders=tuple(builds))
    return mount_plan.plan(HOST, View("r", 1 << 20, workspace=workspace)._replace(**changes))


def targets(seen: MountPlan, operation: str) -> list[str]:
    return [step["target"] for step in seen.mounts if step["kind"] == operation]


def test_nothing_of_the_home_folder_is_mounted_but_the_workspace():
    """The caller's home is not there: only the project's own folder is, and only copy-on-write."""
    seen = planned()

    assert [at for at in targets(seen, "bind") if at.startswith("/home/me")] == []
    assert targets(seen, "overlay") == ["/home/me/shop"]


def test_every_host_folder_is_read_only_unless_it_is_named_writable():
    """A bind of the host is writable only where the description says so."""
    seen = planned(
        mounts=[
            HostMount("/cache/data", "/var/cleanroom/data", True),
            HostMount("/cache/run", "/run/cleanroom/db", False),
        ],
        cache=HomeLayers(Path("/cache/run/home-1"), (Path("/cache/kept/1"), Path("/cache/kept/0"))),
    )

    assert [
        step["target"] for step in seen.mounts if step["kind"] == "bind" and step["writable"]
    ] == ["/var/cleanroom/data"]
    home = next(step for step in seen.mounts if step["target"] == f"{HOME}/.cache")
    assert (home["layers"], home["kept"], home["lower"]) == (
        ["/cache/run/home-1"],
        ["/cache/kept/1"],
        "/cache/kept/0",
    )
    assert "/run/cleanroom/db" not in seen.writable


def test_a_tool_inside_a_system_folder_the_workspace_or_another_tool_needs_no_mount():
    """What is seen already is not mounted again."""
    seen = planned(
        tools=["/usr/local/go", "/home/me/shop/.venv", "/root/.pyenv", "/root/.pyenv/versions/3.11"]
    )

    assert [at for at in targets(seen, "bind") if not at.startswith("/etc")] == [
        "/opt",
        "/usr",
        "/root/.pyenv",
    ]


def test_a_tool_under_the_hosts_tmp_is_not_covered_by_the_private_one():
    """Its mount comes after that of /tmp."""
    order = [step["target"] for step in planned(tools=["/tmp/venv"]).mounts]

    assert order.index("/tmp") < order.index("/tmp/venv")


def test_the_synthetic_files_name_the_user_and_the_services():
    """passwd knows the environment's uid, hosts its own name and its services:
    servers and resolvers ask for both.
    """
    seen = planned(names=[("postgres", "127.0.0.1")])
    texts = {
        f"{step['target']}/{name}": text
        for step in seen.mounts
        if step["kind"] == "files"
        for name, text in step["texts"].items()
    }

    assert f":{USER_ID}:" in texts["/etc/passwd"]
    assert "127.0.0.1 postgres" in texts["/etc/hosts"]
    assert etc_files.host_name("r") in texts["/etc/hosts"]


def test_the_host_name_differs_between_runs_and_stays_in_one():
    """It is no fingerprint of a sandbox."""
    assert etc_files.host_name("a") == etc_files.host_name("a") != etc_files.host_name("b")


def test_the_workspace_comes_after_what_could_cover_it():
    """A project that lies under a private folder such as /tmp is mounted on top of it."""
    seen = planned("/tmp/project")
    order = [step["target"] for step in seen.mounts]

    assert order.index("/tmp") < order.index("/tmp/project")


def test_from_high_on_only_the_systems_own_folders_are_shown():
    """/opt is neither the system's nor declared; what is declared below it is shown and may be
    started.
    """
    seen = planned(allowlist=True, tools=["/opt/tool"])

    assert "/opt" not in targets(seen, "bind")
    assert "/opt/tool" in targets(seen, "bind")
    assert {"/usr", "/opt/tool"} <= set(seen.programs)


def test_from_high_on_nothing_that_was_written_is_started_but_in_build_folders():
    """Home and /tmp forbid it, the workspace unless it has a build folder, which is no mount."""
    tool, target = "/home/me/shop/.venv", "/home/me/shop/target"

    def started(*builds: str) -> tuple[list[bool], set[str], set[str]]:
        seen = planned(allowlist=True, tools=[tool], builds=builds, tmp_exec=False)
        parts = {step["target"]: step["writable"] for step in seen.mounts if step["kind"] == "exec"}
        assert parts == {tool: False}
        assert tool in seen.executable
        assert target not in seen.executable
        whole = ("overlay", "tmpfs")
        places = {step["target"]: step["exec"] for step in seen.mounts if step["kind"] in whole}
        allowed = [places[at] for at in (HOME, "/tmp", "/home/me/shop")]
        return allowed, set(seen.programs), set(seen.startable)

    assert started() == ([False, False, False], {"/usr", tool}, {"/usr", tool})
    assert started(target) == (
        [False, False, True],
        {"/usr", tool, target},
        {"/usr", tool, "/home/me/shop"},
    )


def test_a_tool_that_is_declared_as_an_output_can_be_built_anew():
    """It is no mount then; what is declared inside of another tool is one that can be written."""
    venv = "/home/me/shop/.venv"
    for builds, parts in (([venv], {}), ([f"{venv}/bin"], {venv: False, f"{venv}/bin": True})):
        seen = planned(allowlist=True, tools=[venv], builds=builds)
        found = {s["target"]: s["writable"] for s in seen.mounts if s["kind"] == "exec"}
        assert found == parts


def test_tmp_exec_lets_programs_of_tmp_be_started_at_high():
    """It is the one folder of its own where the project can allow it."""
    seen = planned(allowlist=True, tmp_exec=True)

    assert "/tmp" in seen.programs
    assert {step["target"]: step["exec"] for step in seen.mounts if step["kind"] == "tmpfs"}["/tmp"]


def test_settings_that_hold_credentials_are_not_shown():
    """Of git's and Maven's folders, and of the one with keys, only what says nothing secret."""
    shown = set(etc_files.SHOWN)
    assert not {"gitconfig", "maven", "maven/settings.xml", "pki", "pki/tls", "npmrc"} & shown
    assert {"maven/m2.conf", "maven/logging", "pki/tls/certs"} <= shown


def test_a_closed_folder_in_a_private_tmp_may_not_be_written():
    """What is made beside a git folder's files that are shown there is told as read-only."""
    view = mount_plan.View("r", 1 << 20, tools=("/tmp/m/.git/HEAD",), closed=("/tmp/m/.git",))
    assert "/tmp/m/.git" in mount_plan.plan(HOST, view).executable
