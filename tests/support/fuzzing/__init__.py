"""Hostile inputs for every file that a command reads, and what is claimed of each."""
