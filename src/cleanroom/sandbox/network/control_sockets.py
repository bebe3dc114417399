"""Unix sockets through which whoever reaches them starts programs outside, or acts as the user.

At Low the host's unix sockets are reached and recorded, but for these: container engines, service
managers and buses, agents that ask a person or load a library, terminals and editors that run what
they are told. Values and pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# A folder's slash stands for all in it. `{run}` is the user's runtime folder, `{home}` the home,
# `{cache}` our own.
CONTAINER_ENGINES = (
    "/run/docker.sock",
    "/run/podman/",
    "/run/containerd/",
    "/run/crio/",
    "/run/cri-dockerd.sock",
    "/run/k3s/",
    "/run/buildkit/",
    "/var/lib/lxd/unix.socket",
    "/run/incus/",
    "/run/libvirt/",
    "/var/snap/lxd/common/lxd/unix.socket",
    "/var/lib/incus/unix.socket",
    "/var/run/docker.sock",
    "{home}/.docker/run/",
    "{home}/.docker/desktop/",
    "{home}/.colima/",
    "{home}/.rd/",
)
SERVICE_MANAGERS = (
    "/run/systemd/private",
    "/run/systemd/io.systemd.Manager",
    "/run/systemd/machine/",
    "/run/dbus/",
    "/run/snapd.socket",
    "/run/snapd-snap.socket",
    "/run/udev/control",
    "/run/supervisor.sock",
    "/run/supervisord.sock",
    "/run/supervisor/",
)
# Session buses, user managers, sound and display servers, agents, terminals, editors.
SESSIONS = (
    "{run}/",
    "/run/user/",
    "/run/screen/",
    "/run/tmux/",
    "/tmp/.X11-unix/",
    "{home}/.gnupg/",
    "{home}/.ssh/",
    "{home}/.emacs.d/server/",
    "{home}/.screen/",
    "{home}/.local/share/containers/",
    "{home}/.1password/",
    "{home}/.config/Code/",
)
# Of runs that are paused (shells, decisions) and servers of services (passwords, their end).
# Who is at the other end does not tell them a phase from a person: the warden connects for it.
ENGINE = ("{cache}/",)
ALWAYS = (*CONTAINER_ENGINES, *SERVICE_MANAGERS, *SESSIONS, *ENGINE)

# Variables of the caller that name such a socket: a path, one after a scheme, or one of several.
VARIABLES = (
    "DOCKER_HOST",
    "CONTAINER_HOST",
    "PODMAN_HOST",
    "BUILDKIT_HOST",
    "CONTAINERD_ADDRESS",
    "DBUS_SESSION_BUS_ADDRESS",
    "DBUS_SYSTEM_BUS_ADDRESS",
    "SSH_AUTH_SOCK",
    "TMUX",
    "VSCODE_IPC_HOOK",
    "VSCODE_IPC_HOOK_CLI",
    "VSCODE_GIT_IPC_HANDLE",
    "EMACS_SOCKET_NAME",
    "NVIM",
    "NVIM_LISTEN_ADDRESS",
    "KITTY_LISTEN_ON",
    "WEZTERM_UNIX_SOCKET",
    "ALACRITTY_SOCKET",
    "I3SOCK",
    "SWAYSOCK",
    "WAYLAND_DISPLAY",
    "PULSE_SERVER",
)


def known(run: str, home: str, cache: str, caller: Mapping[str, str]) -> list[str]:
    """All of them for a caller with this runtime folder, home, cache of ours and environment.

    Paths are absolute; without a home those in it are left out.
    """
    filled = [
        path.format(run=run, home=home, cache=cache)
        for path in ALWAYS
        if home or "{home}" not in path
    ]
    return [*filled, *named(caller)]


def named(caller: Mapping[str, str]) -> list[str]:
    """Those that the caller's own variables name, in the order of the variables."""
    values = (caller.get(name, "") for name in VARIABLES)
    return [path for value in values if (path := _path(value))]


def covers(entries: Iterable[str], path: str) -> bool:
    """Whether one of the entries is the path, or a folder around it."""
    return any(
        path.startswith(entry) if entry.endswith("/") else path == entry for entry in entries
    )


def _path(value: str) -> str:
    """/path, unix:///path, unix:path=/path,guid=..., or /path,pid,number (tmux); "" for others."""
    start = value.find("/")
    if start < 0 or (start > 0 and not value.startswith(("unix:", "{"))):
        return ""
    path = value[start:].split(",")[0].split(";")[0]
    return "/" + path.lstrip("/")
