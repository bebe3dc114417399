"""Services that outlive one run: held by a process of their own for a session or a pool,
and used by every run that joins it.

    ancestry   whose session this is: the nearest ancestor that is ggen discovery  finding the
    holder of a charge, or starting one: folder, lock, socket client     a run's side:
    ask for services, learn how they fare, hand over doors pool       asking a project's pool how it
    is, and ending it databases  what a pool's PostgreSQL servers have for each run server     the
    holder: supervises the services, serves those who joined, ends with its owner or when it is idle

A holder's id is the name of its folder under the cache's `runs`, so that it is journalled,
kept alive, cleaned up and swept as a run is.
Phases are not known here.
"""
