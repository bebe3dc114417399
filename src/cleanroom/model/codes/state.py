"""CR-STATE: the project's .ggen folder."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-STATE-001",
        title=".ggen/state.json is broken",
        text="""
            The state file that ggen and the engine share is not JSON that ggen can read; it was
            left as it is.
            Correct it at the position in the message, or move it away to begin with a fresh state.
        """,
        example="$ mv .ggen/state.json .ggen/state.json.broken",
    ),
    Code(
        "CR-STATE-002",
        title=".ggen/state.json could not be written",
        text="""
            The folder is not writable, or other processes hold or keep rewriting the file.
            Make .ggen writable, or let the other runs of this project end.
        """,
        example="$ chmod -R u+w .ggen",
    ),
    Code(
        "CR-STATE-003",
        title="something else stands in the place of a folder or file of ours",
        text="""
            .ggen, .ggen/cleanroom and what is in them are reached from the project's folder, and
            through no link: a repository, a phase or another user could lead our writing anywhere.
            Folders have to be real ones; a file that we add to must be a regular one with no second
            name (a hard link) that belongs to you, to root or to whoever owns its folder.
            The message names the first that is not.
            Remove it; --report-dir puts reports elsewhere.
            A linked .ggen/state.json is replaced, as ggen does.
        """,
        example="$ ls -ld .ggen .ggen/cleanroom && rm .ggen",
    ),
    Code(
        "CR-STATE-004",
        title="a folder of ours cannot be looked at",
        text="""
            The folders that the engine writes to have to be real ones, and one above them does not
            let whoever runs the engine look: it belongs to somebody else, often since a run was
            started as root once, or has lost its rights.
            Give .ggen back with `chown -R`, or start the engine as its owner.
        """,
        example='$ sudo chown -R "$USER" .ggen',
    ),
    Code(
        "CR-STATE-005",
        title="a folder or file of ours belongs to somebody else",
        text="""
            Something in .ggen belongs to another user, and whoever runs the engine may not write
            it: a run of an earlier version as root, or ggen as root, made it.
            A run as root gives what it makes in .ggen to the owner of the folder around it.
            The message names the first one, and the command that gives .ggen back; moving .ggen
            away begins with an empty history.
        """,
        example='$ sudo chown -R "$USER" .ggen',
    ),
)
