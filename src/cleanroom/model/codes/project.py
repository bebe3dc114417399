"""CR-PROJECT: make.toml."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-PROJECT-001",
        title="there is no make.toml here",
        text="""
            The command reads make.toml in the folder that --root names, or in the nearest one
            upwards from the folder it is started in, else the table [tool.cleanroom] of the
            pyproject.toml there, and there is neither.
            It looks no further than the top of a repository and the end of a file system, not in
            your home folder and in folders such as /tmp, and uses no file of another user.
            `cleanroom-engine init` writes one that fits the project; `init --from FILE` converts a
            file of another name or dialect.
        """,
        example="$ cleanroom-engine init",
    ),
    Code(
        "CR-PROJECT-002",
        title="the file cannot be read as text",
        text="""
            make.toml is not a readable file of UTF-8 text without NUL bytes; the message names the
            first byte that is not.
            Save it as UTF-8.
        """,
        example="$ iconv -f latin1 -t utf-8 make.toml > make.utf-8.toml",
    ),
    Code(
        "CR-PROJECT-003",
        title="the file is not TOML, or a compose file not YAML",
        text="""
            The position is where reading had to stop; the cause may be above it, such as a string
            or bracket that was opened and not closed.
        """,
        example="""
            [lifecycle.test]
            command = "pytest -q"  # closed, as the string in the message is not
        """,
    ),
    Code(
        "CR-PROJECT-004",
        title="the file is nested too deeply",
        text="""
            No key that means anything here is nested as deeply as this file, so that it is refused
            before it can exhaust the reader.
            Remove the nested value. For a compose file the number of values, with aliases
            resolved, is bounded too.
        """,
        example="""
            [lifecycle.test]
            cleanroom.limits = { pids = 64 }  # four levels of keys are as deep as it gets
        """,
    ),
    Code(
        "CR-PROJECT-005",
        title="a value has the wrong type or form",
        text="""
            The key is known and its value is not what the key takes; the message says what was
            expected and what was found. docs/make-toml.md lists every key with its type and
            default.
        """,
        example="""
            [lifecycle.test]
            command = "pytest -q"
            cleanroom.containers = ["postgres"]
        """,
    ),
    Code(
        "CR-PROJECT-006",
        title="an unknown key, or a key in the wrong place",
        text="""
            Keys under `cleanroom` are checked strictly, since a misspelt one would silently not
            protect.
            The hint has the nearest key that exists; docs/make-toml.md lists all and where each may
            stand.
        """,
        example="""
            [lifecycle.test]
            cleanroom.containers = ["postgres"]  # not contaners
        """,
    ),
    Code(
        "CR-PROJECT-007",
        title="a value is not one of those that exist",
        text="""
            The key takes one of a few words, and this is none of them.
            The message lists them and the hint has the nearest; upper and lower case are forgiven.
        """,
        example="""
            [cleanroom]
            policy = "Medium"  # or Low, High, Locked
        """,
    ),
    Code(
        "CR-PROJECT-008",
        title="there is no such service",
        text="""
            `cleanroom.containers` names a service that is neither built in (postgres, redis) nor
            declared under [cleanroom.services].
            The hint has the nearest name.
        """,
        example="""
            [lifecycle.test]
            cleanroom.containers = ["postgres", "redis"]
        """,
    ),
    Code(
        "CR-PROJECT-009",
        title="a duration or size cannot be read",
        text="""
            Durations are written as "20s", "2m", "1m30s", "500ms" or a number of seconds, sizes as
            "512MiB", "1GB" or a number of bytes; both are above 0.
        """,
        example="""
            [lifecycle.test]
            cleanroom.timeout = "1m30s"
            cleanroom.limits = { memory = "512MiB" }
        """,
    ),
    Code(
        "CR-PROJECT-010",
        title="a path leads out of the project",
        text="""
            Outputs, inputs and workspaces are named relative to the project's folder and stay
            inside of it: no absolute path, no `..`.
            Move what is needed into the project, or have the command copy it.
        """,
        example="""
            [lifecycle.build]
            cleanroom.outputs = ["target/"]
        """,
    ),
    Code(
        "CR-PROJECT-011",
        title="a hook or prerequisite names no phase",
        text="""
            [hooks], depends_on or the table of a phase names a phase that this make.toml does not
            have.
            The hint has the nearest name; where the phase is not part of the plan, the hook is
            listed as ignored instead.
        """,
        example="""
            [lifecycle.test]
            command = "pytest -q"
            [lifecycle.build]
            command = "make"
            [hooks]
            before_test = ["build"]
        """,
    ),
    Code(
        "CR-PROJECT-012",
        title="hooks or prerequisites go in a circle",
        text="""
            Each of the phases in the message needs the next one to run first, and the last needs
            the first.
            Remove one of these hooks or prerequisites.
        """,
        example="""
            [lifecycle.test]
            depends_on = ["build"]
            [lifecycle.build]
            command = "make"  # and no depends_on = ["test"]
        """,
    ),
    Code(
        "CR-PROJECT-013",
        title="a phase's command is the engine itself",
        text="""
            Inside its environment the engine would run the same phase without end.
            Keep the command for `ggen lifecycle`, and add `cleanroom.command` with what is to run
            inside; the hint has the line to paste.
        """,
        example="""
            [lifecycle.test]
            command = "cleanroom-engine run test"
            cleanroom.command = "pytest -q"
        """,
    ),
    Code(
        "CR-PROJECT-014",
        title="hosts are declared at a level that allows none",
        text="""
            `cleanroom.egress` is for Medium and below; at High and Locked a phase reaches declared
            services only.
            Remove the hosts, or run the phase at Medium.
        """,
        example="""
            [lifecycle.fetch]
            cleanroom.policy = "Medium"
            cleanroom.egress = ["index.example.org:443"]
        """,
    ),
    Code(
        "CR-PROJECT-015",
        title="more than the level allows, without a reason",
        text="""
            Limits above the level's own and reactions milder than its own take a written reason, so
            that a reader knows why.
            Add `cleanroom.reason`, or stay within the bound that the message names.
        """,
        example="""
            [lifecycle.test]
            cleanroom.limits = { memory = "6GiB" }
            cleanroom.reason = "the linker needs 5 GiB"
        """,
    ),
    Code(
        "CR-PROJECT-016",
        title="a workspace's folder is not there",
        text="""
            [workspace] names a folder that does not exist.
            Make the folder, or remove the workspace; paths are relative to the project.
        """,
        example="$ mkdir -p services/api",
    ),
    Code(
        "CR-PROJECT-017",
        title="hooks unfold into too many runs",
        text="""
            Hooks run every time and have hooks of their own, so that a few lines can unfold into a
            number of runs that nobody wants.
            Name fewer of them, or use depends_on, which runs each phase at most once.
        """,
        example="""
            [lifecycle.test]
            depends_on = ["build"]  # once per run, where hooks.before_test runs it every time
            [lifecycle.build]
            command = "make"
        """,
    ),
    Code(
        "CR-PROJECT-018",
        title="a service is not described completely, twice, or waits for what cannot come",
        text="""
            A service of your own needs a command or an image and exactly one way to tell that it is
            ready; and a service has one table, also over all workspaces.
            `after` names a phase of the project, which no phase that needs the service precedes,
            and services do not depend on each other in a circle.
            The message says what is missing or where the other table is.
        """,
        example="""
            [cleanroom.services.mail]
            command = ["maild", "--port", "1025"]
            ready = { tcp = 1025 }
        """,
    ),
    Code(
        "CR-PROJECT-019",
        title="a file or folder that the file names is not there",
        text="""
            An init file, a folder of tools or the like does not exist.
            Correct the name, which is relative to the project's folder, or make what should be
            there.
        """,
        example="$ ls schema.sql",
    ),
    Code(
        "CR-PROJECT-020",
        title="a service has a name that it cannot have",
        text="""
            A service's name is a host name inside, part of its variables' names, and the name of a
            folder.
            It begins with a letter, a digit or '_', goes on with these, '-' and '.', and has 63
            characters at most.
        """,
        example="""
            [cleanroom.services.mail]
            command = ["maild", "--port", "1025"]
            ready = { tcp = 1025 }
        """,
    ),
)
