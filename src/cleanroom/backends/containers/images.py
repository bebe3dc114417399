"""Images built without a registry, from Debian's packages.

Equal packages give an archive with an equal digest, which any engine loads.
`mmdebstrap` builds the root file system, as root or not.
This module wraps it in the format of `docker save`, with one date for all files.
Functions that block say so.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import re
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import TimeoutExpired
from typing import IO, Any

import msgspec

from cleanroom.core import host_programs
from cleanroom.model.errors import BackendUnavailable, EnvironmentFailed, UsageError

SUITE = "bookworm"
EPOCH = "315532800"  # 1980-01-01, as in phases
BUILD_SECONDS = 900.0  # a slow mirror; 25 s for the smallest
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
SERVER_LABEL, VERSION_LABEL = "cleanroom.server", "cleanroom.version"  # which the services read
RECIPE_LABEL = "cleanroom.recipe"


class ImagePlan(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of an image."""

    name: str
    packages: tuple[str, ...]
    # shell commands before the packages are configured; $1 is the image's root
    hooks: tuple[str, ...] = ()
    path: str = PATH
    server: tuple[str, str] = ("", "")  # the server's program, and the package whose version is its


# PostgreSQL's package would make a cluster of its own, and lies outside PATH.
_NO_CLUSTER = (
    'mkdir -p "$1/etc/postgresql-common" && echo "create_main_cluster = false" > '
    '"$1/etc/postgresql-common/createcluster.conf"'
)
PLANS: dict[str, ImagePlan] = {
    "base": ImagePlan(
        name="cleanroom/base", packages=("python3", "make", "git", "ca-certificates")
    ),
    "postgres": ImagePlan(
        name="cleanroom/postgres",
        packages=("postgresql-15",),
        hooks=(_NO_CLUSTER,),
        path=f"/usr/lib/postgresql/15/bin:{PATH}",
        server=("postgres", "postgresql-15"),
    ),
    "redis": ImagePlan(
        name="cleanroom/redis", packages=("redis-server",), server=("redis-server", "redis-server")
    ),
}


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """An image as it was made: its digest is the same wherever it is loaded."""

    name: str
    digest: str  # of its configuration: what engines call the image id
    layer_sha256: str
    archive: str
    packages: dict[str, str]  # package -> version


def chosen(names: Sequence[str]) -> tuple[ImagePlan, ...]:
    """The plans of these names, or all.

    Raises:
        UsageError: there is no such image.
    """
    for name in names:
        if name not in PLANS:
            raise UsageError(
                "CR-CONTAINER-010", f"image {name!r}: expected one of {', '.join(PLANS)}"
            )
    return tuple(PLANS[name] for name in names or PLANS)


def recipe(plan: ImagePlan) -> str:
    """The hash of everything that determines an image: the value of its `RECIPE_LABEL`.

    A different value means that another version of this code built the image.
    """
    return hashlib.sha256(msgspec.json.encode((SUITE, plan))).hexdigest()


def build(
    plan: ImagePlan, folder: Path, *, mirror: str = "", say: Callable[[str], None] = lambda _: None
) -> Built:
    """Make the archive of one image in `folder`. Blocks for about half a minute.

    Raises:
        BackendUnavailable: mmdebstrap is not there.
        EnvironmentFailed: it failed, such as for want of a network.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    stem = plan.name.replace("/", "-")
    layer = folder / f"{stem}.layer.tar"
    try:
        say(f"{plan.name}: installing {', '.join(plan.packages)} from Debian {SUITE}")
        _bootstrap(plan, layer, mirror)
        digest = _sha256(layer)
        packages = _packages(layer)
        configuration = _configuration(plan, digest, packages)
        archive = folder / f"{stem}.tar"
        _write_archive(archive, plan.name, configuration, layer, digest)
    finally:
        layer.unlink(missing_ok=True)
    identity = hashlib.sha256(configuration).hexdigest()
    return Built(
        name=plan.name,
        digest=f"sha256:{identity}",
        layer_sha256=digest,
        archive=str(archive),
        packages=packages,
    )


def _bootstrap(plan: ImagePlan, layer: Path, mirror: str) -> None:
    if host_programs.find("mmdebstrap") is None:
        raise BackendUnavailable(
            "CR-CONTAINER-011",
            "mmdebstrap, which makes images from Debian's packages, is not installed",
            hint="apt install mmdebstrap; or name images of your own in make.toml",
        )
    hooks = [f"--essential-hook={hook}" for hook in plan.hooks]
    words = [
        "--quiet",
        "--variant=minbase",
        "--format=tar",
        f"--include={','.join(plan.packages)}",
        *hooks,
        SUITE,
        str(layer),
    ]
    proxies = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    try:
        done = host_programs.run(
            "mmdebstrap",
            [*words, *([mirror] if mirror else [])],
            timeout_seconds=BUILD_SECONDS,
            variables={"SOURCE_DATE_EPOCH": EPOCH, **proxies},
        )
    except TimeoutExpired as error:
        raise EnvironmentFailed(
            "CR-CONTAINER-012", f"{plan.name}: mmdebstrap did not end within {BUILD_SECONDS:g} s"
        ) from error
    if done.returncode:
        output = "\n".join(done.stderr.strip().splitlines()[-8:])
        raise EnvironmentFailed(
            "CR-CONTAINER-012",
            f"{plan.name}: mmdebstrap ended with status {done.returncode}: {output}",
            hint="is the mirror reachable?",
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _packages(layer: Path) -> dict[str, str]:
    """Package to version, as dpkg in the image says."""
    with tarfile.open(layer) as tar:
        member = next((one for one in tar if one.name.lstrip("./") == "var/lib/dpkg/status"), None)
        file = tar.extractfile(member) if member is not None else None
        text = file.read().decode(errors="replace") if file is not None else ""
    stanzas = (
        dict(line.partition(": ")[::2] for line in stanza.splitlines() if not line.startswith(" "))
        for stanza in text.split("\n\n")
    )
    return {
        stanza["Package"]: stanza.get("Version", "") for stanza in stanzas if "Package" in stanza
    }


def _configuration(plan: ImagePlan, layer: str, packages: Mapping[str, str]) -> bytes:
    listed = hashlib.sha256(json.dumps(packages, sort_keys=True).encode()).hexdigest()
    labels = {
        "cleanroom.image": plan.name,
        "cleanroom.packages": listed,
        RECIPE_LABEL: recipe(plan),
    }
    if plan.server[0]:
        version = re.match(r"(?:\d+:)?(\d+(?:\.\d+)*)", packages[plan.server[1]])
        assert version is not None, "Debian's versions begin with a number"
        labels |= {SERVER_LABEL: plan.server[0], VERSION_LABEL: version.group(1)}
    described: dict[str, object] = {
        "architecture": MACHINES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": "1980-01-01T00:00:00Z",
        "config": {
            "Env": [f"PATH={plan.path}", "LANG=C.UTF-8"],
            "Cmd": ["/bin/sh"],
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}"]},
        "history": [
            {
                "created": "1980-01-01T00:00:00Z",
                "created_by": f"mmdebstrap {SUITE} {' '.join(plan.packages)}",
            }
        ],
    }
    return json.dumps(described, sort_keys=True, separators=(",", ":")).encode()


def _write_archive(
    archive: Path, name: str, configuration: bytes, layer: Path, digest: str
) -> None:
    """Write the archive in the format of `docker save`, which every engine loads."""
    identity = hashlib.sha256(configuration).hexdigest()
    manifest = [
        {
            "Config": f"{identity}.json",
            "RepoTags": [f"{name}:latest"],
            "Layers": [f"{digest}/layer.tar"],
        }
    ]
    with tarfile.open(archive, "w") as tar:
        _add(tar, f"{identity}.json", io.BytesIO(configuration), len(configuration))
        with layer.open("rb") as file:
            _add(tar, f"{digest}/layer.tar", file, layer.stat().st_size)
        text = json.dumps(manifest).encode()
        _add(tar, "manifest.json", io.BytesIO(text), len(text))


def _add(tar: tarfile.TarFile, name: str, file: IO[bytes], size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, int(EPOCH), 0o644
    tar.addfile(member, file)


async def load(built: Built, engine: Any) -> None:
    """Load an archive into a connected engine, check the digest there, and remove the archive.

    Raises:
        EnvironmentFailed: the engine refused it, or has it under another digest.
    """
    archive = Path(built.archive)
    try:
        await engine.load(archive)
    finally:
        archive.unlink()
    found = await engine.image(built.name)
    if found.identity != built.digest:
        raise EnvironmentFailed(
            "CR-CONTAINER-012", f"{built.name}: loaded as {found.identity}, expected {built.digest}"
        )
