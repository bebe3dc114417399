"""The errors of the fetch step. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from cleanroom.dependencies.model import Artifact
from cleanroom.dependencies.store import Rejected
from cleanroom.model.errors import DependencyRejected, DependencyUnavailable

# Of an address that was made of one in the caller's own configuration.
_LOGIN = re.compile(r"//[^/]*@")


def rejected_download(artifact: Artifact, host: str, rejected: Rejected) -> DependencyRejected:
    """A registry gave another file than the lock names."""
    return DependencyRejected(
        "CR-FETCH-001",
        f"{artifact.name} {artifact.version} from {host}: the lock file names "
        f"{rejected.expected}, the registry gave {rejected.found}",
        hint="do not use it: find out who changed the registry or the lock file",
    )


def failed_download(name: str, url: str, reason: str, kind: str) -> Exception:
    """A file could not be fetched."""
    host = urlsplit(url).netloc.rpartition("@")[2]
    if kind in ("redirect", "too large"):
        return DependencyRejected(
            "CR-FETCH-002",
            f"{name} from {host}: {reason}",
            hint="name the host in the package manager's own configuration if that is right",
        )
    return DependencyUnavailable(
        "CR-FETCH-003",
        f"{name} from {host}: {reason}",
        hint="look at the registry, the network, and the package manager's configuration",
    )


def led_inside(name: str, host: str, target: str) -> DependencyRejected:
    """A registry led to an address that is none of the internet."""
    return DependencyRejected(
        "CR-FETCH-002",
        f"{name} from {host}: redirected to {target}, which is no public host",
        hint="name the host in the package manager's own configuration if that is right",
    )


def led_with_login(name: str, host: str) -> DependencyRejected:
    """A registry led to an address that has the caller's login in it."""
    return DependencyRejected(
        "CR-FETCH-002",
        f"{name} from {host}: redirected to another host, in an address that has your login in it",
        hint="do not use this registry, and change the login",
    )


def led_too_often(name: str, host: str, target: str, most: int) -> DependencyRejected:
    """A registry led from host to host."""
    return DependencyRejected(
        "CR-FETCH-002",
        f"{name} from {host}: redirected to {target}, the host after {most} others",
        hint="name the address that it leads to in the end",
    )


def no_address(url: str) -> DependencyRejected:
    """A lock or a registry names an address that is none, or that two readers may read as two."""
    return DependencyRejected(
        "CR-FETCH-002",
        f"{ascii(_LOGIN.sub('//***@', url, count=1)[:200])[1:-1]}: "
        "this is no plain address of a file on the web",
        hint="expected https://HOST/PATH, without a login",
    )


def inside_of_proxy(host: str) -> DependencyUnavailable:
    """A lock names an address of the network that the proxy stands in."""
    return DependencyUnavailable(
        "CR-FETCH-003",
        f"{host}: an address of a network of its own, which the proxy is not asked for",
        hint="name it in the package manager's own configuration if that is right",
    )


def too_many_hosts(manager: str, count: int, most: int) -> DependencyUnavailable:
    """A lock names more hosts than any project has registries."""
    return DependencyUnavailable(
        "CR-FETCH-003",
        f"{manager}: its files are on {count} hosts, and at most {most} are reached at once",
        hint="look at the addresses in the lock file, or name a mirror of your own",
    )


def failed_clone(artifact: Artifact, url: str, output: bytes) -> DependencyUnavailable:
    """git could not fetch a commit."""
    lines = output.decode(errors="replace").strip().splitlines()
    text = "; ".join(line.strip() for line in lines[-2:])[-300:] or "git said nothing"
    return DependencyUnavailable(
        "CR-FETCH-003",
        f"{artifact.name} {artifact.version} from {url}: {text}",
        hint="see that git is on PATH, and that `git ls-remote` reaches the repository",
    )


def may_not_fetch(manager: str, names: Sequence[str]) -> DependencyUnavailable:
    """Something is missing, and the run is offline."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return DependencyUnavailable(
        "CR-FETCH-004",
        f"{manager}: not in the store: {', '.join(names[:3])}{more}",
        hint="run `cleanroom-engine fetch` while there is a network, or leave --offline out",
    )


def unanswered(manager: str, exit_code: int, output: str) -> DependencyUnavailable:
    """The downloader itself failed."""
    return DependencyUnavailable(
        "CR-FETCH-005",
        f"{manager}: the download ended with status {exit_code}: {output}",
        hint="--debug shows more",
    )
