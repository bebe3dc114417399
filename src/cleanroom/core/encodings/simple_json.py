"""A fast search of JSON without escapes that matter. Pure.

Nearly all events are such JSON, and are searched without being read in the three ways.
"""

from __future__ import annotations

import re

from cleanroom.core.encodings.base64_text import CODE, COLUMNS, STANDARD
from cleanroom.core.encodings.hex_digits import DIGITS, HEX_DIGIT, OFFSET, together
from cleanroom.core.encodings.needles import Needles

# An escape other than of a quote or a line break, or of a line break inside base64 or digits.
_HINT_OF_ENCODING = re.compile(
    rb'\\(?:[^n"]|n(?:(?<=%(c)b{%(n)d}\\n)|(?<=%(d)b\\n)|%(o)b%(h)b{2}))'
    % {b"c": CODE, b"n": COLUMNS, b"h": HEX_DIGIT, b"d": DIGITS, b"o": OFFSET}
)


def simple_json(text: bytes) -> bool:
    """Whether JSON has no escapes but of quotes, and of line breaks that end ordinary lines."""
    return b"%" not in text and b"&" not in text and not _HINT_OF_ENCODING.search(text)


def among_simple(text: bytes, in_base64: Needles, in_hex: Needles) -> bool:
    """Whether a needle may stand encoded in `simple_json`: True also for some texts without one."""
    return in_base64.among(text.translate(STANDARD)) or in_hex.among(together(text))
