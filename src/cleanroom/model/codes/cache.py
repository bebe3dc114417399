"""CR-CACHE: the user's cache."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-CACHE-001",
        title="the cache could be changed by others",
        text="""
            Layers, services' data and what homes keep lie in the cache (CLEANROOM_CACHE, else the
            user's cache folder) and are mounted from there.
            So it has to be a folder, no link, that belongs to you and that only you can write to,
            and so have ours in it; every folder and link on the way to it has to be yours or
            root's, and not writable by others, unless it is sticky as /tmp is.
            A group in which you are alone is nobody else.
            The message names the first that is not so: chown it or `chmod go-w` it, or let
            CLEANROOM_CACHE name another one.
            Root with another user's HOME (as sudo may keep it) needs that too.
        """,
        example="$ chmod go-w ~/.cache/cleanroom-engine",
    ),
)
