"""Measure, and print each number beside its target.

    python -m bench                     all of them
    python -m bench lifecycle sandbox   some of them
    python -m bench --write             all of them, and write docs/benchmarks.md
    python -m bench bus --write         some of them, and write their sections of it
    python -m bench --from FILE FILE    write the sections of which these results are

A missed target is said and is no failure: the exit status is 1 only where something could not be
measured.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.document import merged, section
from bench.figures import BenchmarkFailed, Figure, as_text
from bench.machine import ROOT, described

NAMES = (
    "lifecycle",
    "services",
    "containers",
    "sandbox",
    "work",
    "bus",
    "memory",
    "command",
    "tracing",
    "fetch",
)
DOCUMENT = ROOT / "docs" / "benchmarks.md"
RESULTS = ROOT / "bench" / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _arguments(arguments)
    if asked.files:
        return _written(asked.files)
    machine = described()
    found: dict[str, list[Figure]] = {}
    failures: dict[str, str] = {}
    began = time.perf_counter()
    for name in asked.names or NAMES:
        try:
            found[name] = _measured(name, asked.small)
        except BenchmarkFailed as error:
            failures[name] = str(error)
            print(f"{name}: not measured: {error}", file=sys.stderr)
        else:
            if not asked.json:
                print(f"{name}: {_question(name)}\n{as_text(found[name])}\n", flush=True)
    result = _result(machine, found, failures, asked.small, time.perf_counter() - began)
    if asked.json:
        print(json.dumps(result))
    if asked.small:
        print("the smallest size: that it ran is all these numbers say", file=sys.stderr)
    else:
        _save(result)
    if asked.write and found:
        _write({name: (machine, figures) for name, figures in found.items()})
    return 1 if failures else 0


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m bench", description="Measure, and print each number beside its target."
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"which: {', '.join(NAMES)}; all where none is named",
    )
    parser.add_argument(
        "--small",
        action="store_true",
        help="the smallest size, to see that it works; its numbers are kept nowhere",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--from",
        dest="files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="write the sections of docs/benchmarks.md of which these results are",
    )
    parser.add_argument(
        "--write", action="store_true", help="write what was measured into docs/benchmarks.md"
    )
    asked = parser.parse_args(arguments)
    if unknown := [name for name in asked.names if name not in NAMES]:
        parser.error(f"no benchmark is called {unknown[0]!r}; there are {', '.join(NAMES)}")
    if asked.write and asked.small:
        parser.error(
            "the document holds benchmarks at their full size: --write does not go with --small"
        )
    return asked


def _written(files: Sequence[Path]) -> int:
    """The sections of results that were saved, of the last that has each."""
    found: dict[str, tuple[dict[str, str], list[Figure]]] = {}
    for result in (json.loads(file.read_text()) for file in files):
        if result["small"]:
            print("expected results at full size", file=sys.stderr)
            return 1
        for name in {said["benchmark"] for said in result["figures"]}:
            found[name] = (
                result["machine"],
                [Figure.from_json(said) for said in result["figures"] if said["benchmark"] == name],
            )
    _write(found)
    return 0


def _write(found: Mapping[str, tuple[dict[str, str], list[Figure]]]) -> None:
    sections = {
        name: section(name, _documentation(name), machine, figures)
        for name, (machine, figures) in found.items()
    }
    DOCUMENT.write_text(merged(DOCUMENT.read_text() if DOCUMENT.exists() else "", sections, NAMES))
    print(f"wrote {', '.join(sections)} into {DOCUMENT.relative_to(ROOT)}", file=sys.stderr)


def _measured(name: str, small: bool) -> list[Figure]:
    if name == "bus":
        return _measured_bus(small)
    figures: list[Figure] = importlib.import_module(f"bench.bench_{name}").measure(small)
    return figures


def _measured_bus(small: bool) -> list[Figure]:
    """A process of its own, since it freezes the collector; its answer is one object."""
    argv = [
        sys.executable,
        str(ROOT / "bench" / "bench_bus.py"),
        "--json",
        *(["--small"] if small else []),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkFailed(
            f"bench_bus.py: exit status {done.returncode}\n{done.stdout}{done.stderr}"
        )
    said = json.loads(done.stdout)
    note = f"{said['events']:,} events; {said['checksum']}; the best of its rounds"
    figure = Figure(
        benchmark="bus",
        name="to five subscribers, audit on disk",
        unit=said["unit"],
        values=(said["value"],),
        at_least=said["target"],
        note=note,
    )
    return [figure]


def _question(name: str) -> str:
    return _documentation(name)[0]


def _documentation(name: str) -> tuple[str, str]:
    """The module's question, and its workload and unit."""
    text = importlib.import_module(f"bench.bench_{name}").__doc__ or ""
    question, _, rest = text.partition("\n\n")
    return question.strip(), rest.strip()


def _result(
    machine: dict[str, str],
    found: dict[str, list[Figure]],
    failures: dict[str, str],
    small: bool,
    seconds: float,
) -> dict[str, Any]:
    figures = [figure.as_json() for group in found.values() for figure in group]
    return {
        "machine": machine,
        "small": small,
        "seconds": round(seconds, 1),
        "figures": figures,
        "not_measured": failures,
    }


def _save(result: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    stamp = result["machine"]["date"].replace(" UTC", "").replace(" ", "-").replace(":", "")
    measured = sorted({figure["benchmark"] for figure in result["figures"]})
    part = "" if len(measured) == len(NAMES) else "-" + "-".join(measured)
    target = RESULTS / f"{stamp}-{result['machine']['commit'].split()[0]}{part}.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(f"results: {Path(target).relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
