"""Everything that runs beside phases: services and their restarts, the observation of environments,
the judgement of attempts, the output of processes. Knows no phase.
"""
