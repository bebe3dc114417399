"""The contract between engine and sandbox is whole: who writes it, who reads it, what it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args, get_type_hints, is_typeddict

import pytest

import cleanroom
from cleanroom.sandbox import channel, protocol

ROOMS = ("backends", "sandbox")


@cache
def sources() -> tuple[ast.Module, ...]:
    """Every module that builds or reads what is in the contract."""
    package = Path(cleanroom.__file__).parent
    files = [path for room in ROOMS for path in sorted((package / room).rglob("*.py"))]
    return tuple(ast.parse(path.read_text()) for path in files if path.name != "protocol.py")


def nodes(kind: type) -> Iterator[ast.AST]:
    return (node for module in sources() for node in ast.walk(module) if isinstance(node, kind))


@cache
def keys_read() -> frozenset[object]:
    """Constant keys that some module looks up."""
    found = (node for node in nodes(ast.Subscript) if isinstance(node.ctx, ast.Load))
    return frozenset(node.slice.value for node in found if isinstance(node.slice, ast.Constant))


@cache
def built() -> tuple[dict[object, object], ...]:
    """Dictionaries that are written out, as their constant keys with their constant values."""
    return tuple(
        {
            key.value: value.value if isinstance(value, ast.Constant) else None
            for key, value in zip(node.keys, node.values, strict=True)
            if isinstance(key, ast.Constant)
        }
        for node in nodes(ast.Dict)
    )


@cache
def cases() -> frozenset[object]:
    """Constants that some `match` has a case for."""
    patterns = (node.pattern for node in nodes(ast.match_case))
    values = (part for pattern in patterns for part in ast.walk(pattern))
    found = (part.value for part in values if isinstance(part, ast.MatchValue))
    return frozenset(value.value for value in found if isinstance(value, ast.Constant))


def groups(kind: object) -> Iterator[type]:
    """The dictionaries of which a specification consists, itself among them."""
    if is_typeddict(kind):
        yield kind
        for hint in get_type_hints(kind).values():
            if hint != list[protocol.MountOp]:
                yield from groups(hint)
    for part in get_args(kind):
        yield from groups(part)


SPEC = list(dict.fromkeys(groups(protocol.SandboxSpec)))


@pytest.mark.parametrize("group", SPEC)
def test_each_group_of_a_specification_is_built_in_one_place(group: type):
    """Three backends, one spelling of its keys: they cannot drift apart."""
    keys = set(get_type_hints(group))
    assert len([made for made in built() if set(made) == keys]) == 1


@pytest.mark.parametrize("group", SPEC)
def test_each_key_of_a_specification_is_read_by_somebody(group: type):
    """What nobody reads is not told."""
    assert set(get_type_hints(group)) <= keys_read()


def test_each_kind_of_mount_is_made_by_a_builder_and_carried_out():
    """Neither a mount that nobody asks for nor one that nobody knows."""
    kinds = {get_args(get_type_hints(kind)["kind"])[0] for kind in get_args(protocol.MountOp)}
    assert len(kinds) == len(get_args(protocol.MountOp))
    assert kinds <= {made.get("kind") for made in built()}
    assert kinds <= cases()


def test_the_contract_imports_nothing_but_the_standard_library():
    """A backend of any kind can build it."""
    source = ast.parse(Path(protocol.__file__).read_text())
    found = [node for node in ast.walk(source) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {node.module for node in found if isinstance(node, ast.ImportFrom)} == {
        "__future__",
        "typing",
    }
    assert not [node for node in found if isinstance(node, ast.Import)]


def test_the_contract_costs_nothing_at_run_time():
    """Types for the checker: neither a keeper, of which the others are forks,
    nor an engine imports it.
    """
    rooms = (
        "backends.containers.backend",
        "backends.embedded.backend",
        "sandbox.processes.warden_container",
        "sandbox.processes.keeper",
    )
    look = "import sys; sys.exit('cleanroom.sandbox.protocol' in sys.modules)"
    imports = "; ".join(f"import cleanroom.{room}" for room in rooms)
    subprocess.run([sys.executable, "-c", f"{imports}; {look}"], check=True)


def travelling() -> dict[str, tuple[channel.Direction, set[type]]]:
    """Each direction of a channel with the messages that its annotation says."""
    found = {}
    for name, annotation in channel.__annotations__.items():
        if annotation.startswith("Direction["):
            union = eval(annotation.removeprefix("Direction"), {"protocol": protocol})[0]
            found[name] = (getattr(channel, name), set(get_args(union) or (union,)))
    return found


TRAVELLING = travelling()
MESSAGES = set().union(*(kinds for _, kinds in TRAVELLING.values()))


def tags_of(kind: type, key: str) -> set[object]:
    return set(get_args(get_type_hints(kind)[key]))


@pytest.mark.parametrize("name", TRAVELLING)
def test_a_direction_takes_the_tags_of_its_messages_and_no_others(name: str):
    """What is checked where bytes come in is what the types say, and each tag says one type."""
    direction, kinds = TRAVELLING[name]
    tags = [tag for kind in kinds for tag in tags_of(kind, direction.key)]
    assert sorted(tags) == sorted(direction.tags)


def test_each_message_of_the_contract_travels_somewhere():
    """A type that no channel carries is a wish."""
    tagged = {
        kind
        for kind in vars(protocol).values()
        if is_typeddict(kind) and {"op", "kind"} & set(get_type_hints(kind))
    }
    assert tagged - set(get_args(protocol.MountOp)) == MESSAGES


@pytest.mark.parametrize("kind", sorted(MESSAGES, key=lambda kind: kind.__name__))
def test_each_message_is_sent_and_received(kind: type):
    """It is written out somewhere; what is told apart from others has a case of its own."""
    hints = get_type_hints(kind)
    key = "op" if "op" in hints else "kind"
    assert any(set(made) == set(hints) for made in built())
    alone = [kinds for _, kinds in TRAVELLING.values() if kinds == {kind}]
    assert alone or tags_of(kind, key) <= cases()


@pytest.mark.parametrize("message", [{}, {"op": "mint"}, {"kind": "ended"}, {"op": ["kill"]}])
def test_a_message_that_nobody_knows_is_refused_where_it_comes_in(message: dict[str, object]):
    """By its tag, before anybody reads a key of it."""
    ours, theirs = channel.pair()
    with ours, theirs:
        channel.send(ours, message)
        with pytest.raises(ValueError, match="is none of"):
            channel.WARDEN_ORDERS.receive(theirs)
