"""What there is to say of one code."""

from __future__ import annotations

import re
import textwrap
from typing import NamedTuple

_CONTINUED = re.compile(r"\\\n\s*")


class Code(NamedTuple):
    """An error code, explained. Text and example stand indented in triple quotes."""

    code: str
    title: str  # one line, without a full stop

    # Cause and what helps: one paragraph, one sentence a line.
    text: str

    # Commands, each after `$ `, or lines of make.toml. A backslash at the end of a line joins it
    # with the next one, as in TOML; the string has to be a raw one then.
    example: str

    @property
    def paragraph(self) -> str:
        """The text as one line."""
        return " ".join(self.text.split())

    @property
    def example_lines(self) -> list[str]:
        """The example as it is typed or written."""
        return _CONTINUED.sub("", textwrap.dedent(self.example)).strip().splitlines()

    @property
    def is_command(self) -> bool:
        """Whether the example is typed, and not written into make.toml."""
        return self.example.lstrip().startswith("$ ")
