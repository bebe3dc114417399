"""The codes of the policy's rules, apart from their texts: each violation has one."""

from __future__ import annotations

# A rule of the policy -> the code under which its violations are explained.
RULE_CODES: dict[str, str] = {
    "filesystem.write": "CR-FS-001",
    "filesystem.metadata": "CR-FS-002",
    "filesystem.secrets": "CR-FS-003",
    "filesystem.workspace": "CR-FS-004",
    "filesystem.reads": "CR-FS-005",
    "network.egress": "CR-NET-003",
    "network.names": "CR-NET-004",
    "network.families": "CR-NET-005",
    "network.sockets": "CR-NET-006",
    "network.listen": "CR-NET-007",
    "network.local": "CR-NET-008",
    "network.publish": "CR-NET-009",
    "network.runtimes": "CR-NET-010",
    "network.record": "CR-NET-011",
    "process.tree": "CR-PROC-001",
    "process.visibility": "CR-PROC-002",
    "process.privileges": "CR-PROC-003",
    "process.syscalls": "CR-PROC-004",
    "process.exec": "CR-PROC-005",
    "resource.memory": "CR-RES-001",
    "resource.pids": "CR-RES-002",
    "resource.time": "CR-RES-003",
    "resource.disk": "CR-RES-004",
    "resource.connections": "CR-RES-005",
}
# What is told, and breaks no rule: no policy has it as a control.
TOLD_ONLY = frozenset(("resource.connections",))
