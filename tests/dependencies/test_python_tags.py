"""Which wheel fits an interpreter, as pip itself says."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cleanroom.dependencies.python_tags import PROGRAM, Interpreter, best_wheel, read_interpreter

LINUX = Interpreter("cpython", 3, 12, "x86_64", libc_version="2.36")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a-1-py3-none-any.whl", "a-1-cp312-cp312-manylinux_2_17_x86_64.whl"], 1),
        (["a-1-cp312-cp312-manylinux_2_39_x86_64.whl", "a-1-py3-none-any.whl"], 1),
        (["a-1-cp311-cp311-manylinux2014_x86_64.whl", "a-1-cp38-abi3-manylinux2014_x86_64.whl"], 1),
        (["a-1-cp312-cp312-manylinux2014_aarch64.whl"], None),
        (["a-1-cp312-cp312-musllinux_1_2_x86_64.whl"], None),
        (["a-1-cp312-cp312t-manylinux2014_x86_64.whl"], None),
        (["a-1-cp312-cp312-macosx_11_0_arm64.whl", "nonsense", "a-1-py2-none-any.whl"], None),
    ],
)
def test_the_best_wheel_that_fits_is_taken(names: list[str], expected: int | None):
    """Compiled before pure, of this machine, C library and version only."""
    assert best_wheel(names, LINUX) == (None if expected is None else names[expected])


def test_musl_has_wheels_of_its_own():
    """As Alpine has."""
    alpine = Interpreter("cpython", 3, 12, "x86_64", libc="musl", libc_version="")
    names = ["a-1-cp312-cp312-manylinux2014_x86_64.whl", "a-1-cp312-cp312-musllinux_1_2_x86_64.whl"]
    assert best_wheel(names, alpine) == names[1]


def test_tags_are_those_that_pip_supports():
    """Of this interpreter: all of pip's, in pip's order."""
    answer = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    ours = read_interpreter(answer.stdout)
    from cleanroom.dependencies.python_tags import supported

    program = (
        "import json; from pip._internal.utils.compatibility_tags import get_supported; "
        "print(json.dumps([str(tag) for tag in get_supported()]))"
    )
    pips = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert [str(tag) for tag in supported(ours)] == json.loads(pips.stdout)
