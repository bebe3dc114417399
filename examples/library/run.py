"""Run the project in this folder from Python, and show what happens while it happens:
`python run.py`.
"""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio

import cleanroom
from cleanroom.events import Envelope, Finished, Output, Violation


async def show(events: AsyncIterator[Envelope]) -> None:
    """Print phases and services as they end, what phases say,
    and every attempt against the policy.
    """
    async for envelope in events:
        match envelope.event:
            case Output(subject=subject, text=text) if subject.kind != "service":
                print("  " + text.rstrip().replace("\n", "\n  "))
            case Violation(target=target, process=process, rule=rule):
                print(f"blocked: {process.argv if process else 'somebody'} tried {target} ({rule})")
            case Finished(subject=subject, result=result, duration_seconds=seconds) if (
                subject.kind in ("phase", "readiness")
            ):
                print(f"{subject.kind} {subject.name}: {result} in {seconds:.2f} s")


async def main(project: Path) -> int:
    async with cleanroom.open(project) as engine, anyio.create_task_group() as tasks:
        tasks.start_soon(show, engine.events())
        result = await engine.pipeline("build", "test")
    print(
        f"{result.outcome}: {len(result.canaries)} canaries, {len(result.violations)} "
        f"violations, {len(result.ledger.left)} left behind"
    )
    return result.exit_code


if __name__ == "__main__":
    sys.exit(anyio.run(main, Path(__file__).resolve().parent))
