"""Judging attempts and phases: pure functions."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.backends.base import ExecResult
from cleanroom.capability import Attempt, Target
from cleanroom.errors import Exit, combined
from cleanroom.policy import Expected, Level, default_policy
from cleanroom.testing import egress_attempt
from cleanroom.verdicts import judge, phase_verdict, run_exits

OK = ExecResult(exit_code=0, duration_seconds=1.0)


def attempt(**fields) -> Attempt:
    return msgspec.structs.replace(egress_attempt("192.0.2.1", 443), **fields)


def test_a_canarys_attempt_is_no_violation():
    """What a canary tried is its evidence and is not held against anybody."""
    assert judge(default_policy(Level.LOCKED), attempt(tags=("canary",))) is None


@pytest.mark.parametrize(
    ("level", "severity"), [(Level.LOW, "notice"), (Level.MEDIUM, "notice"), (Level.HIGH, "violation"), (Level.LOCKED, "violation")]
)
@pytest.mark.parametrize(
    "fields", [{"rule": "network.names"}, {"tags": ("pycache",)}, {"tags": ("resolver",)}, {"tags": ("probe",)}], ids=str
)
def test_noise_is_a_notice_up_to_medium(level: Level, severity: str, fields: dict):
    """Byte code, resolvers and names without a packet are notices at Low and Medium and violations above."""
    judged = judge(default_policy(level), attempt(**fields))
    assert judged is not None
    assert judged[0] == severity


@pytest.mark.parametrize("tag", ["resolver", "probe"])
def test_the_c_librarys_own_sockets_are_held_against_nobody(tag: str):
    """Every `ls -l` looks for nscd's socket: a notice at each level, or no phase could pass at High."""
    judged = judge(default_policy(Level.LOCKED), attempt(rule="network.sockets", tags=(tag,)))
    assert judged == ("notice", tag)


@pytest.mark.parametrize("target", ["192.0.2.1", "192.0.2.1:443", "tcp 192.0.2.1:443", "192.0.2.*"])
def test_an_expected_target_is_tolerated(target: str):
    """`expected` names an address, address and port, the whole target, or a pattern."""
    policy = msgspec.structs.replace(default_policy(Level.HIGH), expected=(Expected(target=target, reason="known"),))
    assert judge(policy, attempt()) == ("tolerated", "known")


def test_an_expected_path_is_no_licence_for_another():
    """Only the named path is tolerated."""
    policy = msgspec.structs.replace(default_policy(Level.MEDIUM), expected=(Expected(target="/etc/motd", reason="known"),))
    assert judge(policy, attempt(rule="filesystem.write", target=Target(path="/etc/motd"))) == ("tolerated", "known")
    assert judge(policy, attempt(rule="filesystem.write", target=Target(path="/etc/motd2"))) == ("violation", "")


def verdict(*results: ExecResult, **facts):
    return phase_verdict(results, **{"violations": 0, "reaction": "fail", "ended_for": "", "timeout_seconds": 5.0, **facts})


def test_verdicts_of_a_phase():
    """Ended early, timeout, limit, exit status, attempts, nothing run, passed: in this order of importance."""
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


@given(st.lists(st.sampled_from(["passed", "failed", "error", "timeout", "refused", "skipped", "unverified"])))
def test_a_run_is_green_only_when_something_passed(results):
    """Exit 0 needs one phase that passed and none that did not."""
    green = combined(run_exits(results)) is Exit.OK
    assert green == ("passed" in results and not {"failed", "error", "timeout", "refused"} & set(results))


@given(st.lists(st.sampled_from(list(Exit))))
def test_a_file_to_edit_never_hides_a_signal(exits):
    """Usage errors rank below signals, trouble and refusals, above everything else, and are never lost."""
    code = combined(exits)
    strong = {Exit.INTERRUPTED, Exit.TERMINATED, Exit.ENGINE, Exit.REFUSED} & set(exits)
    assert code in strong if strong else (code is Exit.USAGE or Exit.USAGE not in exits)
