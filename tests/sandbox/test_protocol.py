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
from cleanroom.backends import keeper
from cleanroom.sandbox import protocol

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
    assert {node.module for node in found if isinstance(node, ast.ImportFrom)} == {"__future__", "typing"}
    assert not [node for node in found if isinstance(node, ast.Import)]


def test_the_contract_costs_the_forked_processes_nothing():
    """A keeper, of which the others are forks, never imports it."""
    look = "import sys; sys.exit('cleanroom.sandbox.protocol' in sys.modules)"
    program = keeper.PROGRAM.replace("main()", f"from cleanroom.sandbox import container; {look}")
    subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True)
