"""The judgement of an attempt: its severity under a policy, and the key of equal attempts.

Pure functions over values.
"""

from __future__ import annotations

from typing import Literal

from cleanroom.core.patterns import any_matches
from cleanroom.core.text import written_out_on_one_line
from cleanroom.model.capability import Attempt, aggregation_key, bracketed
from cleanroom.model.policy import Policy
from cleanroom.model.rule_codes import TOLD_ONLY

Severity = Literal["violation", "notice", "tolerated"]
# Attempts that well-behaved programs make unintentionally: byte code beside a mounted tool,
# a resolver's own sockets, a test whether a file exists.
NOTICE_TAGS = frozenset(("pycache", "resolver", "probe"))
# The C library itself looks for the sockets of resolvers and loggers, in every `ls -l`:
# no level counts that against a phase.
SOCKETS_RULE, HABITUAL_TAGS = "network.sockets", frozenset(("resolver", "probe"))
# git refreshes its index in `git status`, and goes on where it cannot
INDEX_TAG = "git-index"
# such a record is a query for a name that no packet followed:
# a packet would carry the name in its own record
NAMES_RULE = "network.names"
# of a declared host, which looked at the address that its name leads to
RELAY = "relay"
# kinds of addresses that `private = true` opens; a relay's record has its address's as tags
PRIVATE_TAGS = frozenset(("private", "shared", "documentation"))
RECORD_RULE = "network.record"


def judge(policy: Policy, attempt: Attempt) -> tuple[Severity, str] | None:
    """The severity of the attempt under this policy, and the reason.

    None for an attempt of a canary: it is evidence of the policy.
    """
    if "canary" in attempt.tags:
        return None
    for expected in policy.expected:
        if any_matches(_target_names(attempt), expected.target):
            return "tolerated", expected.reason
    if attempt.rule == SOCKETS_RULE and not HABITUAL_TAGS.isdisjoint(attempt.tags):
        return "notice", ", ".join(attempt.tags)
    if INDEX_TAG in attempt.tags:
        return "notice", "git refreshes the index of a repository that is shown read-only"
    if attempt.rule in TOLD_ONLY:
        return "notice", "further connections wait until one of them ends"
    if attempt.outcome == "observed" and attempt.rule == RECORD_RULE:
        return "notice", "allowed at this level, and recorded"
    harmless = attempt.rule == NAMES_RULE or not NOTICE_TAGS.isdisjoint(attempt.tags)
    if harmless and policy.forgives_harmless:
        return (
            "notice",
            "a name was asked for, no packet followed"
            if attempt.rule == NAMES_RULE
            else ", ".join(attempt.tags),
        )
    return "violation", _despite_declaration(policy, attempt)


def _despite_declaration(policy: Policy, attempt: Attempt) -> str:
    """Why a declared host was refused all the same; empty for a host that is not declared."""
    target = attempt.target
    asked = target.host or target.ip
    declared = {
        entry.rpartition(":")[2]: entry for entry in policy.egress if _names_host(entry, asked)
    }
    if not declared:
        return ""
    if str(target.port) not in declared:
        return f"the host is declared for port {' and '.join(declared)} only"
    if target.proto == "udp":
        return "the host is declared for tcp only"
    if attempt.mechanism != RELAY:
        return "the host is declared, but this address does not lead to it"
    return _inward(attempt, private=policy.opens_private(declared[str(target.port)]))


def _names_host(entry: str, asked: str) -> bool:
    """Whether an entry of `egress` names this host, or is a pattern of its name."""
    host = entry.rpartition(":")[0].strip("[]").lower()
    if host.startswith("*."):
        return asked.lower().endswith(host[1:])
    return bool(asked) and host == asked.lower()


def _inward(attempt: Attempt, *, private: bool) -> str:
    """What the address is to which a declared name leads, and what would open it."""
    target = attempt.target
    leads = f"{target.host or target.ip} leads to {target.ip}"
    kept = [tag for tag in attempt.tags if tag not in PRIVATE_TAGS]
    if kept:
        return f"{leads}, a {kept[0]} address, which no declaration opens"
    if attempt.tags and not private:
        return f"{leads}, a {attempt.tags[0]} address: add private = true to its egress entry"
    return f"{leads}, an address of this machine itself, which no declaration opens"


def _target_names(attempt: Attempt) -> tuple[str, ...]:
    """The names by which a person may expect the target.

    They are its parts, host and port together, and the text that lines and reports print.
    """
    target = attempt.target
    printed = str(target)
    hosts = [host for host in (target.host, target.ip) if host]
    ends = [f"{bracketed(host)}:{target.port}" for host in hosts]
    parts = (target.path, target.sun_path, target.limit, target.syscall)
    names = (*hosts, *ends, *parts, printed, written_out_on_one_line(printed))
    return tuple(name for name in names if name)


def attempt_key(attempt: Attempt) -> tuple[str, str, str]:
    """Attempts with the same key are one fact with a count."""
    return aggregation_key(attempt.rule, attempt.process, attempt.target)
