"""Feed the product hostile inputs and hold it to its claims;
write the counts into docs/robustness.md.

    python scripts/fuzz.py --inputs 100000              over all targets, one process
    python scripts/fuzz.py --inputs 5000 --target audit
    python scripts/fuzz.py --target audit --replay FILE  one input again

An input is named by its target, seed and number, so a finding can be made again.
What breaks a claim is made smaller and written to --findings;
mend the product, then keep the file in tests/fixtures/fuzz/TARGET, where every test run reads it.
"""

from __future__ import annotations

import argparse
import csv
import re
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from bench import machine  # noqa: E402
from support.fuzzing.targets import KEPT, TARGETS, Target  # noqa: E402


class Finding(NamedTuple):
    signature: str  # where and how it broke: two inputs with the same one are one finding
    told: str


def tried(target: Target, data: bytes, scratch: Path) -> Finding | None:
    """One input in a folder of its own."""
    folder = scratch / "input"
    folder.mkdir()
    try:
        target.claims(folder, data)
    except Exception as error:
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if "/cleanroom/" in frame.filename or "/fuzzing/" in frame.filename
        ]
        place = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else ""
        first = re.sub(r"[^\n]?\d[\w.-]*|'[^']*'", "*", str(error).split("\n", 1)[0])
        return Finding(
            f"{type(error).__name__} {place} {first[:60]}",
            "".join(traceback.format_exception(error)),
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return None


def smaller(
    target: Target, data: bytes, found: Finding, scratch: Path, seconds: float = 5.0
) -> bytes:
    """The input without what is not needed to break the same claim."""
    end = time.monotonic() + seconds
    length = len(data) // 2
    while length >= 1 and time.monotonic() < end:
        at = 0
        while at < len(data) and time.monotonic() < end:
            shorter = data[:at] + data[at + length :]
            again = tried(target, shorter, scratch)
            if again is not None and again.signature == found.signature:
                data = shorter
            else:
                at += length
        length //= 2
    return data


class Done(NamedTuple):
    """What one target's campaign came to."""

    target: Target
    inputs: int
    findings: int
    slowest_seconds: float  # of processor time, for one input
    seconds: float


def campaign(target: Target, inputs: int, seed: int, scratch: Path, findings: Path) -> Done:
    """So many inputs; each kind of finding is written once."""
    known = target.inputs()
    seen: set[str] = set()
    slowest = 0.0
    began = time.monotonic()
    for number in range(inputs):
        data = (
            known[number]
            if number < len(known)
            else target.made(Random(f"{target.name} {seed} {number}"), known)
        )
        at = time.process_time()
        found = tried(target, data, scratch)
        slowest = max(slowest, time.process_time() - at)
        if found is not None and found.signature not in seen:
            seen.add(found.signature)
            _keep(
                findings,
                f"{target.name}-{seed}-{number}",
                smaller(target, data, found, scratch),
                found,
            )
    return Done(target, inputs, len(seen), slowest, time.monotonic() - began)


def _keep(findings: Path, name: str, data: bytes, found: Finding) -> None:
    findings.mkdir(parents=True, exist_ok=True)
    (findings / name).write_bytes(data)
    (findings / f"{name}.txt").write_text(found.told, errors="backslashreplace")
    print(f"FOUND {name}: {found.signature!r}", flush=True)


def page(done: list[Done], command: str, here: dict[str, str]) -> str:
    """docs/robustness.md. `here`: machine and commit as they were when the campaign began."""
    with (KEPT / "findings.tsv").open(newline="") as file:
        found = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    rows = "".join(
        (
            f"| `{each.target.name}` | {each.target.text} | {each.inputs:,} | {each.findings} | "
            f"{each.slowest_seconds * 1000:.0f} ms |\n"
        )
        for each in done
    )
    mended = "".join(f"| {target} | {did} | {now} |\n" for target, did, now in found)
    return f"""# What hostile input may not do

<!-- Written by `{command}`. -->

Whatever bytes stand in a file that a command reads: no traceback and no hang;
an exit status of the contract (0 or 2; 1 for an audit log that does not verify,
3 under an organisation's floor, 4 where there is nothing to look at); an error that says where;
nothing raw on a terminal, in a report or to a CI runner;
nothing written but what the command is there to write.
`tests/fuzz` holds these claims, a few inputs in every test run and many here:
made from the keys that the product knows, and mutated from real files,
from what the product itself writes and from what once broke a claim (`tests/fixtures/fuzz`,
read in every test run).
An input is named by target, seed and number, and is the same on every machine.

## The last campaign

`{command}` at commit {here["commit"]}, {here["Python"]},
{here["kernel"]}, {here["processor"]}, one process, {here["date"]}.

| target | what reads it | inputs | claims broken | slowest input, processor time |
| --- | --- | --- | --- | --- |
{rows}| all | | {sum(each.inputs for each in done):,} | {sum(each.findings for each in done)} | |

It took {sum(each.seconds for each in done) / 60:.0f} minutes.

## What was found, and mended

| target | what an input did | what is true now |
| --- | --- | --- |
{mended}
`places` are not bytes but what may stand where a file should:
folders, pipes, sockets, devices, links, holes (`tests/fuzz/test_irregular_files.py`).
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=10_000, help="over all targets")
    parser.add_argument(
        "--target", choices=TARGETS, action="append", help="may be given again; default: all"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--findings",
        type=Path,
        default=Path("fuzz-findings"),
        help="where inputs go that break a claim",
    )
    parser.add_argument("--replay", type=Path, help="one input of --target")
    parser.add_argument("--write", action="store_true", help="write docs/robustness.md")
    arguments = parser.parse_args()
    chosen = [TARGETS[name] for name in arguments.target or TARGETS]
    with tempfile.TemporaryDirectory(
        prefix="cleanroom-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None
    ) as scratch:
        if arguments.replay:
            found = tried(chosen[0], arguments.replay.read_bytes(), Path(scratch))
            print(found.told if found else "every claim holds")
            return int(found is not None)
        done, here = [], machine.described()
        for target in chosen:
            inputs = arguments.inputs * target.weight // sum(each.weight for each in chosen)
            done.append(campaign(target, inputs, arguments.seed, Path(scratch), arguments.findings))
            print(
                (
                    f"{target.name}: {inputs} inputs, {done[-1].findings} findings, "
                    f"{done[-1].seconds:.0f} s"
                ),
                flush=True,
            )
            if arguments.write:
                (ROOT / "docs" / "robustness.md").write_text(
                    page(done, f"python scripts/fuzz.py {' '.join(sys.argv[1:])}", here)
                )
    return int(any(each.findings for each in done))


if __name__ == "__main__":
    sys.exit(main())
