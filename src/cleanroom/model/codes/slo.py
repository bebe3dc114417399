"""CR-SLO: time objectives."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-SLO-001",
        title="the run took longer than its SLO",
        text="""
            `slo` is what the whole run should take at most.
            Missing it is always said and fails the run (exit 1) only with --strict-slo.
            The summary's times show where it went.
        """,
        example="""
            [cleanroom]
            slo = "30s"
        """,
    ),
)
