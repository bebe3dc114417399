"""CR-NET: rules about the network."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-NET-003",
        title="a connection that the policy does not allow was refused",
        text="""
            A process of the phase tried to reach an address that is not declared, or a declared
            host at another port, or one whose name leads to a private or special address, which the
            violation then says; nothing left the machine.
            The violation in the run's summary, in `--output json` and in the report names the
            process with its command line and the target; `cleanroom-engine events show` has each
            attempt in order.
            If the phase has to reach it, declare it for that phase: `cleanroom.egress =
            ["host:443"]` (Medium and below; the phase is then reported as not hermetic).
            If the violation says that the name leads to a private address, as inside a company,
            declare it as one: `cleanroom.egress = [{ host = "nexus.corp", port = 8443, private =
            true }]`.
            Addresses of this machine itself, link-local ones and metadata servers are not opened
            by any declaration.
            If it is a service, name it in `cleanroom.containers`.
            If the attempt is known and harmless, such as a version check, tolerate it with
            `cleanroom.expected = [{ target = "host:443", reason = "..." }]`: it stays blocked and
            reported.
            Dependencies should be installed before the phase, not during it.
        """,
        example="""
            [lifecycle.test]
            cleanroom.egress = ["index.example.org:443", { host = "nexus.corp", private = true }]
        """,
    ),
    Code(
        "CR-NET-004",
        title="a name that was not declared was looked up",
        text="""
            A process asked for the address of a host that is neither a declared service nor in
            `cleanroom.egress`.
            The answer led nowhere.
            At Low and Medium a question without a connection after it is a notice, above it is a
            violation.
            Declare the host in `cleanroom.egress` or `cleanroom.expected`, or switch the look-up
            off in the tool (telemetry and update checks are the usual cause).
        """,
        example=r"""
            [lifecycle.test]
            cleanroom.expected = [{ target = "telemetry.example.org", \
                reason = "the tool counts its starts" }]
        """,
    ),
    Code(
        "CR-NET-005",
        title="an unusual kind of socket was refused",
        text="""
            Raw, packet, vsock and other uncommon socket families could go around the network's
            isolation, so they are refused at every level.
            Tools such as ping and tcpdump need them: test reachability with a protocol answer of
            the service instead.
        """,
        example=r"""
            [lifecycle.test]
            cleanroom.expected = [{ target = "socket AF_NETLINK", \
                reason = "the tool lists interfaces and does without them" }]
        """,
    ),
    Code(
        "CR-NET-006",
        title="a unix socket of the host was about to be used",
        text="""
            From Medium on no socket of the host (a container engine's, an agent's, a message bus's)
            is reachable from inside.
            Declare what the phase needs as a service in `cleanroom.containers`, or run that one
            phase with `cleanroom.enabled = false`, which every report says.
        """,
        example="""
            [lifecycle.test]
            cleanroom.containers = ["postgres"]
        """,
    ),
    Code(
        "CR-NET-007",
        title="a port that is not declared was about to be listened on",
        text="""
            At High and Locked a phase may listen only on the ports in `cleanroom.listen`.
            Add the port there, or use an address that the test chooses among the declared ones.
        """,
        example="""
            [lifecycle.test]
            cleanroom.listen = [8080]
        """,
    ),
    Code(
        "CR-NET-008",
        title="an address of the host itself, or a link-local one, was about to be reached",
        text="""
            At Low a phase uses the host's network, but neither its loopback, where other programs
            of this machine wait, nor link-local addresses, where clouds hand out credentials.
            What the phase itself listens on is reached; declare what else it needs as a service in
            `cleanroom.containers`.
        """,
        example="""
            [lifecycle.test]
            cleanroom.containers = ["postgres"]
        """,
    ),
    Code(
        "CR-NET-009",
        title="a port was about to be opened to other machines",
        text="""
            At Low a phase uses the host's network, so it may listen on 127.0.0.1 and ::1 only: on
            all addresses, others could come.
            Bind to 127.0.0.1, or use Medium, where the network is the phase's own.
        """,
        example="""
            [lifecycle.serve]
            command = "python3 -m http.server --bind 127.0.0.1 8000"
        """,
    ),
    Code(
        "CR-NET-010",
        title="a socket that starts programs outside was about to be used",
        text="""
            Whoever reaches the socket of a container engine, a service manager, a session bus, an
            agent, a terminal or an editor can start programs outside, or act as the user, so no
            level lets a phase do that; nor does any key.
            Run that one phase with `cleanroom.enabled = false`, which every report says.
        """,
        example="""
            [lifecycle.image]
            command = "docker build ."
            cleanroom.enabled = false
        """,
    ),
    Code(
        "CR-NET-011",
        title="a connection was made, and recorded",
        text="""
            At Low the network may be used; each target is recorded with the process that reached
            it, so that you see what the phase depends on before it runs at Medium.
        """,
        example="""
            [lifecycle.fetch]
            cleanroom.policy = "Medium"
            cleanroom.egress = ["index.example.org:443"]  # what was recorded
        """,
    ),
)
