"""The system call filters, assembled to BPF: which calls are let go, held or refused. What becomes
of a held call is decided in `seccomp_notify`.
"""
