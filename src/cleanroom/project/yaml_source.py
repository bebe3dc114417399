"""YAML files as a `Source`: the one home of PyYAML, whose safe loader composes and makes nothing.

Every scalar is its text, since files such as a compose file mean `5432:5432` and `on` as they
stand; an empty value is "". Aliases and merge keys are resolved, in bounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cleanroom.model.errors import ProjectError
from cleanroom.project.positions import DEPTH_MAX, KeyPath
from cleanroom.project.source import Source, decoded, read_bytes

if TYPE_CHECKING:
    import yaml

# A value for each character of the largest file that is read would be more than any file means;
# aliases of aliases reach any number.
_VALUES_MAX = 50_000


def read_yaml(file: Path, name: str) -> Source:
    """Read a YAML file that has a mapping.

    Raises:
        ProjectError: the file is missing, irregular, too large, not UTF-8, not YAML, no mapping,
            or its values are too deep or too many.
    """
    return parse_yaml(read_bytes(file, name), name)


def parse_yaml(data: bytes, name: str) -> Source:
    """Parse the bytes of a YAML file that has a mapping.

    Raises:
        ProjectError: they are not UTF-8, not YAML, no mapping, or too deep or too many values.
    """
    import yaml

    text = decoded(data, name)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _not_yaml(name, error.problem or "a mistake", *_place(mark)) from None
    except (yaml.YAMLError, ValueError) as error:
        raise _not_yaml(name, str(error).partition("\n")[0], 1, 1) from None
    except RecursionError:
        raise _too_much(name, 1, 1) from None
    if not isinstance(node, yaml.MappingNode):
        raise _not_yaml(name, "no mapping of names to values", *_place(node and node.start_mark))
    reader = _Reader(name)
    return Source(name, text, reader.mapping(node, ()), reader)


class _Reader:
    """Makes values of composed nodes, and keeps the place of each."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0
        self._keys: dict[KeyPath, tuple[int, int]] = {}
        self._values: dict[KeyPath, tuple[int, int]] = {}

    def key(self, path: KeyPath) -> tuple[int, int]:
        return self._find(path, self._keys)

    def value(self, path: KeyPath) -> tuple[int, int]:
        return self._find(path, self._values)

    def _find(self, path: KeyPath, places: dict[KeyPath, tuple[int, int]]) -> tuple[int, int]:
        while path:
            found = places.get(path) or self._values.get(path)
            if found:
                return found
            path = path[:-1]
        return 1, 1

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        """The values of a mapping by the text of their keys; its own go before merged ones."""
        found: dict[str, Any] = {}
        for key, value in self._pairs(node, depth=0):
            inner = (*path, key.value)
            if key.value not in found:
                self._keys[inner] = _place(key.start_mark)
                found[key.value] = self._made(value, inner)
        return found

    def _pairs(
        self, node: yaml.MappingNode, depth: int
    ) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
        """Keys and values, what merge keys name last."""
        import yaml

        self._check(node, depth)
        merged: list[yaml.Node] = []
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
            elif isinstance(key, yaml.ScalarNode):
                yield key, value
        for each in merged:
            if isinstance(each, yaml.MappingNode):
                yield from self._pairs(each, depth + 1)

    def _made(self, node: yaml.Node, path: KeyPath) -> Any:
        import yaml

        self._check(node, len(path))
        self._values[path] = _place(node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._made(item, (*path, index)) for index, item in enumerate(node.value)]
        empty = node.tag == "tag:yaml.org,2002:null"
        return "" if empty else str(node.value)

    def _check(self, node: yaml.Node, depth: int) -> None:
        self._count += 1
        if self._count > _VALUES_MAX or depth > DEPTH_MAX:
            raise _too_much(self._name, *_place(node.start_mark))


def _place(mark: Any) -> tuple[int, int]:
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _not_yaml(name: str, found: str, line: int, column: int) -> ProjectError:
    return ProjectError(
        "CR-PROJECT-003",
        f"expected YAML, found: {found}",
        hint="correct the line, or the indentation before it",
        where=f"{name}:{line}:{column}",
    )


def _too_much(name: str, line: int, column: int) -> ProjectError:
    return ProjectError(
        "CR-PROJECT-004",
        f"expected at most {_VALUES_MAX} values and {DEPTH_MAX} levels of them, found more",
        hint="no key that means anything is nested so deeply, or so often: remove it",
        where=f"{name}:{line}:{column}",
    )
