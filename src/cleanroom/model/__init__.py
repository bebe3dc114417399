"""Values: what is asked, what happened, what to do, what is allowed, what holds here,
what can go wrong.

Frozen data and pure functions over it. Nothing here does I/O, and nothing here imports another
room. What a value means to one room only is that room's own.
"""
