"""What starts by itself under the names that links give it."""

from __future__ import annotations

import pytest

from cleanroom.engine.phases.project_links import HOPS_MAX, ProjectLinks, resolve

TOPS = ("/home/project",)


def leading(links: dict[str, str]) -> dict[str, str]:
    ways = {link: resolve(link, TOPS, links.get) for link in links}
    return {link: way.end for link, way in ways.items() if way.end is not None}


COUNTED = [
    ({".cargo": "cfg"}, "cfg/config.toml", "cargo and rust-analyzer through .cargo"),
    ({".vscode": "cfg"}, "cfg/deep/tasks.json", "Visual Studio Code through .vscode"),
    (
        {".vscode": "a", "a": "b", "b": "cfg"},
        "cfg/tasks.json",
        "Visual Studio Code through .vscode",
    ),
    ({".vscode": "cfg", "cfg/in": "../far"}, "far/x", "Visual Studio Code through .vscode"),
    (
        {".github": "g", "g/workflows": "../wf"},
        "wf/ci.yml",
        "continuous integration through .github/workflows",
    ),
    ({".github": "g"}, "g/workflows/ci.yml", "continuous integration through .github"),
    ({".envrc": "x"}, "x", "direnv through .envrc"),
    ({".cargo": "c", "c/config.toml": "../x"}, "x", "cargo and rust-analyzer through .cargo"),
    ({"sub/.vscode": "/home/project/cfg"}, "cfg/x", "Visual Studio Code through sub/.vscode"),
    ({".VSCode": "."}, "any/thing", "Visual Studio Code through .VSCode"),
    ({"bin": "out"}, "out/tool", "whatever a PATH leads to through bin"),
    ({"bin/tool": "../out/made"}, "out/made", "whatever a PATH leads to through bin/tool"),
]


@pytest.mark.parametrize(("links", "path", "by"), COUNTED, ids=lambda value: str(value))
def test_what_lies_behind_a_link_counts_under_its_name(links, path: str, by: str):
    """However many links lead there, of folders and of files, relative and absolute."""
    said = ProjectLinks(leading(links)).started_by(path)
    assert said.partition(" through ")[0] == by.partition(" through ")[0]
    assert " through " in said


NOT_COUNTED = [
    ({".cargo": "cfg"}, "cfg/other"),
    ({".cargo": "cfg"}, "cfg2/config.toml"),
    ({"bin": "out"}, "out/deep/thing"),
    ({"bin/lib": "../lib"}, "lib/thing"),
    ({".vscode": "../cfg"}, "cfg/tasks.json"),
    ({"a": "b", "b": "a", "self": "."}, "src/x"),
    ({"node_modules/p/.vscode": "../../cfg"}, "cfg/tasks.json"),
]


@pytest.mark.parametrize(("links", "path"), NOT_COUNTED, ids=lambda value: str(value))
def test_other_links_count_nothing(links, path: str):
    """What no tool would find by a link's name is no news, nor is a circle."""
    assert ProjectLinks(leading(links)).started_by(path) == ""


@pytest.mark.parametrize("link", [".cargo", ".vscode", "deep/bin", ".github", "node_modules/.bin"])
def test_a_link_in_the_place_of_a_folder_of_the_table_counts(link: str):
    """Also where only some names in such a folder do; a file or folder of that name does not."""
    assert ProjectLinks().started_by(link, is_link=True) != ""
    assert ProjectLinks().started_by(link, is_folder=True) == ""


def test_links_are_followed_as_far_as_the_kernel_follows_them():
    """A chain of folders, each behind a link of the one before, counts to its end."""
    links = {".vscode": "d0"} | {f"d{n}/next": f"../d{n + 1}" for n in range(HOPS_MAX - 1)}
    linked = ProjectLinks(leading(dict(reversed(links.items()))))
    assert linked.started_by(f"d{HOPS_MAX - 1}/tasks.json") != ""


WAYS = [
    ("a/b", {}, ((), "a/b")),
    ("a/b", {"a": "c/d"}, (("a",), "c/d/b")),
    ("a", {"a": "x/../b"}, (("a",), "b")),
    ("a", {"a": "/home/project/b", "b": "/elsewhere"}, (("a", "b"), None)),
    ("a", {"a": "/home/project"}, (("a",), "")),
    ("a", {"a": "../out"}, (("a",), None)),
]


@pytest.mark.parametrize(("path", "links", "way"), WAYS, ids=lambda value: str(value))
def test_a_path_is_followed_through_its_links(path: str, links, way):
    """Step by step, by text that is relative or absolute, and never out of the project."""
    assert resolve(path, TOPS, links.get)[:2] == way


def test_a_circle_leads_nowhere():
    """Following it ends."""
    assert resolve("a/x", TOPS, {"a": "b", "b": "a"}.get).end is None
