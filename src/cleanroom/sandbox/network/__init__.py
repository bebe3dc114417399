"""Where an environment may connect to, and what leads it there: relays, name answers, addresses,
routes, unix sockets. Held network calls are judged in `seccomp_notify`.
"""
