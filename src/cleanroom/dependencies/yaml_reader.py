"""YAML of lock files, which come with the project and may say anything. Pure.

Every scalar is its text. Read from the parser's events and not by its composer, which is recursive
and makes what aliases of aliases name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import yaml

DEPTH_MAX = 32  # pnpm's own locks have 6
VALUES_MAX = 2_000_000  # a lock of 5000 packages has a tenth of it


def read_yaml(content: bytes) -> list[Any]:
    """The documents: mappings, lists and texts.

    Raises:
        ValueError: it is no YAML that a package manager writes; the message says why and where.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    reader = _Reader()
    try:
        for event in yaml.parse(content.decode(), Loader=loader):
            reader.take(event)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"line {line}: {error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(str(error).partition("\n")[0]) from error
    return reader.documents


class _Reader:
    """Makes values of events."""

    def __init__(self) -> None:
        self.documents: list[Any] = []
        # what is open: a container, and the key in it that waits for a value
        self._open: list[tuple[dict[str, Any] | list[Any], str | None]] = []
        self._values = 0

    def take(self, event: yaml.Event) -> None:
        """Raises ValueError for what no package manager writes."""
        import yaml

        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"line {line}: an alias, which no package manager writes")
        if isinstance(event, yaml.ScalarEvent):
            self._add(event.value, line)
        elif isinstance(event, yaml.MappingStartEvent):
            self._enter({}, line)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._enter([], line)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self._open.pop()

    def _enter(self, container: dict[str, Any] | list[Any], line: int) -> None:
        if len(self._open) >= DEPTH_MAX:
            raise ValueError(f"line {line}: more than {DEPTH_MAX} levels")
        self._add(container, line)
        self._open.append((container, None))

    def _add(self, value: Any, line: int) -> None:
        self._values += 1
        if self._values > VALUES_MAX:
            raise ValueError(f"line {line}: more than {VALUES_MAX} values")
        if not self._open:
            self.documents.append(value)
            return
        container, key = self._open[-1]
        if isinstance(container, list):
            container.append(value)
        elif key is not None:
            container[key] = value
            self._open[-1] = (container, None)
        elif isinstance(value, str):
            self._open[-1] = (container, value)
        else:
            raise ValueError(f"line {line}: a key that is no text")
