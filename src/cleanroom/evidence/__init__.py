"""What is left of a run for people and programs: the audit log, reports, traces.

Made of events alone, so that a recorded run gives the same again. Nothing here reads the bus; the
loops that do are in `subscribers`.
"""
