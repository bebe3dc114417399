"""The sandbox's own processes: keeper, wardens, init; removing containers that outlived them, and
reading what an environment uses. They put the other packages together; nothing imports them but
each other, and what starts them.
"""
