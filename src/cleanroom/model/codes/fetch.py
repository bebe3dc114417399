"""CR-FETCH: dependencies that are fetched before the phases."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-FETCH-001",
        title="a registry gave another file than the lock names",
        text="""
            The digest or the size of a file that was fetched is not the one in the lock file.
            The file was thrown away, and no phase ran.
            Either somebody changed the file in the registry, a mirror or a proxy, or the lock file
            was changed by hand.
            Find out which before you write a new lock.
        """,
        example="$ cleanroom-engine plan  # names the lock file and what it pins",
    ),
    Code(
        "CR-FETCH-002",
        title="a registry led elsewhere",
        text="""
            An address redirected to what is not followed: a host without a public address or
            without https, one host after another, an address with your login in it, for a document
            any host that nothing names; or a file was larger than any that is accepted.
            Nothing of it was used, and no phase ran.
            If the host is right, name it in the package manager's own configuration.
        """,
        example="$ npm config set registry https://registry.example.org/",
    ),
    Code(
        "CR-FETCH-003",
        title="a dependency could not be fetched",
        text="""
            A registry does not have a file, refused it, or did not answer.
            The phases ran without the packages of that lock file.
            A private registry needs your own configuration of the package manager: it is used for
            the fetch and seen by no phase.
        """,
        example="$ cleanroom-engine fetch",
    ),
    Code(
        "CR-FETCH-004",
        title="a dependency is not in the store, and the run is offline",
        text="""
            With --offline nothing is fetched, and the store lacks files that a lock file names.
            Run `cleanroom-engine fetch` while there is a network.
        """,
        example="$ cleanroom-engine fetch && cleanroom-engine pipeline test --offline",
    ),
    Code(
        "CR-FETCH-005",
        title="the download itself failed",
        text="""
            The program that downloads files, in an environment of its own, ended without a result.
            The log of the fetch step, in the run's folder, has what it wrote.
        """,
        example="$ cleanroom-engine pipeline test --debug",
    ),
    Code(
        "CR-FETCH-006",
        title="a lock file cannot be read",
        text="""
            A lock file is not what its package manager writes, or of a version that is not known;
            or it is larger than 16 MiB, or all that a project has than 128 MiB.
            Write it again with the package manager.
        """,
        example="$ npm install --package-lock-only",
    ),
    Code(
        "CR-FETCH-007",
        title="a program of the fetch step broke a rule",
        text="""
            What fetches dependencies may reach the registries that lock files and your own
            configuration name, and nothing else.
            Its attempt was blocked and is in the report, and what it fetched is not used.
        """,
        example="$ cleanroom-engine report --open",
    ),
    Code(
        "CR-FETCH-008",
        title="an entry of a lock file is not fetched",
        text="""
            The lock file has an entry that has no digest or no address that can be fetched.
            The others were fetched; a phase that needs this one fails.
            The message says what writes the missing part.
        """,
        example="$ npm install",
    ),
    Code(
        "CR-FETCH-009",
        title="a package manager cannot prepare its packages",
        text="""
            The package manager, which resolves packages or lays them out for its own offline use,
            is not on PATH or failed; its message follows.
            The phases ran without these packages.
        """,
        example="$ uv sync",
    ),
    Code(
        "CR-FETCH-012",
        title="a package's archive is not unpacked",
        text="""
            The archive has the digest that the lock names, and holds what no package has: a link, a
            path that leads out of it, or more bytes than its package manager would accept.
            Or two locks of the project name different archives for one version.
            Nothing of it was used, and no phase ran.
        """,
        example="$ cleanroom-engine plan  # names the lock file",
    ),
    Code(
        "CR-FETCH-020",
        title="a package may come from any of several indexes",
        text="""
            The package manager has several indexes, and no digest pins the package: the highest
            version is taken, whichever index has it; Maven takes what its first repositories lack
            from the next one.
            Somebody who puts the name of a company's own package into a public index gives that one
            ("dependency confusion").
            What a lock pins by its digest comes from nobody else.
        """,
        example="$ uv pip compile --generate-hashes requirements.in -o requirements.txt",
    ),
)
