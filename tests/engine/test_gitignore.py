"""Git's ignore patterns, against the real git."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cleanroom.engine.phases import gitignore

# Paths of the scratch repository; folders end with a slash.
TREE = (
    "a",
    "ab",
    "b.c",
    ".x",
    "a b",
    "a ",
    "#a",
    "!a",
    "[a]",
    "a*",
    "a-b",
    "é",
    "]",
    "Z",
    "9",
    "d/",
    "d/a",
    "d/b.c",
    "d/d/",
    "d/d/a",
    "d/d/x.o",
    "d/d/d/",
    "d/d/d/b",
    "e.f/",
    "e.f/a",
    "e.f/.x",
    "build/",
    "build/out",
    "build/keep/",
    "build/keep/a",
    "sub/build/",
    "sub/build/out",
    "sub/",
    "sub/a",
)
TABLE = (
    ("a",),
    ("a/",),
    ("/a",),
    ("d/",),
    ("d/a",),
    ("/d/a",),
    ("*",),
    ("*", "!a"),
    ("*.c",),
    ("**",),
    ("**/a",),
    ("d/**",),
    ("d/**/a",),
    ("**/d/",),
    ("**/d/a",),
    ("a**",),
    ("*/a",),
    ("?",),
    ("[ab]",),
    ("[!a]",),
    ("[^a]",),
    ("[]]",),
    ("[!]]",),
    ("[a-c]",),
    ("[a-]",),
    ("[-a]",),
    ("[c-a]",),
    ("[a",),
    ("[[:upper:]]", "[[:digit:]]"),
    ("[[:alpha:]]b",),
    ("[[:nonsense:]]",),
    ("[[:x",),
    ("[[:]",),
    ("\\#a",),
    ("#a",),
    ("\\!a",),
    ("!a",),
    ("a\\ ",),
    ("a ",),
    ("a  ",),
    ("a\\",),
    ("\\a",),
    ("\\[a\\]",),
    ("[a]",),
    ("a\\*",),
    ("a*",),
    ("é",),
    ("??",),
    ("build/", "!build/keep/"),
    ("build/*", "!build/keep"),
    ("/build", "sub/*"),
    ("!a", "a"),
    ("a", "!a"),
    ("", "/", "//", "!"),
    ("\ufeffa",),
    ("a\r",),
    ("*.o", "!d/d/x.o"),
    ("*/", "!d/"),
    ("d/d", "!d/d/a"),
    ("/*", "!/d"),
    ("/**",),
    ("**/",),
    ("d//a",),
    ("***/a",),
    ("d/***/b",),
    ("e.f/*",),
    ("[.]x",),
    ("d/[/]a",),
)
ATOMS = (
    "a",
    "b",
    "c",
    "d",
    ".",
    "*",
    "**",
    "?",
    "[ab]",
    "[!a]",
    "[a-d]",
    "[]a]",
    "[[:alpha:]]",
    "[[:punct:]]",
    "\\*",
    "\\a",
    "[",
    "-",
    " ",
    "\\ ",
    "#",
    "!",
    "é",
    "[a-]",
    "[\\]]",
    "[b-a]",
    "[-a]",
)


class Repository:
    """A scratch repository with files, whose git reads no configuration of this machine."""

    def __init__(self, root: Path, tree: Sequence[str]) -> None:
        self.root = root
        self.tree = tree
        nothing = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(root)}
        self.environment = {**os.environ, **nothing, "XDG_CONFIG_HOME": str(root / ".none")}
        self.git("init", "-q", ".")
        for path in tree:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            if path.endswith("/"):
                (root / path).mkdir(exist_ok=True)
            else:
                (root / path).write_text("")

    def git(self, *words: str, given: bytes = b"") -> bytes:
        argv, env = ("git", *words), self.environment
        done = subprocess.run(argv, cwd=self.root, env=env, input=given, capture_output=True)
        assert done.returncode in (0, 1), done.stderr
        return done.stdout

    def ignored(self, *options: str) -> set[str]:
        """The paths of the tree that git ignores."""
        asked = b"".join(os.fsencode(path.rstrip("/")) + b"\0" for path in self.tree)
        said = self.git("check-ignore", "-z", "--stdin", *options, given=asked)
        return {os.fsdecode(path) for path in said.split(b"\0")} - {""}


def ours(lines: Sequence[str], tree: Sequence[str]) -> set[str]:
    patterns = gitignore.parse("\n".join(lines).encode())

    def ignored(path: str) -> bool:
        above = path.rstrip("/").rpartition("/")[0]
        folder = path.endswith("/")
        found = gitignore.verdict(patterns, path.rstrip("/").encode(), folder)
        return bool((above and ignored(f"{above}/")) or found)

    return {path.rstrip("/") for path in tree if ignored(path)}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository(tmp_path_factory.mktemp("repository"), TREE)


def test_patterns_mean_what_they_mean_to_git(repository: Repository):
    """Anchors, negation, folders, sets, escapes, spaces, ends of lines: the same paths are
    ignored as by git."""
    for lines in TABLE:
        (repository.root / ".gitignore").write_bytes("\n".join(lines).encode())
        assert ours(lines, TREE) == repository.ignored("--no-index"), lines


def component(rng: random.Random) -> str:
    if rng.random() < 0.3:
        return rng.choice(("*", "**"))
    return "".join(rng.choice(ATOMS) for _ in range(rng.choice((1, 1, 2, 3))))


def drawn(rng: random.Random) -> Iterator[str]:
    """Patterns that nobody would write."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        text = "/".join(component(rng) for _ in range(rng.choice((1, 1, 2, 3))))
        yield rng.choice(("", "", "!")) + rng.choice(("", "", "/")) + text + rng.choice(("", "/"))


def differs_by_design(lines: Sequence[str]) -> bool:
    """Git takes `**` for any number of folders also behind plain text (`a**/b`), against its
    own documentation."""
    return any("**" in part and part.strip("*!") for line in lines for part in line.split("/"))


def test_random_patterns_mean_what_they_mean_to_git(repository: Repository):
    """Two hundred drawn ignore files ignore the same paths as git does."""
    rng = random.Random(12)
    tried = 0
    while tried < 200:
        lines = list(drawn(rng))
        if differs_by_design(lines):
            continue
        tried += 1
        (repository.root / ".gitignore").write_bytes("\n".join(lines).encode())
        assert ours(lines, TREE) == repository.ignored("--no-index"), lines


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        (b"report.[0-9]*.[0-9]*.[0-9]*.[0-9]*.json", b"report." + b"0." * 124),
        (b"*a" * 120 + b"b", b"a" * 255),
        (b"**/" + b"a*" * 100 + b"b", (b"a" * 250 + b"/") * 16),
        (b"**/a/" * 300 + b"b", b"a/" * 2000 + b"a"),
        (b"a/**/" * 300 + b"b", b"a/" * 2000 + b"a"),
        (b"[a-z]*" * 600 + b"/x", b"a" * 255 + b"/y"),
    ],
)
def test_no_pattern_takes_more_time_than_its_length_times_the_paths(pattern: bytes, path: bytes):
    """Patterns over which a backtracking matcher sits for ever are done with; this ends, or it
    fails by its timeout."""
    patterns = gitignore.parse(b"\n".join([pattern] * 20))
    for _ in range(100):
        assert gitignore.verdict(patterns, path, False) is None


def test_a_flood_of_patterns_is_cut():
    """A file of a million lines gives so many patterns and no more; one longer than a path
    gives none."""
    assert len(gitignore.parse(b"a\n" * 1_000_000)) == gitignore.PATTERNS_MAX
    assert gitignore.parse(b"a" * (gitignore.PATTERN_BYTES_MAX + 1)) == ()
