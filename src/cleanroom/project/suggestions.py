"""What was probably meant by a key or a name that has no effect. Pure.

Each answer is a question for the list of ignored keys; empty where nothing is likely.
"""

from __future__ import annotations

from collections.abc import Iterable

from cleanroom.project.keys import Place, SettingKeys, keys_of
from cleanroom.project.source import nearest

# Projects have tables of other tools and of their own: a little like one of ours is none.
_LIKENESS_OF_TABLES = 0.8
_HOOKS = {"pre": "before", "post": "after"}


def word(written: str, known: Iterable[str]) -> str:
    """One of these words, or nothing."""
    close = nearest(written, known)
    return f"did you mean {close!r}?" if close else ""


def setting(key: str, place: Place = "phase", *, likeness: float = 1.0) -> str:
    """A setting of ours that was written without `cleanroom.` before it."""
    known = [name for name, (_, info) in keys_of(SettingKeys).items() if place in info.at]
    close = nearest(key, known, likeness=likeness)
    return f"did you mean 'cleanroom.{close}'?" if close else ""


def phase_key(key: str, known: Iterable[str]) -> str:
    """A key of a phase: one of `known`, or a setting of ours."""
    return setting(key) or word(key, known) or setting(key, likeness=0.75)


def table(key: str, known: Iterable[str]) -> str:
    """A table of a file: one of `known`, or a setting of the whole project."""
    close = nearest(key, known, likeness=_LIKENESS_OF_TABLES)
    return f"did you mean {close!r}?" if close else setting(key, "project")


def hook(key: str) -> str:
    """A key of `[hooks]` that neither begins with `before_` nor with `after_`."""
    when, _, of = key.partition("_")
    close = _HOOKS.get(when) or nearest(when, _HOOKS.values())
    return f"did you mean '{close}_{of}'?" if close and of else ""
