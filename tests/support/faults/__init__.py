"""Faults as data, and what carries them out."""
