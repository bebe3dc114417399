"""Environments from namespaces, Landlock and seccomp, and those without namespaces, as the engine
sees them: describing them for a warden, talking to it, workspaces. What happens in the kernel is
in `sandbox`.
"""
