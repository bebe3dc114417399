"""Running phases: environment, commands, verdict, and what comes back to the project. Services are
asked of `supervision`; whether a phase may be skipped is asked through `skipping` and answered by
`phase_cache`.
"""
