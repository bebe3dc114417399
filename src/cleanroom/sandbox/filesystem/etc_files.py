"""Files of /etc: those of the host that are shown, and the texts that stand in for the others.

Shown is only what programs need to start and to name things;
never accounts, keys, credentials of package managers or configurations of services.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from cleanroom.sandbox.filesystem.constants import HOME, USER
from cleanroom.sandbox.filesystem.mount_ops import bind

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import MakeFiles, MountOp

# Of a folder that has secrets too (git's and Maven's settings, the keys below pki) only the rest.
SHOWN = (
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "debian_version",
    "ethertypes",
    "fonts",
    "gai.conf",
    "gprofng.rc",
    "host.conf",
    "inputrc",
    "java",
    "java-11-openjdk",
    "java-17-openjdk",
    "java-21-openjdk",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "lsb-release",
    "magic",
    "magic.mime",
    "mailcap",
    "maven/logging",
    "maven/m2.conf",
    "mime.types",
    "networks",
    "openssl",
    "os-release",
    "perl",
    "pki/ca-trust",
    "pki/java",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "pki/tls/openssl.cnf",
    "profile",
    "protocols",
    "python2.7",
    "python3",
    "python3.10",
    "python3.11",
    "python3.12",
    "python3.13",
    "python3.14",
    "rpc",
    "services",
    "shells",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
    "xml",
)

# The server answers at once: a question that gets no answer need not wait 5 s, which
# resolv.conf(5) has as the default, nor be asked twice.
RESOLV_CONF = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"
# No module that would ask a service of the host, such as nss-resolve(8) (nsswitch.conf(5)).
NSSWITCH_CONF = (
    "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n"
    "protocols: files\nservices: files\n"
)


def host_name(run_id: str) -> str:
    """The host name of a run's environments.

    It differs between runs, and no program can know it as the name of a sandbox.
    """
    return "h" + hashlib.sha256(run_id.encode()).hexdigest()[:9]


def hosts_lines(run_id: str, names: Iterable[tuple[str, str]]) -> list[str]:
    """Lines of /etc/hosts for the environment itself and for (name, address) pairs."""
    return [
        f"127.0.1.1 {host_name(run_id)}",
        *(f"{address} {name}" for name, address in names),
    ]


def hosts(run_id: str, names: Iterable[tuple[str, str]]) -> str:
    """A whole /etc/hosts."""
    local = ["127.0.0.1 localhost", "::1 localhost ip6-localhost"]
    return "\n".join([*local, *hosts_lines(run_id, names)]) + "\n"


def passwd_line(user: int, group: int, home: str = HOME) -> str:
    """The line of /etc/passwd for the environment's user."""
    return f"{USER}:x:{user}:{group}:{USER}:{home}:/bin/sh"


def passwd(user: int, group: int, home: str = HOME) -> str:
    """A whole /etc/passwd."""
    return (
        f"root:x:0:0:root:/root:/bin/sh\n{passwd_line(user, group, home)}\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
    )


def group_line(group: int) -> str:
    """The line of /etc/group for the environment's user."""
    return f"{USER}:x:{group}:"


def group(group: int) -> str:
    """A whole /etc/group."""
    return f"root:x:0:\n{group_line(group)}\nnogroup:x:65534:\n"


def mounts(shown: Mapping[str, str], texts: dict[str, str]) -> list[MountOp]:
    """An /etc with `texts` and the host's files and folders `shown` (name -> "file" or "folder").

    Small files are copied: each bind would be a mount of its own.
    """
    files = [name for name, kind in shown.items() if kind != "folder"]
    folders = [name for name, kind in shown.items() if kind == "folder"]
    flat = [name for name in files if "/" not in name]
    nested = [name for name in files if "/" in name]
    return [
        {"kind": "files", "target": "/etc", "texts": texts, "source": "/etc", "copied": flat},
        *map(_copied, nested),
        *(bind(f"/etc/{name}", f"/etc/{name}") for name in folders),
    ]


def _copied(name: str) -> MakeFiles:
    """A small file in a folder of /etc."""
    folder = f"/etc/{os.path.dirname(name)}"
    copied = [os.path.basename(name)]
    return {"kind": "files", "target": folder, "texts": {}, "source": folder, "copied": copied}
