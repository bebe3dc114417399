"""Services that outlive one run: supervised by a process of their own for a session or a pool,
and used by every run that joins it.

    ancestry        the nearest ancestor that is ggen, whose session this is
    discovery       finding the server of a configuration, or starting one: folder, lock, socket
    protocol        the messages between a run and a server
    client          a run's side: requesting services, following their states, handing over sockets
    up              the side of `up` and `down`
    pool            a project pool's status, and its end
    databases       creating and removing databases of a pool's PostgreSQL servers
    service_table   the server's services by name
    leases          which run has which part of a pool
    published       services on ports of the host, for `up`
    joined_runs     the server's side of each run
    server          the process: opens all of this, and ends with its owner or when it is idle

A server's id is the name of its folder under the cache's `runs`, so that it is journalled,
kept alive, cleaned up and swept as a run is.
Phases are not known here.
"""
