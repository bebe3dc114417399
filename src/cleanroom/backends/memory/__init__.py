"""A scripted backend: programs, delays, attempts, samples and faults are data.

It touches nothing of the host but the project, and keeps the whole protocol of backends:
it delivers cancellation, counts what it makes, and writes layers back to the project.
Without a script no command runs, and every result says so (`ExecResult.ran`):
a run on it ends unverified.

What a script is made of is in `script` and `programs`; `cleanroom.testing` has the public names.
"""
