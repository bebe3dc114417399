"""What happened, as a reader of a run's events gets it: the public face of
`cleanroom.model.events`.
"""

from cleanroom.model.events import *  # noqa: F403
