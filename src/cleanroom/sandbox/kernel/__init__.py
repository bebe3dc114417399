"""Thin wrappers over the kernel: system calls and their numbers, Landlock, control groups, id maps,
process trees, what a caller's /proc says. Nothing here decides what an environment may do.
"""
