"""11.1: everything that could lead out of the environment by a socket."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import threading

from support.attacks.suite import REFUSED, ExpectedRecord, Facts, Steps, attack, code, each, system

MPTCP, FAST_OPEN, PATIENCE = 262, 0x20000000, 2.0
QUESTION = b"\x12\x34\1\0\0\1\0\0\0\0\0\0\5asked\7example\0\0\1\0\1"


def egress(ip: str, port: int, **more: str) -> ExpectedRecord:
    return ExpectedRecord("network.egress", {"ip": ip, "port": port, **more})


def family(name: str) -> ExpectedRecord:
    return ExpectedRecord("network.families", {"proto": name})


def connect(
    ip: str, port: int, kind: int = socket.SOCK_STREAM, protocol: int = 0, scope: int = 0
) -> str:
    """Connect and say so; a hang is said too."""
    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, kind, protocol) as probe:
        probe.settimeout(PATIENCE)
        probe.connect((ip, port, 0, scope) if ":" in ip else (ip, port))
    return "connected"


def connect_and_send(ip: str, port: int) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((ip, port))
        probe.send(b"out")
    return "sent"


def unix(path: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PATIENCE)
        probe.connect(path)
    return "connected"


def send(
    ip: str, port: int, data: bytes = b"out", flags: int = 0, kind: int = socket.SOCK_DGRAM
) -> None:
    with socket.socket(socket.AF_INET, kind) as probe:
        if ip.endswith(".255"):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        probe.sendto(data, flags, (ip, port))


def send_message(ip: str, port: int, flags: int = 0, kind: int = socket.SOCK_DGRAM) -> None:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.sendmsg([b"out"], [], flags, (ip, port))


def send_many(facts: Facts, ip: str, port: int) -> None:
    """sendmmsg with one datagram: address, vector and header laid out by hand."""
    address = ctypes.create_string_buffer(
        struct.pack("=H", socket.AF_INET)
        + struct.pack("!H", port)
        + socket.inet_aton(ip)
        + bytes(8),
        16,
    )
    data = ctypes.create_string_buffer(b"out", 3)
    vector = ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(data), 3), 16)
    header = struct.pack(
        "=QI4xQQQQi4xI4x", ctypes.addressof(address), 16, ctypes.addressof(vector), 1, 0, 0, 0, 0
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        system(facts, "sendmmsg", probe.fileno(), header, 1, 0)


@attack(
    "NET-01",
    "TCP connect to an address outside",
    "B",
    REFUSED,
    egress("192.0.2.1", 443, proto="tcp"),
)
def tcp(facts: Facts) -> Steps:
    return each(connect=lambda: connect("192.0.2.1", 443))


@attack("NET-02", "TCP connect over IPv6", "B", REFUSED, egress("2001:db8::1", 443))
def tcp6(facts: Facts) -> Steps:
    return each(connect=lambda: connect("2001:db8::1", 443))


@attack(
    "NET-03",
    "UDP in all four forms",
    "B",
    # connecting a datagram socket sends nothing: what it sends then is the attempt
    {"*": REFUSED, "connected": f"sent {REFUSED}"},
    *(egress("192.0.2.9", port, proto="udp") for port in (123, 124, 125, 126)),
)
def udp(facts: Facts) -> Steps:
    return each(
        connected=lambda: connect_and_send("192.0.2.9", 123),
        sendto=lambda: send("192.0.2.9", 124),
        sendmsg=lambda: send_message("192.0.2.9", 125),
        sendmmsg=lambda: send_many(facts, "192.0.2.9", 126),
    )


def sink_answer(address: str) -> str:
    return "sink" if address.startswith(("198.18.", "198.19.")) else address


@attack(
    "NET-04",
    "a question for an undeclared name, configured resolver",
    "O",
    "sink",
    ExpectedRecord("network.names", {"host": "nobody-declared-this.example"}),
)
def undeclared_name(facts: Facts) -> Steps:
    return each(resolve=lambda: sink_answer(socket.gethostbyname("nobody-declared-this.example")))


@attack(
    "NET-05",
    "a question straight to a foreign resolver, UDP and TCP",
    "O",
    REFUSED,
    ExpectedRecord("network.names", {"ip": "192.0.2.53", "proto": "udp"}),
    ExpectedRecord("network.names", {"ip": "192.0.2.53", "proto": "tcp"}),
)
def foreign_resolver(facts: Facts) -> Steps:
    return each(udp=lambda: send("192.0.2.53", 53, QUESTION), tcp=lambda: connect("192.0.2.53", 53))


@attack(
    "NET-06",
    "a question to 127.0.0.11 and 127.0.0.53",
    "O",
    "sink silence ECONNREFUSED",
    ExpectedRecord("network.names", {"host": "asked.example"}),
)
def local_resolvers(facts: Facts) -> Steps:
    def ask(ip: str) -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.settimeout(PATIENCE)
            probe.connect((ip, 53))
            probe.send(QUESTION)
            return sink_answer(socket.inet_ntoa(probe.recv(512)[-4:]))

    return each(docker=lambda: ask("127.0.0.11"), resolved=lambda: ask("127.0.0.53"))


@attack(
    "NET-07",
    "create_connection to a name: one record with host, ip and port",
    "B",
    REFUSED,
    ExpectedRecord("network.egress", {"host": "api.shop.example", "port": 443}),
)
def by_name(facts: Facts) -> Steps:
    return each(
        connect=lambda: socket.create_connection(("api.shop.example", 443), PATIENCE).close()
    )


@attack("NET-08", "TCP Fast Open by sendto", "B", REFUSED, egress("192.0.2.8", 80))
def fast_open(facts: Facts) -> Steps:
    return each(sendto=lambda: send("192.0.2.8", 80, b"out", FAST_OPEN, socket.SOCK_STREAM))


@attack("NET-09", "TCP Fast Open by sendmsg", "B", REFUSED, egress("192.0.2.8", 81))
def fast_open_message(facts: Facts) -> Steps:
    return each(sendmsg=lambda: send_message("192.0.2.8", 81, FAST_OPEN, socket.SOCK_STREAM))


@attack("NET-10", "MPTCP connect", "B", REFUSED, egress("192.0.2.10", 443))
def mptcp(facts: Facts) -> Steps:
    return each(connect=lambda: connect("192.0.2.10", 443, socket.SOCK_STREAM, MPTCP))


def listening(ip: str = "", port: int = 0, protocol: int = 0) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol) as listener:
        if ip:
            listener.bind((ip, port))
        listener.listen()


@attack(
    "NET-11", "MPTCP bind and listen in the private network", "A", "ok EPROTONOSUPPORT ENOPROTOOPT"
)
def mptcp_listen(facts: Facts) -> Steps:
    return each(listen=lambda: listening("127.0.0.1", 8081, MPTCP))


@attack("NET-12", "listen without bind in the private network", "A")
def listen_without_bind(facts: Facts) -> Steps:
    return each(listen=lambda: listening())


@attack(
    "NET-13",
    "bind 0.0.0.0 and listen in the private network; below 1024",
    "A",
    {"*": "ok", "low": "EACCES"},
)
def listen_everywhere(facts: Facts) -> Steps:
    return each(listen=lambda: listening("0.0.0.0", 8080), low=lambda: listening("0.0.0.0", 80))


@attack(
    "NET-15",
    "the metadata service and link-local addresses",
    "B",
    REFUSED + " EINVAL",
    egress("169.254.169.254", 80),
    egress("fe80::1", 80),
)
def link_local(facts: Facts) -> Steps:
    return each(
        metadata=lambda: connect("169.254.169.254", 80),
        link=lambda: connect("fe80::1", 80, scope=1),
    )


@attack("NET-16", "a listener on the host's 127.0.0.1 and ::1", "b", "ECONNREFUSED EADDRNOTAVAIL")
def host_loopback(facts: Facts) -> Steps:
    return each(
        four=lambda: connect("127.0.0.1", facts["port"]), six=lambda: connect("::1", facts["port"])
    )


@attack(
    "NET-17",
    "a listener on an address of the host",
    "B",
    REFUSED,
    ExpectedRecord("network.egress", {"ip": "{address}", "port": "{port}"}),
)
def host_address(facts: Facts) -> Steps:
    return each(connect=lambda: connect(facts["address"], facts["port"]))


@attack(
    "NET-19",
    "an undeclared port of a declared host",
    "B",
    REFUSED,
    ExpectedRecord("network.egress", {"host": "declared.example", "port": 444}),
)
def undeclared_port(facts: Facts) -> Steps:
    address = ("declared.example", 444)
    return each(connect=lambda: socket.create_connection(address, PATIENCE).close())


@attack(
    "NET-20",
    "a declared name that leads to the host's loopback",
    "B",
    "closed ECONNRESET",
    ExpectedRecord("network.egress", {"host": "localhost", "ip": "127.0.0.1"}),
)
def rebound(facts: Facts) -> Steps:
    def read() -> str:
        with socket.create_connection(("127.77.0.2", facts["port"]), PATIENCE) as probe:
            return "answered" if probe.recv(1) else "closed"

    return each(read=read)


@attack(
    "NET-22",
    "ICMP echo, raw and datagram",
    "B",
    "EAFNOSUPPORT",
    family("raw socket, protocol 1"),
    family("icmp"),
)
def ping(facts: Facts) -> Steps:
    return each(
        raw=lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close(),
        datagram=lambda: socket.socket(
            socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP
        ).close(),
    )


@attack(
    "NET-23",
    "raw and packet sockets",
    "B",
    "EAFNOSUPPORT",
    family("raw socket, protocol 255"),
    family("AF_PACKET"),
)
def raw_sockets(facts: Facts) -> Steps:
    return each(
        raw=lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 255).close(),
        packet=lambda: socket.socket(17, socket.SOCK_RAW, 0x300).close(),
    )


@attack(
    "NET-24", "vsock, which no network namespace contains", "B", "EAFNOSUPPORT", family("AF_VSOCK")
)
def vsock(facts: Facts) -> Steps:
    return each(
        host=lambda: socket.socket(40, socket.SOCK_STREAM).connect((2, 9)),
        own=lambda: socket.socket(40, socket.SOCK_DGRAM).close(),
    )


@attack(
    "NET-25",
    "AF_ALG, SCTP, DCCP, TIPC, RDS, CAN",
    "B",
    "EAFNOSUPPORT",
    family("AF_ALG"),
    family("AF_CAN"),
    family("AF_TIPC"),
    family("AF_RDS"),
)
def unusual(facts: Facts) -> Steps:
    kinds = {
        "alg": (38, socket.SOCK_SEQPACKET, 0),
        "sctp": (2, 1, 132),
        "dccp": (2, 6, 33),
        "tipc": (30, 1, 0),
        "rds": (21, 5, 0),
        "can": (29, 3, 1),
    }
    return each(
        **{name: lambda kind=kind: socket.socket(*kind).close() for name, kind in kinds.items()}
    )


def netlink(kind: int, body: bytes, *, addressed: bool) -> str:
    """One request to the kernel's routing; what it answers."""
    message = struct.pack("=IHHII", 16 + len(body), kind, 5, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as link:
        link.settimeout(PATIENCE)
        if addressed:
            link.sendto(message, (0, 0))
        else:
            link.send(message)
        error = -struct.unpack_from("=i", link.recv(4096), 16)[0]
    if error:
        raise OSError(error, "netlink")
    return "changed"


ADDRESS = struct.pack("=BBBBI", 2, 24, 0, 0, 1) + struct.pack("=HH4s", 8, 2, b"\xc0\x00\x02\x05")
ROUTE = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 4, 0, 1, 0) + struct.pack("=HHI", 8, 4, 1)
DOWN = struct.pack("=BxHiII", 0, 0, 1, 0, 1)


@attack(
    "NET-26",
    "netlink: add an address, a route; take a link down",
    "B",
    "EPERM",
    *(
        ExpectedRecord("network.egress", {"proto": "netlink", "syscall": f"netlink message {kind}"})
        for kind in (20, 24, 16)
    ),
)
def change_network(facts: Facts) -> Steps:
    return each(
        address=lambda: netlink(20, ADDRESS, addressed=True),
        route=lambda: netlink(24, ROUTE, addressed=True),
        down=lambda: netlink(16, DOWN, addressed=True),
    )


@attack(
    "NET-26b",
    "the same by send without an address",
    "B",
    "EPERM",
    ExpectedRecord("network.egress", {"proto": "netlink"}),
)
def change_network_unaddressed(facts: Facts) -> Steps:
    return each(
        address=lambda: netlink(20, ADDRESS, addressed=False),
        route=lambda: netlink(24, ROUTE, addressed=False),
    )


RUNTIMES = (
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/podman/podman.sock",
    "/run/containerd/containerd.sock",
)


@attack(
    "NET-27",
    "control sockets of container runtimes",
    "B",
    "ENOENT EACCES",
    *(ExpectedRecord("network.sockets", {"sun_path": path}) for path in RUNTIMES),
)
def runtime_sockets(facts: Facts) -> Steps:
    return {path: code(lambda path=path: unix(path)) for path in RUNTIMES}


@attack(
    "NET-28",
    "the caller's agent socket, D-Bus, a socket of the user's runtime folder",
    "B",
    "ENOENT EACCES",
    ExpectedRecord("network.sockets", {"sun_path": "{agent}"}),
    ExpectedRecord("network.sockets", {"sun_path": "/run/dbus/system_bus_socket"}),
    ExpectedRecord("network.sockets", {"sun_path": "/run/user/1000/bus"}),
)
def user_sockets(facts: Facts) -> Steps:
    return each(
        agent=lambda: unix(facts["agent"]),
        system=lambda: unix("/run/dbus/system_bus_socket"),
        user=lambda: unix("/run/user/1000/bus"),
    )


@attack(
    "NET-29",
    "an abstract unix socket of a host process",
    "B",
    "ECONNREFUSED EPERM",
    ExpectedRecord("network.sockets", {"sun_path": "@{abstract}"}),
)
def abstract(facts: Facts) -> Steps:
    return each(connect=lambda: unix("\0" + facts["abstract"]))


@attack("NET-30", "io_uring, by which a connection would pass every filter", "b", "ENOSYS")
def uring(facts: Facts) -> Steps:
    return each(
        setup=lambda: system(facts, "io_uring_setup", 8, bytes(120)),
        enter=lambda: system(facts, "io_uring_enter", 9, 1, 0, 0, None, 0),
    )


@attack("NET-31", "a descriptor that the parent left open", "b", {"*": "EBADF", "open": "0 1 2"})
def inherited(facts: Facts) -> Steps:
    steps = each(
        **{f"fd{number}": lambda number=number: os.fstat(number) for number in range(3, 64)}
    )
    return steps | each(nine=lambda: fcntl.fcntl(9, fcntl.F_GETFD))


@attack(
    "NET-32",
    "setns into another network namespace",
    "B",
    {"*": "EPERM", "init": "EACCES EPERM ENOENT"},
    ExpectedRecord("process.syscalls", {"syscall": "setns"}),
)
def enter_network(facts: Facts) -> Steps:
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    return each(
        init=lambda: os.close(os.open("/proc/1/ns/net", os.O_RDONLY)),
        own=lambda: system(facts, "setns", own, 0x40000000),
    )


@attack(
    "NET-33",
    "connect from a second thread, and from a grandchild after setsid and a double fork",
    "B",
    {"*": REFUSED, "pid": "*"},
    egress("192.0.2.33", 1),
    egress("192.0.2.33", 2),
)
def by_others(facts: Facts) -> Steps:
    said: Steps = {}
    thread = threading.Thread(
        target=lambda: said.update(each(thread=lambda: connect("192.0.2.33", 1)))
    )
    thread.start()
    thread.join()
    near, far = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(far, f"{os.getpid()} {code(lambda: connect('192.0.2.33', 2))}".encode())
        os._exit(0)
    os.close(far)
    pid, _, result = os.read(near, 100).decode().partition(" ")
    return said | {"grandchild": result, "pid": pid}


@attack(
    "NET-34",
    "broadcast and multicast",
    "B",
    REFUSED,
    egress("255.255.255.255", 9),
    egress("224.0.0.251", 5353),
)
def to_many(facts: Facts) -> Steps:
    return each(
        broadcast=lambda: send("255.255.255.255", 9), multicast=lambda: send("224.0.0.251", 5353)
    )


@attack(
    "NET-35",
    "a second thread rewrites the address of a held connect",
    "B",
    "ECONNREFUSED ENETUNREACH",
    egress("192.0.2.35", 9),
)
def rewrite(facts: Facts) -> Steps:
    """The results of a try outside and 500 more; the address is the loopback's (where nobody
    listens) or one outside, as the race has it.
    """
    own, outside = socket.inet_aton("127.0.0.1"), socket.inet_aton("192.0.2.35")
    address = ctypes.create_string_buffer(
        struct.pack("=H", socket.AF_INET) + struct.pack("!H", 9) + own + bytes(8), 16
    )
    going = True

    def flip() -> None:
        while going:
            ctypes.memmove(ctypes.addressof(address) + 4, outside, 4)
            ctypes.memmove(ctypes.addressof(address) + 4, own, 4)

    def connect() -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            return code(
                lambda: (
                    system(facts, "connect", probe.fileno(), ctypes.addressof(address), 16) and None
                )
            )

    ctypes.memmove(ctypes.addressof(address) + 4, outside, 4)
    found = {connect()}
    thread = threading.Thread(target=flip)
    thread.start()
    for _ in range(500):
        found.add(connect())
    going = False
    thread.join()
    return {name: name for name in found}


@attack(
    "NET-35b",
    "the same with the path of a unix socket in a visible folder",
    "B",
    "tried",
    ExpectedRecord("network.sockets", {"sun_path": "{agent}"}),
)
def rewrite_path(facts: Facts) -> Steps:
    """A thousand tries; what counts is that the planted socket heard nothing."""
    own = "/tmp/own.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(own)
    listener.listen(2000)
    paths = [path.encode().ljust(104, b"\0") for path in (facts["agent"], own)]
    address = ctypes.create_string_buffer(struct.pack("=H", socket.AF_UNIX) + paths[1], 108)
    going = True

    def flip() -> None:
        while going:
            for path in paths:
                ctypes.memmove(ctypes.addressof(address) + 2, path, 104)

    thread = threading.Thread(target=flip)
    thread.start()
    for _ in range(1000):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            code(
                lambda probe=probe: (
                    system(facts, "connect", probe.fileno(), ctypes.addressof(address), 106)
                    and None
                )
            )
    going = False
    thread.join()
    return {"result": "tried"}


@attack("NET-36", "a thousand refused connections in a loop", "B", REFUSED, egress("192.0.2.36", 9))
def many(facts: Facts) -> Steps:
    return {"all": " ".join(sorted({code(lambda: connect("192.0.2.36", 9)) for _ in range(1000)}))}


@attack(
    "NET-38",
    "a foreign address while a listener on 0.0.0.0 is open inside",
    "B",
    REFUSED,
    egress("198.51.100.34", 8090),
)
def not_loopback(facts: Facts) -> Steps:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        code(lambda: listener.bind(("0.0.0.0", 8090)))  # refused where listening is
        code(listener.listen)
        return each(connect=lambda: connect("198.51.100.34", 8090))
