"""Packages that a project's lock files name: found, read, kept in a store, laid out for tools.

One module for each package manager, which knows its lock files, the addresses of its registry, the
layout that its tool reads offline, and the variables that lead the tool there.
`store` keeps files by their digest in the user's cache.
What reaches a network does not belong here: `engine/fetch` runs it, in an environment of its own,
and managers ask for it through the protocol `session.Session`.
"""
