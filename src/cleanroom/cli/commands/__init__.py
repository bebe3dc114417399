"""The commands, one module each, which imports what it needs in its body, so that `--help` stays
quick. What two commands share is in `session`, `views`, `options` or `output`.
"""
