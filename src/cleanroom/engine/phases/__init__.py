"""Running phases: environment, commands, verdict, and writing back to the project.

Services are requested from `supervision`.
`skipping` is the protocol by which a phase may be skipped; `phase_cache` implements it.
"""
