"""What is made of a file system that mmdebstrap gave, without running it."""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
from pathlib import Path

import msgspec
import pytest

from cleanroom.backends.containers import images
from cleanroom.backends.containers.images import PLANS, Built, ImagePlan
from cleanroom.core import host_programs
from cleanroom.model.errors import BackendUnavailable, EnvironmentFailed, UsageError
from support.container_harness import require
from support.paths import ROOT

DOCUMENT = ROOT / "docs/containers.md"

STATUS = """\
Package: redis-server
Status: install ok installed
Version: 5:7.0.15-1~deb12u5
Description: a server
 with a second line

Package: libc6
Version: 2.36-9+deb12u10
"""


def bootstrapped(plan: ImagePlan, layer: Path, mirror: str) -> None:
    """In the place of mmdebstrap: a layer with dpkg's list only."""
    with tarfile.open(layer, "w") as tar:
        member = tarfile.TarInfo("./var/lib/dpkg/status")
        member.size = len(STATUS)
        tar.addfile(member, io.BytesIO(STATUS.encode()))


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Built:
    monkeypatch.setattr(images, "_bootstrap", bootstrapped)
    return images.build(PLANS["redis"], tmp_path / "one")


def test_the_same_packages_give_the_same_bytes(built: Built, tmp_path: Path):
    """Archive and digest, wherever and whenever they are made."""
    again = images.build(PLANS["redis"], tmp_path / "two")
    assert again.digest == built.digest
    assert Path(again.archive).read_bytes() == Path(built.archive).read_bytes()


def test_the_digest_is_that_of_the_configuration(built: Built):
    """Which names the layer by its own: what an engine calls the image's id says everything that is
    in it.
    """
    with tarfile.open(built.archive) as tar:
        (manifest,) = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
        configuration = json.loads(tar.extractfile(manifest["Config"]).read())  # type: ignore[union-attr]
        assert tar.getnames() == [manifest["Config"], *manifest["Layers"], "manifest.json"]
    assert manifest["Config"] == built.digest.removeprefix("sha256:") + ".json"
    assert manifest["RepoTags"] == ["cleanroom/redis:latest"]
    assert configuration["rootfs"]["diff_ids"] == [f"sha256:{built.layer_sha256}"]


def test_packages_and_the_servers_version_are_recorded(built: Built):
    """The packages with the image, the version as the label that the services read."""
    assert built.packages == {"redis-server": "5:7.0.15-1~deb12u5", "libc6": "2.36-9+deb12u10"}
    with tarfile.open(built.archive) as tar:
        name = built.digest.removeprefix("sha256:") + ".json"
        labels = json.loads(tar.extractfile(name).read())["config"]["Labels"]  # type: ignore[union-attr]
    assert (labels["cleanroom.version"], labels["cleanroom.server"]) == ("7.0.15", "redis-server")


def test_nothing_but_the_archive_is_left(built: Built):
    """The layer is in it."""
    assert [path.name for path in Path(built.archive).parent.iterdir()] == ["cleanroom-redis.tar"]


def test_without_mmdebstrap_the_way_to_get_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """And the other way: images of one's own."""
    monkeypatch.setattr(host_programs, "SYSTEM_PATH", (str(tmp_path),))
    with pytest.raises(BackendUnavailable) as found:
        images.build(PLANS["base"], tmp_path / "images")
    assert "apt install mmdebstrap" in found.value.hint


def test_an_unknown_image_is_a_usage_error():
    """With those that there are; no name is all of them."""
    with pytest.raises(UsageError, match="base, postgres, redis"):
        images.chosen(["mysql"])
    assert [plan.name for plan in images.chosen([])] == [
        "cleanroom/base",
        "cleanroom/postgres",
        "cleanroom/redis",
    ]


def test_another_recipe_is_another_label():
    """So an image that an earlier version made is not taken for today's."""
    plan = PLANS["base"]
    changed = msgspec.structs.replace(plan, packages=(*plan.packages, "curl"))
    assert len({images.recipe(one) for one in (plan, changed, PLANS["redis"])}) == 3
    assert images.recipe(plan) == images.recipe(msgspec.structs.replace(plan))


def listed(begin: str) -> list[str]:
    """The words in backquotes on the line of the document that begins so, after that beginning."""
    line = next(line for line in DOCUMENT.read_text().splitlines() if line.startswith(begin))
    return re.findall(r"`([^`]+)`", line.removeprefix(begin))


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_the_document_lists_the_packages_of_each_image(plan: ImagePlan):
    """All of them, and no other."""
    assert listed(f"| `{plan.name}` |") == list(plan.packages)


@pytest.mark.parametrize(
    ("begin", "status"), [("There are ", 0), ("Not there are ", 127)], ids=["there", "not there"]
)
def test_the_document_tells_which_programs_the_base_image_has(begin: str, status: int):
    """Each of those that it names, as the image itself says."""
    require("docker", PLANS["base"].name)
    programs = listed(begin)
    assert len(programs) > 5
    ask = "for name; do command -v $name >/dev/null; echo $name $?; done"
    words = [
        "docker",
        "run",
        "--rm",
        "--network",
        "none",
        PLANS["base"].name,
        "sh",
        "-c",
        ask,
        "sh",
        *programs,
    ]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert dict(zip(said[::2], map(int, said[1::2]), strict=True)) == dict.fromkeys(
        programs, status
    )


@pytest.mark.skipif(host_programs.find("mmdebstrap") is None, reason="no mmdebstrap")
def test_packages_that_no_mirror_has_make_no_image(tmp_path: Path):
    """The last lines of mmdebstrap are said, and what it began is not left."""
    with pytest.raises(EnvironmentFailed, match="mmdebstrap ended with status") as failed:
        images.build(PLANS["redis"], tmp_path / "made", mirror="file:///nothing-like-it")
    assert failed.value.code == "CR-CONTAINER-012"
    assert list((tmp_path / "made").iterdir()) == []
