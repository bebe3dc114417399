"""Which unix sockets Low refuses by name."""

from __future__ import annotations

import pytest

from cleanroom.sandbox.network import control_sockets

HOME, RUN, CACHE = "/home/ada", "/run/user/1000", "/srv/cache"
CALLER = {
    "SSH_AUTH_SOCK": "/srv/agents/ssh",
    "DBUS_SESSION_BUS_ADDRESS": "unix:path=/srv/buses/session,guid=0123",
    "DOCKER_HOST": "unix:///srv/engines/docker.sock",
    "TMUX": "/srv/tmux/default,4242,0",
    "VSCODE_IPC_HOOK_CLI": "/srv/editors/vscode-ipc-1.sock",
    "KITTY_LISTEN_ON": "unix:/srv/terminals/kitty",
    "WAYLAND_DISPLAY": "wayland-0",
}
REFUSED = (
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/podman/podman.sock",
    "/run/systemd/private",
    "/run/dbus/system_bus_socket",
    f"{RUN}/bus",
    f"{RUN}/systemd/private",
    f"{RUN}/gnupg/S.gpg-agent",
    f"{RUN}/keyring/ssh",
    f"{RUN}/vscode-ipc-1.sock",
    f"{RUN}/emacs/server",
    f"{RUN}/wayland-0",
    f"{RUN}/podman/podman.sock",
    "/run/user/0/bus",
    "/run/screen/S-ada/1.pts",
    "/tmp/.X11-unix/X0",
    f"{HOME}/.gnupg/S.gpg-agent",
    f"{HOME}/.ssh/agent.sock",
    f"{HOME}/.emacs.d/server/server",
    "/srv/agents/ssh",
    "/srv/buses/session",
    "/srv/engines/docker.sock",
    "/srv/tmux/default",
    "/srv/editors/vscode-ipc-1.sock",
    "/srv/terminals/kitty",
    f"{CACHE}/paused/20260101-000000-abcde",
    f"{CACHE}/runs/up-x/socket",
)
REACHED = (
    "/run/postgresql/.s.PGSQL.5432",
    "/run/mysqld/mysqld.sock",
    "/run/nscd/socket",
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/systemd/journal/socket",
    "/dev/log",
    "/run/userbus",
    "/run/docker.sock2",
    f"{HOME}/project/server.sock",
    "/srv/agents",
)


@pytest.mark.parametrize("path", REFUSED)
def test_what_starts_programs_outside_is_refused(path: str):
    """By its usual place, or because the caller's environment names it."""
    assert control_sockets.covers(control_sockets.known(RUN, HOME, CACHE, CALLER), path)


@pytest.mark.parametrize("path", REACHED)
def test_servers_that_only_answer_are_not(path: str):
    """Databases, resolvers and loggers, and names that merely begin alike."""
    assert not control_sockets.covers(control_sockets.known(RUN, HOME, CACHE, CALLER), path)


def test_a_caller_without_a_home_has_no_entry_at_the_root():
    """An empty home folder makes no rule for folders of the machine."""
    known = control_sockets.known(RUN, "", CACHE, {})
    assert not any(path.startswith("/.") for path in known)


@pytest.mark.parametrize(
    "value", ["", "wayland-0", "tcp://127.0.0.1:2375", "ssh://host/run/x.sock", ":0"]
)
def test_a_variable_that_names_no_socket_of_this_machine_adds_nothing(value: str):
    """Neither a host, nor a name without a folder."""
    assert control_sockets.named({"DOCKER_HOST": value}) == []
