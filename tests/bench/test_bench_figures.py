"""Figures say what was measured, and stand beside their target truthfully."""

from __future__ import annotations

import json

import pytest
from bench.figures import BenchmarkFailed, Figure, as_markdown, as_text, compared, number

from bench import __main__ as runner


def figure(*values: float, **given: object) -> Figure:
    return Figure(benchmark="b", name="n", unit="ms", values=values, **given)  # type: ignore[arg-type]


def test_a_median_on_the_target_meets_it():
    """Both kinds of target include their bound."""
    assert figure(1, 10, 30, at_most=10).met is True
    assert figure(1, 10, 30, at_least=10).met is True


def test_a_missed_target_is_said():
    """One beyond the bound is missed, in the text and in the document alike."""
    missed = figure(11, at_most=10)

    assert missed.met is False
    assert "MISSED" in as_text([missed])
    assert "MISSED" in as_markdown([missed])


def test_without_a_target_nothing_is_met():
    """A number that stands beside no target claims nothing."""
    assert figure(1).met is None
    assert "met" not in as_text([figure(1)])


def test_what_is_not_here_is_said_and_has_no_number():
    """A peer that is missing has a row without a number, in the text, the document and the JSON,
    and meets no target.
    """
    absent = figure(note="not here: make it", at_least=5)

    assert absent.met is None
    assert "not here" in as_text([absent])
    assert "| not here |" in as_markdown([absent])
    assert absent.as_json()["median"] is None
    assert Figure.from_json(absent.as_json()) == absent


def test_differences_and_ratios_are_those_of_neighbours():
    """They are taken per pair: what slows both sides of one pair does not change the others."""
    bare, measured, difference, ratio = compared(
        "b", "caged", "bare", [(0.001, 0.002), (0.010, 0.020)], ratio_at_most=1.1
    )

    assert bare.values == pytest.approx((1, 10))
    assert measured.values == pytest.approx((2, 20))
    assert difference.values == pytest.approx((1, 10))
    assert ratio.values == pytest.approx((2, 2))
    assert ratio.met is False


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.1234, "0.12"),
        (9.876, "9.88"),
        (45.67, "45.7"),
        (300.4, "300"),
        (301_234, "301,234"),
        (-4.2, "-4.20"),
    ],
)
def test_numbers_are_as_long_as_they_are_true(value: float, written: str):
    """Three figures are what such measurements can hold."""
    assert number(value) == written


def test_what_cannot_be_measured_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The exit status is 1 and the reason is said, while the other benchmarks still run."""

    def measured(name: str, small: bool) -> list[Figure]:
        if name == "services":
            raise BenchmarkFailed("no server")
        return [figure(1)]

    monkeypatch.setattr(runner, "_measured", measured)

    assert runner.main(["services", "command", "--small", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["not_measured"] == {"services": "no server"}
    assert len(said["figures"]) == 1


def test_a_missed_target_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A slow machine does not turn a measurement into an error."""
    monkeypatch.setattr(runner, "_measured", lambda name, small: [figure(11, at_most=10)])

    assert runner.main(["command", "--small"]) == 0
    assert "MISSED" in capsys.readouterr().out
