"""The system call filters, assembled to BPF: which calls are allowed, held or refused.

A held call is decided in `seccomp_notify`.
"""
