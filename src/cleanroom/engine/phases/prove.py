"""The canaries of an environment, published and judged before anything runs in it."""

from __future__ import annotations

from cleanroom.engine.phases.verdict import broken_canaries
from cleanroom.engine.supervision.context import RunContext
from cleanroom.engine.supervision.environments import ObservedEnvironment
from cleanroom.model import events
from cleanroom.model.errors import PolicyRefused
from cleanroom.model.events import Subject


async def prove(context: RunContext, observed: ObservedEnvironment) -> None:
    """Run the canaries inside.

    Raises:
        PolicyRefused: one that the policy forbids was not stopped.
    """
    canaries = await observed.environment.prove()
    for canary in canaries:
        context.bus.publish(
            events.assertion(Subject("canary", canary.name), canary, observed.spec.id)
        )
    if broken := broken_canaries(canaries, context.degraded):
        raise PolicyRefused(
            "CR-POLICY-010",
            f"what the policy forbids was not stopped, so nothing was run: {broken}",
            hint="`cleanroom-engine doctor` tells what this machine holds",
        )
