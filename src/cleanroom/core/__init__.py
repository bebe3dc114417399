"""What every room may use: the bus, time, secrets, files that are whole or not there, paths that
no link leads astray, programs of the host.

Admitted is what knows no run, no phase and no service, and what two rooms need. Everything else
belongs to the room that owns it.
"""
