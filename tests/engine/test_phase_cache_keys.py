"""What a cached phase depends on, and which phases stand or fall together: pure functions."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.engine.phase_cache.input_patterns import literal_folder, normalized, path_matcher
from cleanroom.engine.phase_cache.keys import (
    cache_key,
    difference,
    reason_never_skipped,
    skip_groups,
)
from cleanroom.model.policy import Level, default_policy
from cleanroom.testing import phase, plan

NAMES = st.text("abc/.* ", min_size=1, max_size=6)
PARTS = st.dictionaries(NAMES, st.text("0123", max_size=3), min_size=1, max_size=8)


@given(PARTS, st.randoms())
def test_the_order_of_parts_does_not_matter(parts: dict[str, str], shuffle):
    """The same parts in any order give the same key."""
    items = list(parts.items())
    shuffle.shuffle(items)
    assert cache_key(dict(items)) == cache_key(parts)


@given(PARTS, PARTS)
def test_different_parts_have_different_keys(one: dict[str, str], other: dict[str, str]):
    """A changed, added or missing part changes the key, and the sentence for people names it."""
    assert (cache_key(one) == cache_key(other)) == (one == other)
    assert bool(difference(one, other)) == (one != other)


@pytest.mark.parametrize(
    ("pattern", "path", "covered"),
    [
        ("src/**", "src/a.py", True),
        ("src/**", "src/a/b/c.py", True),
        ("src", "src/a/b.py", True),
        ("src/", "src/a.py", True),
        ("./src/*.py", "src/a.py", True),
        ("src/**", "source/a.py", False),
        ("**/*.py", "setup.py", True),
        ("**/*.py", "a/b/c.py", True),
        ("a/**/b.txt", "a/b.txt", True),
        ("a/**/b.txt", "a/x/y/b.txt", True),
        ("a/**/b.txt", "ab.txt", False),
        ("*.toml", "make.toml", True),
        ("file[0-9].txt", "file7.txt", True),
        ("file[!0-9].txt", "file7.txt", False),
        ("app/[slug]/page.tsx", "app/[slug]/page.tsx", True),
        ("app/[slug]/**", "app/[slug]/deep/page.tsx", True),
        ("app/[slug]/**", "app/slug/page.tsx", False),
        ("a+b(c).txt", "a+b(c).txt", True),
        (".", "anything/at/all", True),
        ("a.py", "a-py", False),
    ],
)
def test_patterns_cover_what_a_reader_expects(pattern: str, path: str, covered: bool):
    """A pattern covers a path, or all below a folder, and no more than a star may."""
    assert path_matcher((pattern,))(path) is covered


@given(
    st.lists(st.sampled_from(["a", "b", "*", "**", "?", "c.py"]), min_size=1, max_size=4).map(
        "/".join
    ),
    st.lists(st.sampled_from(["a", "b", "c.py"]), min_size=1, max_size=5).map("/".join),
)
def test_everything_covered_lies_in_the_literal_folder(pattern: str, path: str):
    """Looking only below a pattern's literal folder misses nothing that it covers."""
    start = literal_folder(pattern)
    if path_matcher((pattern,))(path):
        assert not start or path == start or path.startswith(f"{start}/")


def plain_expression(pattern: str) -> str:
    """The same as plainly as it can be said, in time without bound."""
    words = {"**/": "(?:.*/)?", "*": ".*", "?": "."}
    found = re.split(r"(\*\*/|[*?])", normalized(pattern) or "*")
    return "".join(words.get(word, re.escape(word)) for word in found)


@given(
    pattern=st.lists(st.sampled_from(["a", "b", "/", "*", "/**/", "?"]), max_size=8)
    .map("".join)
    .filter(lambda text: not text.startswith("/")),
    path=st.text("ab/", min_size=1, max_size=9),
)
def test_patterns_cover_what_they_say_plainly(pattern: str, path: str):
    """The matcher that never goes back says the same as the one that tries everything;
    more where `**/` does not begin a folder.
    """
    covered = path_matcher((pattern,))(path)
    plainly = re.fullmatch(f"(?:{plain_expression(pattern)})(?:/.*)?", path, re.DOTALL) is not None
    assert covered or not plainly
    assert covered is plainly or re.search(r"[^/]\*\*/", normalized(pattern))


@pytest.mark.parametrize(
    "pattern",
    [
        "**/" * 40 + "x",
        "*" * 60 + "x",
        "*a" * 30 + "b",
        "a*" * 25 + "/" + "a*" * 25 + "c",
        "**/a" * 30 + "b",
        "?*" * 30 + "b",
    ],
)
def test_no_pattern_takes_long(pattern: str):
    """Patterns made to be slow are not: what would take longer than the age of the machine is said
    at once.
    """
    covers = path_matcher((pattern,))
    assert not any(
        covers(path) for path in ("a/" * 60 + "y", "a" * 300, "a" * 100 + "/" + "a" * 100)
    )


def test_no_pattern_covers_nothing():
    """Without patterns no path is covered, not even the empty one."""
    assert not path_matcher(())("a")
    assert not path_matcher(())("")


SERVICES = st.lists(st.sets(st.sampled_from(["pg", "redis", "mail"]), max_size=2), max_size=10)


@given(SERVICES)
def test_groups_join_all_phases_of_a_service(wanted: list[set[str]]):
    """Every phase is in one group, in order, and two users of a service are never in different
    ones.
    """
    found = skip_groups(
        [
            phase(f"p{number}", "x", services=tuple(sorted(names)))
            for number, names in enumerate(wanted)
        ]
    )
    assert [position for group in found for position in group] == list(range(len(wanted)))
    place = {position: number for number, group in enumerate(found) for position in group}
    for one, names in enumerate(wanted):
        for other, others in enumerate(wanted):
            assert place[one] == place[other] or not names & others


@given(SERVICES)
def test_a_group_is_no_longer_than_services_make_it(wanted: list[set[str]]):
    """Between any two neighbours of a group some service is in use before and after."""
    for group in skip_groups(
        [
            phase(f"p{number}", "x", services=tuple(sorted(names)))
            for number, names in enumerate(wanted)
        ]
    ):
        for position in group[1:]:
            before, after = set().union(*wanted[:position]), set().union(*wanted[position:])
            assert before & after


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"hermetic": False}, "host"),
        ({"policy": default_policy(Level.LOW)}, "network is open"),
    ],
)
def test_effectful_phases_are_never_skipped(fields: dict, words: str):
    """On the host, or with an open network, a phase may have had an effect that no key knows."""
    subject = phase("x", "x", **fields)
    assert words in reason_never_skipped(plan(subject), subject)


def test_a_phase_with_egress_is_never_skipped():
    """What a phase did to another host is not undone by not doing it again,
    and not known either.
    """
    import msgspec

    subject = phase(
        "x",
        "x",
        policy=msgspec.structs.replace(default_policy(Level.MEDIUM), egress=("example.org:443",)),
    )
    assert reason_never_skipped(plan(subject), subject) == "it has egress"


def test_a_phase_of_a_sessions_services_is_neither_skipped_nor_remembered():
    """What other runs wrote into its database is in no key;
    without services nothing speaks against it.
    """
    using, plain = phase("x", "x", services=("pg",)), phase("y", "y")
    assert "outlive the run" in reason_never_skipped(plan(using), using, services_outlive_run=True)
    assert not reason_never_skipped(plan(using), using)
    assert not reason_never_skipped(plan(plain), plain, services_outlive_run=True)


def test_a_hermetic_phase_may_be_skipped():
    """Nothing speaks against a plain phase at Medium or High."""
    for level in (Level.MEDIUM, Level.HIGH):
        subject = phase("x", "x", policy=default_policy(level))
        assert not reason_never_skipped(plan(subject), subject)
