"""Where a link of a project leads: what is refused, and what comes back."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from cleanroom.sandbox.filesystem.links import why_refused

ROOT = "/home/u/project"
VISIBLE = ("/usr", "/home/u/.pyenv")
# What lies in the project: links, and all else is a folder, a file, or not there.
LINKS = {
    "up": "sub/deep",
    "data": "/mnt/data",
    "sub/self": ".",
    "circle": "circle",
    "py": "/usr/bin",
}


def judged(path: str, target: str) -> str:
    return why_refused(path, target, ROOT, VISIBLE, LINKS.get)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("a", "sub/file"),
        ("a", "not/there/yet"),
        ("sub/deep/a", "../../b"),
        ("a", ROOT),
        ("a", f"{ROOT}/sub/./x"),
        ("a", "/usr/bin/python3"),
        (".venv/bin/python", "/home/u/.pyenv/versions/3.11/bin/python3.11"),
        (".venv/bin/python3", "python"),
        ("a", "up/file"),
        ("sub/a", "self/self/x"),
        ("a", "py/python3"),
        ("node_modules/.bin/tool", "../up/tool.js"),
        ("a", "circle/x"),
    ],
)
def test_a_link_that_stays_where_a_phase_sees_comes_back(path: str, target: str) -> None:
    """Inside, also through other links, and to folders that are shown inside."""
    assert judged(path, target) == ""


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("a", "/etc/passwd"),
        ("a", "../outside"),
        ("sub/a", "../../outside"),
        ("a", f"{ROOT}x/file"),
        ("a", "/usrx"),
        ("a", "/home/u/.pyenv/../.ssh/id"),
        ("a", "/usr/../etc/passwd"),
        # By its text it stays inside; through the link `up` or `sub/self` it does not.
        ("a", "up/../../../etc/passwd"),
        ("a", "sub/self/../../x"),
        ("a", "data/file"),
        ("a", "py/../../etc/passwd"),
        # What is a folder now may be a link later.
        ("a", "sub/deep/../../b"),
    ],
)
def test_a_link_that_leads_out_or_may_later_is_refused(path: str, target: str) -> None:
    """Judged step by step, never by its text."""
    assert judged(path, target) != ""


@pytest.mark.parametrize("seed", range(40))
def test_the_kernel_goes_where_it_was_judged_to_go(tmp_path: Path, seed: int) -> None:
    """Links that were let in one after the other, each judged with those before: none leads out."""
    choose = random.Random(seed)
    root = tmp_path / "top" / "project"
    folders = ["", "f", "f/g", "h"]
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)

    def link_at(path: str) -> str | None:
        place = root / path
        return os.readlink(place) if place.is_symlink() else None

    for number in range(60):
        words = choose.choices(["..", "f", "g", "h", "l1", "l2", "l3"], k=choose.randint(1, 5))
        target = choose.choice(["", "", f"{root}/"]) + "/".join(words)
        path = os.path.join(choose.choice(folders), f"l{number % 4}")
        if (root / path).is_symlink():
            (root / path).unlink()
        if not why_refused(path, target, str(root), (), link_at):
            (root / path).symlink_to(target)
    links = [path for path in root.rglob("*") if path.is_symlink()]
    assert links
    for link in links:
        try:
            led = os.path.realpath(link, strict=True)
        except OSError:  # nowhere, or in a circle
            continue
        assert Path(led).is_relative_to(root), (link, os.readlink(link))
