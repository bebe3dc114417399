"""Judging attempts and phases: pure functions."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cleanroom.backends.base import ExecResult
from cleanroom.cli.views.text import safe
from cleanroom.engine.phases.verdict import Cause, decisive, phase_causes, phase_verdict, verifies
from cleanroom.engine.supervision.judgement import judge
from cleanroom.model.capability import Attempt, Target
from cleanroom.model.errors import Exit, combined
from cleanroom.model.policy import Expected, Level, default_policy
from cleanroom.testing import egress_attempt

OK = ExecResult(exit_code=0, duration_seconds=1.0)


def attempt(**fields) -> Attempt:
    return msgspec.structs.replace(egress_attempt("192.0.2.1", 443), **fields)


def test_a_canarys_attempt_is_no_violation():
    """What a canary tried is its evidence and is not held against anybody."""
    assert judge(default_policy(Level.LOCKED), attempt(tags=("canary",))) is None


@pytest.mark.parametrize(
    ("level", "severity"),
    [
        (Level.LOW, "notice"),
        (Level.MEDIUM, "notice"),
        (Level.HIGH, "violation"),
        (Level.LOCKED, "violation"),
    ],
)
@pytest.mark.parametrize(
    "fields",
    [
        {"rule": "network.names"},
        {"tags": ("pycache",)},
        {"tags": ("resolver",)},
        {"tags": ("probe",)},
    ],
    ids=str,
)
def test_noise_is_a_notice_up_to_medium(level: Level, severity: str, fields: dict):
    """Byte code, resolvers and names without a packet are notices at Low and Medium and violations
    above.
    """
    judged = judge(default_policy(level), attempt(**fields))
    assert judged is not None
    assert judged[0] == severity


@pytest.mark.parametrize("tag", ["resolver", "probe"])
def test_the_c_librarys_own_sockets_are_held_against_nobody(tag: str):
    """Every `ls -l` looks for nscd's socket: a notice at each level,
    or no phase could pass at High.
    """
    judged = judge(default_policy(Level.LOCKED), attempt(rule="network.sockets", tags=(tag,)))
    assert judged == ("notice", tag)


@pytest.mark.parametrize("target", ["192.0.2.1", "192.0.2.1:443", "tcp 192.0.2.1:443", "192.0.2.*"])
def test_an_expected_target_is_tolerated(target: str):
    """`expected` names an address, address and port, the whole target, or a pattern."""
    policy = msgspec.structs.replace(
        default_policy(Level.HIGH), expected=(Expected(target=target, reason="known"),)
    )
    assert judge(policy, attempt()) == ("tolerated", "known")


def test_an_expected_path_is_no_licence_for_another():
    """Only the named path is tolerated."""
    policy = msgspec.structs.replace(
        default_policy(Level.MEDIUM), expected=(Expected(target="/etc/motd", reason="known"),)
    )
    assert judge(policy, attempt(rule="filesystem.write", target=Target(path="/etc/motd"))) == (
        "tolerated",
        "known",
    )
    assert judge(policy, attempt(rule="filesystem.write", target=Target(path="/etc/motd2"))) == (
        "violation",
        "",
    )


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (
            Target(host="a.example", ip="127.77.0.2", port=8081, proto="tcp"),
            "the host is declared for port 443 and 8080 only",
        ),
        (
            Target(host="a.example", ip="198.18.0.2", port=443, proto="tcp"),
            "the host is declared, but this address does not lead to it",
        ),
        (Target(ip="::1", port=443, proto="udp"), "the host is declared for tcp only"),
        (Target(host="b.example", ip="198.18.0.2", port=443, proto="tcp"), ""),
    ],
    ids=str,
)
def test_a_violation_says_why_a_declared_host_was_refused(target: Target, why: str):
    """Another port, another protocol, a private address: none of them is "not declared"."""
    egress = ("a.example:443", "a.example:8080", "[::1]:443")
    policy = msgspec.structs.replace(default_policy(Level.MEDIUM), egress=egress)
    assert judge(policy, attempt(target=target)) == ("violation", why)


def relayed(target: Target, tags: tuple[str, ...]) -> Attempt:
    """What the relay of a declared host refused."""
    return attempt(target=target, tags=tags, mechanism="relay")


@pytest.mark.parametrize(
    ("ip", "tags", "private", "why"),
    [
        ("8.8.8.8", (), False, "an address of this machine itself, which no declaration opens"),
        ("10.1.2.3", ("private",), False, "a private address: add private = true to its egress"),
        ("100.64.1.1", ("shared",), False, "a shared address: add private = true to its egress"),
        ("192.0.2.7", ("documentation",), False, "a documentation address: add private = true to"),
        ("10.1.2.3", ("private",), True, "an address of this machine itself, which no"),
        ("169.254.169.254", ("metadata",), True, "a metadata address, which no declaration opens"),
        ("127.0.0.1", ("loopback",), False, "a loopback address, which no declaration opens"),
    ],
)
def test_a_violation_says_what_a_declared_name_leads_to(
    ip: str, tags: tuple[str, ...], private: bool, why: str
):
    """With the key that opens it, where one does."""
    declared = ("nexus.corp:443", "*.inside.corp:443")
    policy = msgspec.structs.replace(
        default_policy(Level.MEDIUM),
        egress=declared,
        private_egress=declared if private else msgspec.UNSET,
    )
    for host in ("nexus.corp", "a.Inside.corp"):
        target = Target(host=host, ip=ip, port=443, proto="tcp")
        severity, reason = judge(policy, relayed(target, tags)) or ("", "")
        assert severity == "violation"
        assert reason.startswith(f"{host} leads to {ip}, {why}")
    for host in ("inside.corp", "notinside.corp"):
        target = Target(host=host, ip=ip, port=443, proto="tcp")
        assert judge(policy, relayed(target, tags)) == ("violation", "")


PRINTABLE = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
TARGETS = st.one_of(
    st.builds(Target, path=PRINTABLE.map(lambda name: f"/{name}")),
    st.builds(
        Target, host=PRINTABLE, port=st.integers(1, 65535), proto=st.sampled_from(["tcp", "udp"])
    ),
    st.builds(
        Target, ip=st.ip_addresses().map(str), port=st.integers(1, 65535), proto=st.just("tcp")
    ),
    st.builds(Target, sun_path=PRINTABLE),
)


@given(TARGETS)
@example(Target(path="/usr/share/[mark]"))
@example(Target(path="/a\nb[!c]"))
@example(Target(ip="::1", port=80, proto="tcp"))
def test_what_the_report_prints_is_tolerated_when_it_is_declared(target: Target):
    """A target pasted from a line into `expected` is tolerated, whatever characters it has."""
    for text in (str(target), safe(str(target))):
        policy = msgspec.structs.replace(
            default_policy(Level.MEDIUM), expected=(Expected(target=text, reason="known"),)
        )
        assert judge(policy, attempt(target=target)) == ("tolerated", "known"), text


@pytest.mark.parametrize(
    ("target", "declared"),
    [
        (Target(ip="::1", port=80, proto="tcp"), "[::1]:80"),
        (Target(ip="2001:db8::1", port=443, proto="tcp"), "[2001:db8::*]:443"),
        (Target(path="/srv/app/[slug]/page.tsx"), "/srv/app/[slug]/*"),
        (Target(path="/srv/file7"), "/srv/file[0-9]"),
    ],
    ids=str,
)
def test_square_brackets_are_a_set_and_themselves(target: Target, declared: str):
    """IPv6 addresses and route files are written with brackets:
    both readings of a pattern tolerate.
    """
    policy = msgspec.structs.replace(
        default_policy(Level.MEDIUM), expected=(Expected(target=declared, reason="known"),)
    )
    assert judge(policy, attempt(target=target)) == ("tolerated", "known")


def verdict(*results: ExecResult, **facts):
    return phase_verdict(
        results,
        **{"violations": 0, "reaction": "fail", "ended_for": "", "timeout_seconds": 5.0, **facts},
    )


def test_verdicts_of_a_phase():
    """Ended early, timeout, limit, exit status, attempts, nothing run, passed:
    in this order of importance.
    """
    failed = ExecResult(exit_code=7, duration_seconds=1.0)
    assert verdict(failed, ended_for="memory").result == "failed"
    assert verdict(msgspec.structs.replace(failed, timed_out=True)).result == "timeout"
    assert verdict(msgspec.structs.replace(failed, killed_for="memory")).code == "CR-PHASE-004"
    assert verdict(OK, failed)[:2] == ("failed", 7)
    assert verdict(OK, violations=1)[:2] == ("failed", 0)
    assert verdict(OK, violations=1, reaction="warn").result == "passed"
    assert verdict(msgspec.structs.replace(OK, ran=False))[:2] == ("unverified", None)
    assert verdict().result == "unverified"
    assert verdict(OK)[:2] == ("passed", 0)


def test_attempts_stand_before_the_exit_status_that_they_usually_explain():
    """Both are named, with the policy's code where such a phase would not pass anyway."""
    failed = ExecResult(exit_code=7, duration_seconds=1.0)
    assert verdict(failed)[2:] == ("exit status 7", "CR-PHASE-001")
    both = "2 attempts against the policy, exit status 7"
    assert verdict(failed, violations=2)[2:] == (both, "CR-PHASE-005")
    assert verdict(failed, violations=2, reaction="warn")[2:] == (both, "CR-PHASE-001")
    late = verdict(msgspec.structs.replace(failed, timed_out=True), violations=1)
    assert late.reason == "still running after 5 s, with one attempt against the policy"


@given(
    st.lists(
        st.sampled_from(
            ["passed", "failed", "error", "timeout", "refused", "skipped", "unverified"]
        )
    )
)
def test_a_run_is_green_only_when_something_passed(results):
    """Exit 0 needs one phase that passed and none that did not."""
    causes = [cause for result in results for cause in phase_causes("test", result, "", None)]
    green = decisive(causes).exit is Exit.OK and verifies(results)
    assert green == (
        "passed" in results and not {"failed", "error", "timeout", "refused"} & set(results)
    )


@given(st.lists(st.builds(Cause, st.sampled_from(Exit), st.text(min_size=1))))
def test_the_reason_is_that_of_the_exit_status(causes):
    """Whatever else counts against a run, what is said is the first cause of the status that it
    ends with.
    """
    chosen = decisive(causes)
    assert chosen.exit is combined([cause.exit for cause in causes])
    assert chosen == next((cause for cause in causes if cause.exit is chosen.exit), Cause(Exit.OK))


@given(st.lists(st.sampled_from(list(Exit))))
def test_a_file_to_edit_never_hides_a_signal(exits):
    """Usage errors rank below signals, trouble and refusals, above everything else,
    and are never lost.
    """
    code = combined(exits)
    strong = {Exit.INTERRUPTED, Exit.TERMINATED, Exit.ENGINE, Exit.REFUSED} & set(exits)
    assert code in strong if strong else (code is Exit.USAGE or Exit.USAGE not in exits)
