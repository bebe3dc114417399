"""Attacks as data, and what carries them out."""
