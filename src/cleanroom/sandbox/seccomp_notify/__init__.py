"""The recorder: answers the system calls that a filter holds, and records the attempts among them.

See seccomp_unotify(2).
`recorder` and `recorder_hostns` choose the judge of each call; there is one module for each kind of
call.
Which calls are held is decided in `seccomp`.
"""
