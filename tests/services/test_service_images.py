"""Servers that lie in images: found by what the image says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cleanroom.model.errors import ProjectError
from cleanroom.model.plan import Ready, ServiceSpec
from cleanroom.services import ImageFacts, TemplateCache, resolve

OURS = {
    "cleanroom/postgres": {"cleanroom.version": "15.13", "cleanroom.server": "postgres"},
    "cleanroom/redis": {"cleanroom.version": "7.0.15"},
}


def facts(name: str, **said: Any) -> ImageFacts:
    return ImageFacts(name=name, identity="sha256:" + "a" * 64, labels=OURS.get(name, {}), **said)


def resolved(spec: ServiceSpec, cache: Path, **said: Any):
    asked: list[str] = []

    def ask(name: str) -> ImageFacts:
        asked.append(name)
        return facts(name, **said)

    (recipe,) = resolve(
        (spec,), caller={"PATH": "/nowhere"}, root="/project", cache=TemplateCache(cache), image=ask
    )
    return recipe, asked


def test_built_in_services_have_images_of_their_own(tmp_path: Path):
    """Nothing of the host is looked at: its PATH leads nowhere here."""
    postgres, asked = resolved(ServiceSpec(name="postgres", kind="postgres"), tmp_path)
    assert (asked, postgres.image, postgres.version) == (
        ["cleanroom/postgres"],
        "cleanroom/postgres",
        "15.13",
    )
    redis, asked = resolved(ServiceSpec(name="redis", kind="redis"), tmp_path)
    assert (asked, redis.main[0], redis.programs) == (["cleanroom/redis"], "redis-server", ())


def test_programs_go_by_name_and_the_images_path_finds_them(tmp_path: Path):
    """No PATH of ours goes before the image's."""
    recipe, _ = resolved(ServiceSpec(name="postgres", kind="postgres"), tmp_path)
    assert "PATH" not in recipe.variables
    assert recipe.main[2] == "postgres"
    assert recipe.probe.kind != "exec" or recipe.probe.argv[0] == "psql"


@pytest.mark.parametrize(
    ("kind", "variables", "version", "server"),
    [
        ("postgres", {"PG_VERSION": "16.2-1.pgdg120+2", "PG_MAJOR": "16"}, "16.2", "postgres"),
        ("redis", {"REDIS_VERSION": "7.2.4"}, "7.2.4", "redis-server"),
        ("redis", {"VALKEY_VERSION": "8.0.1"}, "8.0.1", "valkey-server"),
    ],
)
def test_the_usual_images_tell_their_version(
    tmp_path: Path, kind: Any, variables: dict[str, str], version: str, server: str
):
    """By the variables that their makers set."""
    recipe, _ = resolved(
        ServiceSpec(name="it", kind=kind, image="some:1"), tmp_path, variables=variables
    )
    assert recipe.version == version
    assert server in recipe.main


def test_an_image_that_tells_nothing_needs_a_version_in_the_file(tmp_path: Path):
    """Exit 2 with the key to add; with it, it is believed."""
    spec = ServiceSpec(name="it", kind="postgres", image="silent")
    with pytest.raises(ProjectError) as found:
        resolved(spec, tmp_path)
    assert (found.value.code, "version" in found.value.hint) == ("CR-SERVICE-008", True)
    recipe, _ = resolved(
        ServiceSpec(name="it", kind="postgres", image="silent", version="16"), tmp_path
    )
    assert recipe.version == "16"


def test_data_of_one_image_is_not_taken_for_anothers(tmp_path: Path):
    """The template's key has the image's digest in it."""
    first, _ = resolved(ServiceSpec(name="it", kind="postgres"), tmp_path)
    (second,) = resolve(
        (ServiceSpec(name="it", kind="postgres"),),
        caller={},
        root="/",
        cache=TemplateCache(tmp_path),
        image=lambda name: ImageFacts(name=name, identity="sha256:" + "b" * 64, labels=OURS[name]),
    )
    assert first.template_key != second.template_key


def test_a_generic_service_runs_its_image_as_it_is(tmp_path: Path):
    """The image's command, variables and folder, unless the project says otherwise."""
    spec = ServiceSpec(
        name="mail", kind="generic", image="mail:1", ready=Ready(tcp=1025), variables={"B": "2"}
    )
    said = {
        "command": ("maild", "--all"),
        "variables": {"A": "1", "PATH": "/opt/mail/bin"},
        "working_directory": "/srv",
    }
    recipe, _ = resolved(spec, tmp_path, **said)
    assert (recipe.main, recipe.working_directory) == (("maild", "--all"), "/srv")
    assert (recipe.variables["A"], recipe.variables["B"], recipe.variables["PATH"]) == (
        "1",
        "2",
        "/opt/mail/bin",
    )
    own, _ = resolved(
        ServiceSpec(
            name="mail", kind="generic", image="mail:1", ready=Ready(tcp=1025), command=("other",)
        ),
        tmp_path,
        **said,
    )
    assert (own.main, own.working_directory) == (("other",), "/project")


def test_a_generic_service_without_an_image_is_refused(tmp_path: Path):
    """A backend of containers has no host to run it on."""
    with pytest.raises(ProjectError) as found:
        resolved(
            ServiceSpec(name="mail", kind="generic", command=("maild",), ready=Ready(tcp=1)),
            tmp_path,
        )
    assert found.value.code == "CR-SERVICE-009"
