"""CR-BACKEND: which backend runs a pipeline."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-BACKEND-001",
        title="this version has no such backend",
        text="""
            The backend is known to the design and not built yet, so the run is refused and nothing
            else is taken in its place.
            Use `backend = "embedded"`, or leave it at `auto`, which takes the first backend that
            can hold the policy.
        """,
        example="$ cleanroom-engine pipeline test --backend embedded",
    ),
    Code(
        "CR-BACKEND-002",
        title="there is no backend of that name",
        text="""
            `--backend` or `[cleanroom] backend` names a backend that does not exist.
            The message lists those that do; `auto` takes the first that can hold the policy.
        """,
        example="""
            [cleanroom]
            backend = "auto"
        """,
    ),
    Code(
        "CR-BACKEND-003",
        title="the backend needs Linux",
        text="""
            The embedded backend is built from primitives of the Linux kernel.
            Run pipelines on Linux, in a virtual machine or in CI; `plan`, `doctor`, `audit`,
            `events` and `report` work on every system.
        """,
        example="$ cleanroom-engine plan  # works everywhere; run pipelines on Linux",
    ),
)
