"""docs/benchmarks.md: one section per benchmark, each with where its numbers come from,
so that some can be measured again without the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from bench.figures import Figure, as_markdown

HEAD = """\
# Benchmarks

Written by `python -m bench --write` (`make bench` measures without writing),
or section by section by `python -m bench NAME --write`; not edited by hand.
A number is the median of n measurements with the lowest and the highest;
what is compared was measured in turn, and a difference or ratio is that of neighbours.
Targets are goals, never conditions of a test.
Each section says on what machine and at which commit it was measured,
how busy that machine was before, and how long five million multiplications in Python took there and
then (the yardstick): a virtual machine is not equally fast every day,
so numbers of different sections are to be compared only where these agree.
"""


def section(
    name: str, documentation: tuple[str, str], machine: Mapping[str, str], figures: Sequence[Figure]
) -> str:
    """One benchmark: its question, its workload, where it was measured, its table."""
    question, workload = documentation
    return f"## {name}: {question}\n\n{workload}\n\n{origin(machine)}\n\n{as_markdown(figures)}\n"


def origin(machine: Mapping[str, str]) -> str:
    """Where numbers come from, in one line."""
    where = ", ".join(
        (
            machine["processor"],
            f"{machine['cores']} cores",
            machine["memory"],
            machine["kernel"],
            machine["Python"],
            machine["user"],
            f"load before {machine['load before']}",
            f"yardstick {machine['yardstick']}",
        )
    )
    return f"Measured {machine['date']} at {machine['commit']}: {where}."


def merged(before: str, new: Mapping[str, str], order: Sequence[str]) -> str:
    """The document with the sections `new`; those that it had of other benchmarks stay as they are,
    one whose benchmark is gone goes.
    """
    kept = {
        match[1]: text
        for text in re.split(r"(?m)^(?=## )", before)
        if (match := re.match(r"## (\w+): ", text))
    }
    found = {**kept, **new}
    return "\n".join([HEAD, *(found[name].strip("\n") + "\n" for name in order if name in found)])
