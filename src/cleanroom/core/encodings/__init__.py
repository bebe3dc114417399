"""The forms in which programs print a value, and how a text reads once they are undone.

Pure functions over bytes.
A text is read in three ways: with escapes undone (`escapes`), as base64 (`base64_text`), and as
hexadecimal digits (`hex_digits`).
Each gives positions in the text itself for what is found.
The time of each is proportional to the text, whatever is in it: every repetition in the
expressions is bounded.
Nothing here knows what a secret is; `core/redaction.py` does.
"""
