"""CR-HOST: commands on the host."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-HOST-001",
        title="a command on the host could not be started",
        text="""
            A phase with `cleanroom.enabled = false` runs on the host, and its shell could not be
            started in the project's folder.
            Check that the folder exists and can be entered, and that the machine is not out of
            processes.
        """,
        example="""
            [lifecycle.deploy]
            command = "./deploy"
            cleanroom.enabled = false
        """,
    ),
)
