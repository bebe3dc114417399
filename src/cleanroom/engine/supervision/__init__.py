"""What lives beside phases: services and their restarts, environments under observation, judging
their attempts, what processes print. Knows no phase.
"""
