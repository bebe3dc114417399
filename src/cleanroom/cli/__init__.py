"""The command: arguments, rendering, exit codes.

The only room that prints, and `engine` is its only door to what runs.

`main` is the console script and knows no library; `app` holds the table of commands;
each command is a module of its own that imports what it needs in its body,
so that `--help` stays quick.
"""
