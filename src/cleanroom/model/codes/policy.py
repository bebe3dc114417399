"""CR-POLICY: what the policy refuses."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-POLICY-001",
        title="the command line asks for a lower policy than the file",
        text="""
            --policy is below the level in the file.
            Leave it out, or say so twice: `allow_degraded = ["policy"]` in the file and
            `--allow-degraded policy` on the command line together let the run go, marked DEGRADED
            in every report.
        """,
        example="""
            [cleanroom]
            policy = "High"
            allow_degraded = ["policy"]  # and on the command line: --allow-degraded policy
        """,
    ),
    Code(
        "CR-POLICY-002",
        title="the project is below the organisation's floor",
        text="""
            /etc/cleanroom/config.toml sets the least that every project on this machine has to
            keep, and the project is below it, or that file cannot be understood.
            Raise the project's policy, or ask those who keep the file.
        """,
        example="""
            [cleanroom]
            policy = "High"  # what /etc/cleanroom/config.toml asks for, or more
        """,
    ),
    Code(
        "CR-POLICY-003",
        title="the command line's policy does not allow the file's hosts",
        text="""
            `cleanroom.egress` is for Medium and below, and --policy asks for more.
            Remove the hosts, or run the phase at Medium.
        """,
        example="$ cleanroom-engine pipeline fetch --policy Medium",
    ),
    Code(
        "CR-POLICY-004",
        title="this machine cannot hold a rule that the policy requires",
        text="""
            The message names the rule and why the backend cannot hold it here, the hint what would
            help; nothing was run.
            `cleanroom-engine doctor` tells everything this machine holds.
            `allow_degraded = ["RULE"]` in the file and `--allow-degraded RULE` on the command line
            together let the rule go.
        """,
        example=r"""
            [cleanroom]
            allow_degraded = ["resource.memory"]  \
                # and on the command line: --allow-degraded resource.memory
        """,
    ),
    Code(
        "CR-POLICY-005",
        title="a rule was let go",
        text="""
            File and command line both allowed that a rule is not held in this run.
            The run is DEGRADED: its first and last line and every report say so, and it never
            counts for readiness.
        """,
        example="""
            $ cleanroom-engine doctor  # what would hold the rule, so that it need not be let go
        """,
    ),
    Code(
        "CR-POLICY-006",
        title="a phase of a dry run writes to the project itself",
        text="""
            `--dry-run` runs the phases and brings nothing back.
            This one runs on the host (`cleanroom.enabled = false`) or at Low, where it writes the
            project's own files, so that nothing could be held back.
            Leave it out, or run it at Medium.
        """,
        example="$ cleanroom-engine pipeline test --dry-run --policy Medium",
    ),
    Code(
        "CR-POLICY-010",
        title="what the policy forbids was not stopped",
        text="""
            Before a phase starts, canaries try what the policy forbids in that very environment.
            One of them succeeded, or was refused without being seen, so nothing was run there.
            `cleanroom-engine doctor` tells what this machine holds; the report has each canary with
            what it found.
            Report it if doctor sees nothing amiss.
        """,
        example="$ cleanroom-engine doctor && cleanroom-engine report --open",
    ),
)
