"""CR-CONTAINER: backends that use Docker or Podman."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-CONTAINER-001",
        title="the container engine was not found or does not answer",
        text="""
            The backend talks to Docker or Podman over a unix socket of this machine.
            It was not at any of the usual places, nobody answered there, or the engine speaks no
            version of its interface that this one knows.
            Start it, or let DOCKER_HOST or CONTAINER_HOST name the socket as unix:///path.
            Nothing falls back to another backend.
        """,
        example="""
            $ DOCKER_HOST=unix:///run/docker.sock cleanroom-engine pipeline test --backend docker
        """,
    ),
    Code(
        "CR-CONTAINER-002",
        title="the container engine is on another machine",
        text="""
            DOCKER_HOST or CONTAINER_HOST names something else than a unix socket.
            What a process in a container tries is seen through the kernel they share, so the engine
            has to run on the same machine.
        """,
        example="""
            $ DOCKER_HOST=unix:///run/docker.sock cleanroom-engine pipeline test --backend docker
        """,
    ),
    Code(
        "CR-CONTAINER-003",
        title="the client library of container engines is not installed",
        text="""
            Docker and Podman are spoken to by aiodocker, which the engine's extra `docker` brings
            into the virtual environment that cleanroom-engine runs from.
            Debian's own Python lets pip change nothing; make a virtual environment there.
        """,
        example="$ ~/cleanroom/bin/pip install '.[docker]'  # in the engine's repository",
    ),
    Code(
        "CR-CONTAINER-004",
        title="the container engine did not answer a call",
        text="""
            A call to the engine's socket ended without an answer or took too long, as when its
            daemon was stopped, restarted or has hung.
            Containers of the run end with their wardens; what the engine could not be told to
            remove is in the ledger, and `cleanroom-engine sweep` removes it once the engine is
            back.
        """,
        example="$ docker info && cleanroom-engine sweep",
    ),
    Code(
        "CR-CONTAINER-005",
        title="the container engine refused",
        text="""
            The engine answered a request with an error, which the message quotes.
            Names that are taken, full disks, missing runtimes and limits beyond those of this
            machine are usual; the hint says what helped where it was seen before.
        """,
        example="$ docker info && df -h",
    ),
    Code(
        "CR-CONTAINER-006",
        title="an image is not there",
        text="""
            Phases and services of a container backend run in images, and this one is not in the
            engine.
            Nothing is pulled during a run, so that what runs is what was there before.
            `cleanroom-engine image build` makes those called cleanroom/...; any other is brought by
            the engine's own pull, load or build.
        """,
        example="$ docker pull python:3.12-slim",
    ),
    Code(
        "CR-CONTAINER-007",
        title="the container backends run as root only",
        text="""
            Attempts in a container are attributed by reading who made them from the kernel, which
            an ordinary user may not for another user's processes.
            Run the command as root, or use the embedded backend, which isolates and attributes
            without any privilege.
        """,
        example="$ cleanroom-engine pipeline test --backend embedded",
    ),
    Code(
        "CR-CONTAINER-008",
        title="pid 1 of containers could not be built",
        text="""
            The program that runs as pid 1 in every container is built once from its C source with
            the compiler that is there, into the user's cache.
            A compiler that makes static programs is needed: on Debian `apt-get install gcc
            libc6-dev`, or musl-tools and gcc for a smaller one.
            `make shim` builds it by hand and shows what is said.
        """,
        example="$ apt-get install gcc libc6-dev",
    ),
    Code(
        "CR-CONTAINER-009",
        title="a phase names no image",
        text="""
            A container backend runs each phase in an image, and there is no default that would fit
            every project.
            Name one for all with image = "..." under [cleanroom], or for one phase with
            cleanroom.image.
        """,
        example="""
            [cleanroom]
            image = "python:3.12-slim"
        """,
    ),
    Code(
        "CR-CONTAINER-010",
        title="there is no such image to build",
        text="""
            `cleanroom-engine image build` makes base, postgres and redis.
            Any other image is built or pulled with the engine's own tools and named in make.toml.
        """,
        example="$ docker build -t mail:1 .",
    ),
    Code(
        "CR-CONTAINER-011",
        title="mmdebstrap is not installed",
        text="""
            Images are made from Debian's packages by mmdebstrap, so that no registry is needed.
            On Debian and its kin: apt install mmdebstrap.
            Elsewhere name images of your own.
        """,
        example="$ apt install mmdebstrap",
    ),
    Code(
        "CR-CONTAINER-012",
        title="an image could not be made",
        text="""
            mmdebstrap failed, or the engine did not take what it made under the digest it has.
            The message has the last lines of what was said; an unreachable mirror and a full disk
            are usual.
        """,
        example="$ df -h && mmdebstrap --simulate stable /dev/null",
    ),
    Code(
        "CR-CONTAINER-013",
        title="several parts that a container backend needs are missing",
        text="""
            Everything that a run in containers needs is looked at before it begins: root's rights,
            the engine and whether it answers, its client library, a C compiler for pid 1 of
            containers, and the images of phases and services.
            The message names all that is missing, and the hint has lines to paste that bring it on
            Debian as it is, in their order.
            Nothing is installed by itself, and nothing falls back to another backend.
        """,
        example=r"""
            $ apt-get update && apt-get install --yes docker.io mmdebstrap && cleanroom-engine \
                image build
        """,
    ),
)
