"""The canaries: attempts that the policy forbids, made in an environment before any command runs.

`run` is called in a forked child of init, under the very same Landlock domain and filter, without
exec and without reading a module from disk.
A canary passes when it was refused *and*, where detection is claimed, recorded: `canary.judge`
compares with the record.
Controls, which must work, come last: a sandbox that refuses everything is no good one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from cleanroom.sandbox.kernel import constants, syscalls
from cleanroom.sandbox.selftest import file_attempts, network_attempts, process_attempts
from cleanroom.sandbox.selftest.canary import Canary, allowlist, host_network, verdict

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import CanaryRun, Expectations, Target

# ECONNREFUSED where nobody listens, ENETUNREACH without a route (ip(7)), EHOSTUNREACH without a
# neighbour; EACCES and EPERM of a policy, such as Landlock's for TCP.
_REFUSED = ("ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH", "EACCES", "EPERM")
# Our filter answers EPERM; a filter around ours may answer ENOSYS first.
_NO_CALL = ("EPERM", "ENOSYS")
# EROFS of a read-only mount, EACCES of Landlock and of file modes, EPERM of a call that only the
# owner of the file may make.
_READ_ONLY = ("EROFS", "EACCES", "EPERM")
# A file that every environment may read.
_SHELL = "/bin/sh"


def run(expect: Expectations) -> list[CanaryRun]:
    """Make every attempt; each outcome has in `seen` the target that `canary.judge` looks for."""
    return [verdict(canary, expect, partial(canary.attempt, expect)) for canary in asked(expect)]


def asked(expect: Expectations) -> tuple[Canary, ...]:
    """The canaries for these expectations."""
    if expect["host_network"]:
        kept = (canary for canary in CANARIES if canary.name not in ALLOWED_ON_HOST_NETWORK)
        return (*HOST_NETWORK, *kept)
    further = ALLOWLIST if expect["allowlist"] else ()
    return (*CANARIES, *further, *(HOST_NAMESPACES if expect["bare"] else ()))


def _syscall_target(name: str) -> Callable[[Expectations], Target]:
    return lambda _: {"syscall": name}


def _ip_target(ip: str, port: int) -> Callable[[Expectations], Target]:
    return lambda _: {"ip": ip, "port": port}


CANARIES: tuple[Canary, ...] = (
    Canary(
        # For documentation (RFC 5737, RFC 3849): a packet that got out would reach no host.
        "tcp",
        "network.egress",
        _REFUSED,
        lambda _: network_attempts.connect(socket.AF_INET, ("192.0.2.1", 9)),
        _ip_target("192.0.2.1", 9),
    ),
    Canary(
        "tcp over IPv6",
        "network.egress",
        _REFUSED,
        lambda _: network_attempts.connect(socket.AF_INET6, ("2001:db8::1", 9)),
        _ip_target("2001:db8::1", 9),
    ),
    Canary(
        "metadata service",
        "network.egress",
        _REFUSED,
        # Link-local (RFC 3927), where clouds serve credentials.
        lambda _: network_attempts.connect(socket.AF_INET, ("169.254.169.254", 80)),
        _ip_target("169.254.169.254", 80),
    ),
    Canary(
        "udp",
        "network.egress",
        _REFUSED,
        lambda _: network_attempts.send_datagram(("192.0.2.9", 123)),
        _ip_target("192.0.2.9", 123),
    ),
    Canary(
        "tcp fast open",
        "network.egress",
        _REFUSED,
        lambda _: network_attempts.fast_open(("192.0.2.2", 9), by_message=False),
        _ip_target("192.0.2.2", 9),
    ),
    Canary(
        "tcp fast open by sendmsg",
        "network.egress",
        _REFUSED,
        lambda _: network_attempts.fast_open(("192.0.2.3", 9), by_message=True),
        _ip_target("192.0.2.3", 9),
    ),
    Canary(
        "mptcp",
        "network.egress",
        _REFUSED,
        lambda _: network_attempts.connect(
            socket.AF_INET, ("192.0.2.4", 9), constants.IPPROTO_MPTCP
        ),
        _ip_target("192.0.2.4", 9),
    ),
    Canary(
        "packet socket",
        "network.families",
        # packet(7): EPERM without CAP_NET_RAW, where no filter answers first.
        ("EAFNOSUPPORT", "EPERM"),
        lambda _: network_attempts.open_family(constants.AF_PACKET),
        lambda _: {"proto": "AF_PACKET"},
    ),
    Canary(
        "vsock",
        "network.families",
        ("EAFNOSUPPORT",),
        # vsock(7) leads to the hypervisor, over no link of the network namespace.
        lambda _: network_attempts.open_family(constants.AF_VSOCK),
        lambda _: {"proto": "AF_VSOCK"},
    ),
    Canary(
        "unix socket outside",
        "network.sockets",
        # ENOENT: no mount shows its folder. ECONNREFUSED: no socket listens on the file.
        ("ENOENT", "EACCES", "ECONNREFUSED", "EPERM"),
        lambda expect: network_attempts.connect_unix_path(expect["unix"]),
        lambda expect: (
            {}
            if expect["unix_private"] or network_attempts.too_long(expect["unix"])
            else {"sun_path": expect["unix"]}
        ),
    ),
    Canary(
        "abstract socket outside",
        "network.sockets",
        ("ECONNREFUSED", "EPERM"),
        # Abstract names belong to a network namespace: ECONNREFUSED in another one (unix(7)).
        # EPERM: a Landlock scope, from ABI 6 on.
        lambda expect: network_attempts.connect_unix(f"\0{expect['abstract']}"),
    ),
    Canary(
        "write outside",
        "filesystem.write",
        _READ_ONLY,
        lambda expect: file_attempts.try_each_folder(expect, file_attempts.write_outside),
        lambda expect: {"path": f"{expect['outside'][-1]}/cleanroom-canary"},
    ),
    Canary(
        "chmod outside",
        "filesystem.metadata",
        _READ_ONLY,
        # Landlock does not cover chmod(2): here only the mount refuses, or a held call.
        lambda expect: file_attempts.try_each_folder(expect, file_attempts.chmod_outside),
        lambda expect: {"path": expect["outside"][-1]},
    ),
    Canary(
        "secret of the home folder",
        "filesystem.secrets",
        ("ENOENT", "EACCES"),
        # ENOENT: the folder is not in the environment's own root. EACCES: Landlock.
        lambda expect: file_attempts.read(expect["secret"]),
    ),
    Canary("mount", "process.syscalls", _NO_CALL, process_attempts.mount, _syscall_target("mount")),
    Canary(
        "new namespace",
        "process.syscalls",
        _NO_CALL,
        lambda _: syscalls.unshare(constants.CLONE_NEWUSER),
        _syscall_target("unshare"),
    ),
    # EINVAL: uid 0 has no map in this user namespace (setresuid(2)).
    Canary("become root", "process.privileges", ("EPERM", "EINVAL"), process_attempts.become_root),
    Canary("capabilities", "process.privileges", ("EPERM",), process_attempts.read_capabilities),
    Canary(
        "see the engine",
        "process.visibility",
        ("ENOENT", "ESRCH", "EACCES"),
        # pid_namespaces(7): /proc shows the processes of its own namespace and those below.
        process_attempts.see_engine,
    ),
    Canary(
        "signal the engine",
        "process.visibility",
        ("ESRCH", "EPERM", "ENOENT"),
        # ESRCH in another pid namespace; EPERM of another user, or of a Landlock scope.
        process_attempts.signal_engine,
    ),
    Canary(
        "undeclared name",
        "network.names",
        (),
        network_attempts.look_up_name,
        lambda expect: {"host": expect["name"]},
    ),
    Canary("control: /dev/null is written", "filesystem.write", (), file_attempts.write_null),
    Canary("control: /tmp is written", "filesystem.write", (), file_attempts.write_temporary),
    Canary(
        "control: /dev/urandom is read",
        "filesystem.write",
        (),
        lambda _: file_attempts.read("/dev/urandom"),
    ),
)

# In addition where an allowlist holds, from level High on.
ALLOWLIST: tuple[Canary, ...] = (
    Canary(
        "read what is not listed",
        "filesystem.reads",
        ("ENOENT", "EACCES"),
        lambda expect: file_attempts.read(allowlist(expect)["unread"]),
        lambda expect: {"path": allowlist(expect)["unread"]},
    ),
    Canary(
        "start what was written",
        "process.exec",
        ("EACCES",),
        # execve(2): EACCES on a mount with MS_NOEXEC, as of Landlock.
        process_attempts.start_written_program,
        lambda expect: {"path": process_attempts.written_program(expect)},
    ),
    Canary(
        "file in memory that may be started",
        "process.exec",
        ("ENOSYS",),
        # Landlock does not see it: a memfd lies on a mount of the kernel's own.
        process_attempts.make_executable_memfd,
        _syscall_target("memfd_create"),
    ),
    Canary(
        "listen on a port",
        "network.listen",
        ("EACCES",),
        # EACCES is the answer to the held bind(2) or listen(2).
        network_attempts.listen,
        lambda expect: {"port": allowlist(expect)["port"]},
    ),
    Canary(
        "listen without a port",
        "network.listen",
        ("EACCES",),
        # listen(2) binds a socket without an address by itself, with no bind(2) to hold.
        network_attempts.listen_unbound,
        lambda _: {"ip": "0.0.0.0"},  # noqa: S104
    ),
    Canary(
        "control: a listed program is started",
        "process.exec",
        (),
        lambda expect: process_attempts.start(allowlist(expect)["program"]),
    ),
    Canary(
        "control: a unix socket listens",
        "network.listen",
        (),
        network_attempts.listen_as_clients_do,
    ),
)

# In addition in the host's namespaces, where no read-only mount, no network and no process ids of
# the environment's own refuse.
HOST_NAMESPACES: tuple[Canary, ...] = (
    Canary(
        "port of the host's loopback",
        "network.egress",
        _REFUSED,
        lambda expect: network_attempts.connect(socket.AF_INET, ("127.0.0.1", expect["port"])),
        lambda expect: {"ip": "127.0.0.1", "port": expect["port"]},
    ),
    Canary(
        "mode of an open file outside",
        "filesystem.metadata",
        _READ_ONLY,
        # Neither Landlock nor the mode of opening bounds fchmod(2): the held call does.
        lambda _: file_attempts.chmod_open_file(_SHELL),
        lambda _: {"path": os.path.realpath(_SHELL)},
    ),
    Canary(
        "limits of the engine",
        "process.visibility",
        ("EPERM", "ESRCH"),
        # prlimit(2): EPERM where the ids differ, without CAP_SYS_RESOURCE.
        process_attempts.read_engine_limits,
        lambda expect: {"signal_pid": expect["pid"]},
    ),
    Canary(
        "control: an own port is reached",
        "network.egress",
        (),
        lambda _: network_attempts.reach_own_server(),
    ),
)

# Canaries of what is allowed on the host's network.
ALLOWED_ON_HOST_NETWORK = frozenset(
    (
        "tcp",
        "tcp over IPv6",
        "metadata service",
        "udp",
        "tcp fast open",
        "tcp fast open by sendmsg",
        "mptcp",
        "unix socket outside",
        "abstract socket outside",
        "secret of the home folder",
        "undeclared name",
    )
)

# On the host's network, at level Low.
HOST_NETWORK: tuple[Canary, ...] = (
    Canary(
        "metadata service",
        "network.local",
        _REFUSED,
        lambda _: network_attempts.connect(socket.AF_INET, ("169.254.169.254", 80)),
        _ip_target("169.254.169.254", 80),
    ),
    Canary(
        "link-local address",
        "network.local",
        _REFUSED,
        lambda _: network_attempts.send_datagram(("169.254.1.1", 9)),
        _ip_target("169.254.1.1", 9),
    ),
    Canary(
        "the host's loopback",
        "network.local",
        _REFUSED,
        lambda expect: network_attempts.connect(
            socket.AF_INET, ("127.0.0.1", host_network(expect)["port"])
        ),
        lambda expect: {"ip": "127.0.0.1", "port": host_network(expect)["port"]},
    ),
    Canary(
        "the host's loopback by fast open",
        "network.local",
        _REFUSED,
        lambda expect: network_attempts.fast_open(
            ("127.0.0.1", host_network(expect)["port"]), by_message=True
        ),
    ),
    Canary(
        "abstract socket outside",
        "network.local",
        ("ECONNREFUSED", "EPERM"),
        lambda expect: network_attempts.connect_unix(f"\0{expect['abstract']}"),
        lambda expect: {"sun_path": f"@{expect['abstract']}"},
    ),
    Canary(
        "container runtime's socket",
        "network.runtimes",
        ("ENOENT", "EACCES"),
        lambda expect: network_attempts.connect_unix(host_network(expect)["runtime"]),
        lambda expect: {"sun_path": host_network(expect)["runtime"]},
    ),
    Canary(
        "listen for other machines",
        "network.publish",
        ("EACCES",),
        network_attempts.listen_on_all_interfaces,
        lambda expect: {"port": host_network(expect)["port"]},
    ),
    Canary(
        "listen without a port",
        "network.publish",
        ("EACCES",),
        network_attempts.listen_unbound,
        lambda _: {"ip": "0.0.0.0"},  # noqa: S104
    ),
    Canary(
        "control: a server of one's own is reached",
        "network.local",
        (),
        lambda _: network_attempts.reach_own_server(),
    ),
)
