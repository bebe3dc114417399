"""How `cleanroom.egress` is written, what a policy makes of it, and what the floor allows."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cleanroom.model.errors import PolicyRefused, ProjectError
from cleanroom.model.policy import Policy
from cleanroom.project.floor import _covers
from cleanroom.project.keys import EgressKeys
from support.project_builder import HEAD, planned

PHASE = HEAD + '[lifecycle.test]\ncommand = "true"\n'
LABEL = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,8}[A-Za-z0-9])?", fullmatch=True)
NAMES = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
HOSTS = st.one_of(NAMES, NAMES.map(lambda name: f"*.{name}"), st.ip_addresses().map(str))
PORTS = st.integers(1, 65535)


def policy_of(folder: Path, egress: str, floor: str = "") -> Policy:
    """The policy of a phase with this egress."""
    file = folder / "floor.toml"
    file.write_text(floor)
    text = PHASE + f"cleanroom.egress = {egress}\n"
    return planned(folder / "project", text, "test", floor=file).phases[0].policy


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(HOSTS, PORTS, st.booleans())
def test_both_forms_of_an_entry_mean_the_same(tmp_path: Path, host: str, port: int, private: bool):
    """A table is its "host:port", and `private` is the one thing that only it can say."""
    name = EgressKeys(host=host, port=port).name
    told = str(private).lower()
    table = f'{{ host = "{host}", port = {port}, private = {told} }}'
    text, tables = policy_of(tmp_path, f'["{name}"]'), policy_of(tmp_path, f"[{table}]")
    assert text.egress == tables.egress == (name,)
    assert not text.opens_private(name)
    assert tables.opens_private(name) is private
    assert msgspec.convert(msgspec.to_builtins(tables), Policy) == tables
    assert msgspec.json.decode(msgspec.json.encode(tables), type=Policy) == tables
    if not private:
        assert msgspec.json.encode(text) == msgspec.json.encode(tables)


def test_an_entry_counts_once_and_its_port_is_https(tmp_path: Path):
    """The JSON of a policy without a private host has no word of them."""
    entries = '["a.example:443", { host = "a.example" }, { host = "[fd00::1]", port = 80 }]'
    policy = policy_of(tmp_path, entries)
    assert policy.egress == ("a.example:443", "[fd00::1]:80")
    assert b"private" not in msgspec.json.encode(policy)


@pytest.mark.parametrize(
    "entry",
    [
        '"*:443"',
        '"*example.org:443"',
        '"a.*.example.org:443"',
        '"*.*.example.org:443"',
        '"a.example:65536"',
        '"a.example:0"',
        '"a.example:\\u0664\\u0664"',
        '"a.example"',
        '"a.example:443:public"',
        "443",
        "{ port = 443 }",
        '{ host = "a.example", port = 0 }',
        '{ host = "a.example:80" }',
        '{ host = "a b" }',
        '{ host = "" }',
        '{ host = "*" }',
        '{ host = "a\\nb" }',
        '{ host = "a.example", privat = true }',
        '{ host = "a.example", private = "yes" }',
    ],
)
def test_an_entry_that_names_no_host_is_refused(tmp_path: Path, entry: str):
    """With the line, and never later than the plan."""
    with pytest.raises(ProjectError) as refused:
        policy_of(tmp_path, f"[{entry}]")
    assert refused.value.where.endswith(tuple("0123456789"))


FLOOR = 'egress = ["*.example.org:443", "one.example:*", { host = "*.corp", port = 8443, '
FLOOR += 'private = true }, { host = "fd00::1", port = "*", private = true }]'


@pytest.mark.parametrize(
    ("entry", "allowed"),
    [
        ('"a.example.org:443"', True),
        ('"*.example.org:443"', True),
        ('"*.deep.example.org:443"', True),
        ('"*.org:443"', False),
        ('"*.example:443"', False),
        ('"one.example:8080"', True),
        ('{ host = "a.example.org", private = true }', False),
        ('"nexus.corp:8443"', True),
        ('{ host = "nexus.corp", port = 8443, private = true }', True),
        ('{ host = "*.corp", port = 8443, private = true }', True),
        ('{ host = "nexus.corp", private = true }', False),
        ('{ host = "fd00::1", port = 22, private = true }', True),
    ],
)
def test_the_floor_judges_every_form(tmp_path: Path, entry: str, allowed: bool):
    """A private host needs an entry of the floor that says private; a pattern one that covers it
    whole.
    """
    if allowed:
        policy_of(tmp_path, f"[{entry}]", FLOOR)
        return
    with pytest.raises(PolicyRefused) as refused:
        policy_of(tmp_path, f"[{entry}]", FLOOR)
    assert refused.value.code == "CR-POLICY-002"


@pytest.mark.parametrize(
    "floor",
    [
        "egress = [{ port = 443 }]",
        'egress = [{ host = "a", privat = true }]',
        'egress = [{ host = "a", private = 1 }]',
        'egress = [{ host = "a", port = "443" }]',
        "egress = [443]",
    ],
)
def test_a_floor_that_cannot_be_read_refuses(tmp_path: Path, floor: str):
    """Going on could be below what it says."""
    with pytest.raises(PolicyRefused) as refused:
        policy_of(tmp_path, '["a.example:443"]', floor)
    assert refused.value.code == "CR-POLICY-002"


STARS = st.lists(st.sampled_from(["*", "?", "[!a]", "[*]", "a", "b", "."]), max_size=6)


@given(NAMES, STARS.map("".join), LABEL)
def test_a_floor_that_covers_a_pattern_covers_each_name_of_it(name: str, stars: str, label: str):
    """Whatever its own pattern has of stars, question marks and brackets."""
    for pattern in (f"{stars}.{name}:443", f"{stars}:443", stars, f"{stars}{name}:*"):
        entry = EgressKeys(host=f"*.{name}")
        if _covers(entry, pattern):
            for first in (label, "a", "b.a", "x"):
                assert _covers(EgressKeys(host=f"{first}.{name}"), pattern)


@pytest.mark.parametrize("asked", ["init", "test"])
def test_a_plan_says_that_a_phase_fetches_whether_it_is_asked_for_or_not(
    tmp_path: Path, asked: str
):
    """What it fetched in an earlier run is there for this one."""
    text = PHASE + '[lifecycle.init]\ncommand = "true"\n'
    assert not planned(tmp_path, text, asked).fetching
    text += 'cleanroom.egress = ["a.example:443"]\n'
    assert planned(tmp_path, text, asked).fetching
