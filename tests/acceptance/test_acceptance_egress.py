"""What declared egress reaches on a network such as a company has, by runs of the command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.command_harness import Answer, Project
from support.company_network import FAR, NEXUS, PUBLIC, company_network, proxied

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and ip to make a network"
    ),
]

ASK = """
import socket, sys
for name in sys.argv[1:]:
    host, _, port = name.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), 5) as end:
            end.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            print(name, "said", end.recv(1000).rpartition(b"\\n")[2].decode())
    except OSError as error:
        print(name, "failed", type(error).__name__)
"""


# The same with namespaces, and without them.
TIERS = {
    "E2": "pass",
    "E3": """
import cleanroom.backends.embedded.backend as embedded
probe = embedded.EmbeddedBackend.probe
async def probe_without(self, *levels, **options):
    report = await probe(self, *levels, **options)
    self.use_host_namespaces()
    return report
embedded.EmbeddedBackend.probe = probe_without
""",
}


@pytest.fixture(params=TIERS)
def tier(request: pytest.FixtureRequest) -> str:
    """Python that makes the engine one of this tier."""
    return f"exec({TIERS[request.param]!r})"


def ran(project: Project, folder: Path, tier: str = "pass") -> Answer:
    words = project.argv("run", "test", "--backend", "embedded", "--output", "json", before=tier)
    with company_network(folder) as network:
        done = subprocess.run(
            [*network, *words],
            cwd=project.root,
            env=project.variables(),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
    return Answer(done.returncode, json.loads(done.stdout or "{}"), done.stderr)


def log(project: Project, phase: str = "test", answer: Answer | None = None) -> str:
    """What a phase printed, in the one run that there was, or in that of an answer."""
    run = answer.result["run_id"] if answer else "*"
    return next((project.root / ".ggen/cleanroom/runs").glob(f"{run}/logs/{phase}.log")).read_text()


def asks(project: Project, egress: str, *names: str) -> None:
    """One phase that asks these hosts."""
    (project.root / "ask.py").write_text(ASK)
    project.write({"test": f"/usr/bin/python3 ask.py {' '.join(names)}"}, egress=egress)


def test_a_private_host_is_reached_where_the_project_says_so(
    project: Project, tmp_path: Path, tier: str
):
    """As is one with a documentation address; a phase with egress is not hermetic."""
    egress = '[{ host = "nexus.corp", port = 8443, private = true }, '
    egress += '{ host = "sample.corp", private = true }]'
    asks(project, egress, "nexus.corp:8443", "sample.corp:443")
    answer = ran(project, tmp_path, tier)
    said = log(project)
    assert f"nexus.corp:8443 said hello from {NEXUS}" in said, answer.err
    assert "sample.corp:443 said hello from 192.0.2.7" in said
    assert (answer.code, answer.phase("test")["hermetic"]) == (0, False)


TUNNEL = """
import http.client, urllib.parse, urllib.request
proxy = urllib.parse.urlsplit(urllib.request.getproxies()["https"])
for name in ("far.example.net", "nexus.corp"):
    connection = http.client.HTTPConnection(proxy.hostname, proxy.port, timeout=5)
    connection.set_tunnel(name, 80)
    if urllib.request.proxy_bypass(name):
        connection = http.client.HTTPConnection(name, 8443, timeout=5)
    connection.request("GET", "/")
    print(name, "said", connection.getresponse().read().decode())
"""


def test_the_internet_is_reached_through_the_companys_proxy(
    project: Project, tmp_path: Path, tier: str
):
    """The caller's variables handed over and the proxy declared: names are resolved by the proxy,
    and what NO_PROXY names is reached without it.
    """
    (project.root / "tunnel.py").write_text(TUNNEL)
    egress = '[{ host = "proxy.corp", port = 3128, private = true }, '
    egress += '{ host = "nexus.corp", port = 8443, private = true }]'
    handed = '["HTTPS_PROXY", "NO_PROXY"]'
    project.write({"test": "/usr/bin/python3 tunnel.py"}, egress=egress, **{"pass": handed})
    project.caller = {"HTTPS_PROXY": "http://proxy.corp:3128", "NO_PROXY": ".corp"}
    answer = ran(project, tmp_path, tier)
    assert answer.code == 0, answer.err
    assert f"far.example.net said hello from {FAR}" in log(project)
    assert f"nexus.corp said hello from {NEXUS}" in log(project)
    assert proxied(tmp_path) == ["far.example.net:80"]
    assert answer.result["violations"] == []


def test_every_name_below_a_declared_domain_is_reached(project: Project, tmp_path: Path, tier: str):
    """At the declared port, twice by the same name, beside a name that is declared by itself; the
    domain's own name, another port and a datagram are refused, and said to be.
    """
    names = ("a.example.org:443", "b.example.org:443", "A.Example.ORG:443", "nexus.corp:8443")
    closed = ("example.org:443", "b.example.org:80", "nexus.corp:443", "none.example.org:443")
    egress = '["*.example.org:443", { host = "nexus.corp", port = 8443, private = true }]'
    asks(project, egress, *names, *closed)
    answer = ran(project, tmp_path, tier)
    said = log(project)
    for name in names:
        address = NEXUS if name.startswith("nexus") else PUBLIC
        assert f"{name} said hello from {address}" in said, answer.err
    assert said.count("failed") == len(closed)
    seen = {
        (row["target"]["host"], row["target"]["port"], row["reason"], row["process"]["comm"])
        for row in answer.result["violations"]
    }
    assert seen == {
        ("example.org", 443, "", "python3"),
        ("b.example.org", 80, "the host is declared for port 443 only", "python3"),
        ("nexus.corp", 443, "the host is declared for port 8443 only", "python3"),
    }


def test_a_pattern_opens_private_hosts_where_it_says_so(
    project: Project, tmp_path: Path, tier: str
):
    """Each name by what it leads to; a pattern adds its port to a name that is declared itself."""
    egress = '[{ host = "*.corp", private = true }, "*.corp:8443", "nexus.corp:80"]'
    asks(project, egress, "nexus.corp:443", "nexus.corp:8443", "self.corp:443")
    answer = ran(project, tmp_path, tier)
    assert f"nexus.corp:443 said hello from {NEXUS}" in log(project), answer.err
    assert sorted(row["reason"] for row in answer.result["violations"]) == [
        f"nexus.corp leads to {NEXUS}, a private address: add private = true to its egress entry",
        "self.corp leads to 10.1.2.1, an address of this machine itself, which no declaration "
        "opens",
    ]


KEEP = """
if test -e $CARGO_HOME/registry/one; then echo kept; exit; fi
echo fetched
mkdir -p $CARGO_HOME/registry $GOMODCACHE/a@v1 $npm_config_cache
echo crate > $CARGO_HOME/registry/one
echo module > $GOMODCACHE/a@v1/two
chmod -R a-w $GOMODCACHE/a@v1
"""
LATER = """
cat $CARGO_HOME/registry/one $GOMODCACHE/a@v1/two
mkdir -p $GOMODCACHE/b@v1 && test ! -e "$HOME/.cargo"
"""


def test_a_later_phase_has_what_one_with_egress_fetched(project: Project):
    """In the run, and in the next one: folders that cannot be written too, as Go leaves them."""
    (project.root / "keep.sh").write_text(KEEP)
    (project.root / "later.sh").write_text(LATER)
    project.write({"fetch": "sh -e keep.sh", "test": "sh -e later.sh"})
    project.add('[lifecycle.fetch.cleanroom]\negress = ["index.example.org:443"]\n')
    said = []
    for _ in range(2):
        answer = project.call("pipeline", "fetch", "test")
        assert answer.code == 0, answer.err
        said += log(project, "fetch", answer).split() + log(project, "test", answer).split()
    assert said == ["fetched", "crate", "module", "kept", "crate", "module"]
    alone = project.call("run", "test")  # as ggen does, one run for each phase
    assert (alone.code, log(project, "test", alone).split()) == (0, ["crate", "module"]), alone.err


def test_a_private_host_is_refused_by_saying_what_opens_it(
    project: Project, tmp_path: Path, tier: str
):
    """What no key opens (this machine's own address, a metadata server) says that instead."""
    egress = '["nexus.corp:8443", { host = "self.corp", private = true }, '
    egress += '{ host = "metadata.corp", port = 80, private = true }]'
    asks(project, egress, "nexus.corp:8443", "self.corp:443", "metadata.corp:80")
    answer = ran(project, tmp_path, tier)
    reasons = sorted(row["reason"] for row in answer.result["violations"])
    assert answer.code == 1
    assert reasons == [
        "metadata.corp leads to 169.254.169.254, a metadata address, which no declaration opens",
        f"nexus.corp leads to {NEXUS}, a private address: add private = true to its egress entry",
        "self.corp leads to 10.1.2.1, an address of this machine itself, which no declaration "
        "opens",
    ]
    assert "add private = true" in answer.err + json.dumps(answer.result)
