"""CR-WORKSPACE: what comes back to the project."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-WORKSPACE-001",
        title="files changed on the host while the run ran",
        text="""
            What the run made of these files was not written over what somebody else did meanwhile:
            it is kept in the run's conflicts/ folder and the run does not pass.
            Compare both and run again.
            What the run had removed stays too, with all of the folder that it removed as one; of a
            removal there is nothing to keep.
        """,
        example="$ diff -r .ggen/cleanroom/runs/20261125-215133-dhuei/conflicts .",
    ),
    Code(
        "CR-WORKSPACE-002",
        title="changes that cannot be brought back",
        text="""
            Devices, sockets, pipes, links that lead out of the project and names that are not text
            are never written to the project, and some places there do not let this user write.
            The note names some with the reason and counts the rest; it keeps nothing else from
            coming back.
        """,
        example="""
            [lifecycle.build]
            cleanroom.outputs = ["target/"]
        """,
    ),
    Code(
        "CR-WORKSPACE-003",
        title="files of the project that a phase cannot write to, or does not have",
        text="""
            Run by an ordinary user, the embedded backend can show files of another owner or group
            inside, but not copy them up: writing to one, changing its mode, or making or removing
            anything in such a folder ends with "Value too large for defined data type" (EOVERFLOW),
            since no id map of that user can name their owner.
            Reading one works, and so does what replaces or removes it, as editors and `sed -i` do;
            what replaced it is then the user's.
            Where the workspace is a copy, everything is the user's, and what the user may not read
            is missing. chgrp or chown them, or run the engine as root.
        """,
        example='$ chown -R "$(id -un):$(id -gn)" .',
    ),
    Code(
        "CR-WORKSPACE-004",
        title="changes that could not be written to the project",
        text="""
            The phase's commands had ended, and the disk under the project did not take what was to
            come back: it is full, read-only or broken, or the project's folder is gone.
            The message names the first files.
            What was written before is whole; make room and run again.
        """,
        example="$ df -h . && ls -ld .ggen/cleanroom",
    ),
    Code(
        "CR-WORKSPACE-005",
        title="files came back that something on the host starts by itself",
        text="""
            A phase made or changed hooks, programs in a bin folder, tasks of an editor, files of a
            continuous integration or the like: tools of this machine start or read them without
            being told to.
            The note names some and counts all, the report lists a hundred of each phase at most;
            docs/autorun.md says what is counted.
            Look at them before they run.
            Declared outputs bring back nothing else.
        """,
        example="$ git status --short && git diff  # before anything starts them",
    ),
    Code(
        "CR-WORKSPACE-006",
        title="changes that a phase may not bring back",
        text="""
            make.toml, the programs, scripts and init files that it names, .git, what git would take
            for a repository, and folders that hold one of them come back only where an output
            spells them; they keep nothing else from coming back.
            If the phase is meant to change them, declare them, with all else that it makes: outputs
            stand in the place of every change.
        """,
        example="""
            [lifecycle.format]
            cleanroom.outputs = ["make.toml", "scripts/", "src/"]
        """,
    ),
    Code(
        "CR-WORKSPACE-007",
        title="a file that no longer is what another name of it is",
        text="""
            The project has a file by several names (hard links), and one of them has a file of its
            own now: a phase replaced it, as `sed -i` and editors do, or its outputs name it and not
            the others, or it was written to in a container, where copy-on-write parts names.
            The other names keep the old content.
            Where they have to stay one, let the phase write the file and then link its other names
            again.
        """,
        example="$ ln -f first second",
    ),
    Code(
        "CR-WORKSPACE-008",
        title="files or folders that others can write now",
        text="""
            A phase gave the group or everybody the right to write files or folders of the project,
            who could not before, or made new ones that everybody may write.
            The modes came back as the phase set them: other users of this machine could change what
            you run.
            Take the right away where nobody needs it.
            An empty file `.lock` is not named: uv makes one that everybody may lock in each
            `.venv`, and nothing reads what is in it.
        """,
        example="$ chmod go-w folder",
    ),
)
