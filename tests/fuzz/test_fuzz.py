"""Every target of the fuzzer: what was kept, and a few new inputs, always the same ones.

`make fuzz` tries many more.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.fuzzing.targets import KEPT, TARGETS, Target

KEPT_FILES = sorted(KEPT.glob("*/*"))
FEW = settings(
    max_examples=12,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def held(target: Target, data: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="cleanroom-fuzz-") as name:
        folder = Path(name) / "input"
        folder.mkdir()
        target.claims(folder, data)


@pytest.mark.parametrize("kept", KEPT_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_once_broke_a_claim_does_not_again(kept: Path):
    """Each kept input holds every claim of its target."""
    held(TARGETS[kept.parent.name], kept.read_bytes())


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_every_seed_holds(target: Target):
    """What the product itself writes, and the real files of the corpus,
    hold every claim before anything is changed in them.
    """
    for seed in target.seeds():
        held(target, seed)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@given(random=st.randoms(use_true_random=False))
@FEW
def test_no_input_breaks_a_claim(target: Target, random: Random):
    """Made and mutated inputs: never a traceback, a hang, raw text on a stream,
    or a write where the command may not write.
    """
    held(target, target.made(random, target.inputs()[:8]))


def test_the_kept_inputs_belong_to_targets():
    """Each folder of kept inputs is one that is replayed."""
    assert {path.parent.name for path in KEPT_FILES} <= set(TARGETS)
