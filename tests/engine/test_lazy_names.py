"""The names that packages load on first use are listed twice, and both lists say the same."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

PACKAGES = ("cleanroom", "cleanroom.engine")


def names_for_the_type_checker(package: str) -> dict[str, str]:
    """Name -> module, as the `if TYPE_CHECKING` block imports them."""
    module = importlib.import_module(package)
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text())
    blocks = (
        node.body
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    imports = (node for block in blocks for node in block if isinstance(node, ast.ImportFrom))
    return {alias.name: node.module or "" for node in imports for alias in node.names}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_type_checker_and_the_interpreter_know_the_same_names(package: str):
    """Each name, and the module that it is loaded from."""
    module = importlib.import_module(package)
    homes = {
        name: home if home.startswith("cleanroom.") else f"{package}.{home}"
        for name, home in module._HOMES.items()
    }
    assert names_for_the_type_checker(package) == homes
    assert sorted(module.__all__) == sorted(homes)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_can_be_loaded(package: str):
    """A name whose module lost it would be noticed by a user first."""
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is not None
