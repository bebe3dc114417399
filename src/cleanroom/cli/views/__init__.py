"""How things read: a run while it runs and when it has ended, traces, failures. Text and lines from
values; nothing here starts or reads a run.
"""
