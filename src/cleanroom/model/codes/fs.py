"""CR-FS: rules about files."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-FS-001",
        title="something outside the workspace was about to be written",
        text="""
            A process of the phase tried to create, change or remove a path outside its workspace,
            its private home and /tmp.
            The write was refused and the report names the process and the path.
            Write into the project or into $TMPDIR instead; where a tool insists on a place of its
            own, point it to one inside with its setting or variable (such as XDG_CACHE_HOME).
            An attempt that is known and harmless can be tolerated with `cleanroom.expected = [{
            target = "...", reason = "..." }]`: it stays blocked and reported.
        """,
        example="""
            [lifecycle.test]
            cleanroom.variables = { XDG_CACHE_HOME = "/tmp/cache" }
        """,
    ),
    Code(
        "CR-FS-002",
        title="owner, mode, times or attributes outside the workspace were about to be changed",
        text="""
            A process tried chmod, chown, utime or an extended attribute on a path outside its
            workspace; the call was refused.
            Usually an installer that sets permissions on shared folders: give it a prefix inside
            the project.
            `cleanroom.expected` tolerates a known attempt.
        """,
        example="$ pip install --prefix .venv example",
    ),
    Code(
        "CR-FS-003",
        title="a home folder or credential was within reach",
        text="""
            From Medium on the caller's home folder and credential files do not exist inside.
            This code says that one was found there, or was tried.
            Hand over what a phase needs by name with `cleanroom.pass = ["NAME"]` or as a file in
            the project, never by mounting a home folder.
        """,
        example="""
            [lifecycle.deploy]
            cleanroom.pass = ["DEPLOY_TOKEN"]
        """,
    ),
    Code(
        "CR-FS-004",
        title="the workspace could not be kept copy-on-write",
        text="""
            From Medium on a phase sees the project through a copy-on-write layer, so that a failed
            phase leaves the project as it was.
            The machine or backend could not provide one, or something tried to get around it.
            `cleanroom-engine doctor` says which primitive is missing and what helps.
        """,
        example="$ cleanroom-engine doctor",
    ),
    Code(
        "CR-FS-005",
        title="a path that is not listed was about to be read",
        text="""
            At High and Locked only the system's folders, the workspace and the folders in
            `cleanroom.tools` are readable.
            Add the folder that the phase truly needs to `cleanroom.tools`, or run the phase at
            Medium.
        """,
        example="""
            [lifecycle.test]
            cleanroom.tools = ["/usr/share"]
        """,
    ),
)
