"""The version, in a module that imports nothing: the command's quick answer and every record of a
run quote it.
"""

__version__ = "0.1.0"
