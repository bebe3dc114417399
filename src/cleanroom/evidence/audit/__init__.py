"""The tamper-evident log: its format and how it is checked, and writing it.

`docs/audit.md` says it for people.
"""
