"""docs/benchmarks.md is written section by section, and each section says where its numbers come
from.
"""

from __future__ import annotations

from bench.document import merged, section
from bench.figures import Figure

MACHINE = {
    "date": "2026-01-01 00:00 UTC",
    "commit": "abc",
    "processor": "P",
    "cores": "2",
    "memory": "8 GiB",
    "kernel": "Linux 6",
    "Python": "CPython 3.11",
    "user": "root",
    "load before": "0.5",
    "yardstick": "400 ms",
}


def written(name: str, value: float, commit: str = "abc") -> str:
    figure = Figure(benchmark=name, name="n", unit="ms", values=(value,))
    return section(
        name, (f"How fast is {name}?", "Workload: w."), MACHINE | {"commit": commit}, [figure]
    )


def test_a_section_says_its_machine_and_commit():
    """Numbers never stand without where they were measured."""
    text = written("one", 1)

    assert (
        "Measured 2026-01-01 00:00 UTC at abc: P, 2 cores, 8 GiB, Linux 6, CPython 3.11, "
        "root, load before 0.5, yardstick 400 ms."
    ) in text
    assert "| n | 1.00 ms |" in text


def test_writing_one_section_leaves_the_others_as_they_are():
    """The others keep their numbers and their commit, in the order of the benchmarks."""
    both = merged("", {"one": written("one", 1), "two": written("two", 2)}, ("one", "two"))

    again = merged(both, {"one": written("one", 3, "def")}, ("one", "two"))

    assert again == merged(
        "", {"two": written("two", 2), "one": written("one", 3, "def")}, ("one", "two")
    )
    assert "1.00 ms" not in again


def test_a_benchmark_that_is_gone_leaves_the_document():
    """Nobody can measure its numbers again."""
    both = merged("", {"one": written("one", 1), "two": written("two", 2)}, ("one", "two"))

    assert "## two" not in merged(both, {}, ("one",))
