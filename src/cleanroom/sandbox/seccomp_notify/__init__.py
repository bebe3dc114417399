"""The recorder: system calls that the filter holds (seccomp user notifications) are judged here,
answered or carried out for the caller, and recorded. One module for each kind of call.
"""
