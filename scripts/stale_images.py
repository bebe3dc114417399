"""Print the short names of our images that an engine does not have as this version of the code
makes them: `python scripts/stale_images.py docker`.
"""

from __future__ import annotations

import os
import sys

from cleanroom.backends.containers.client import EngineName, find_socket, inspect_image
from cleanroom.backends.containers.images import PLANS, RECIPE_LABEL, ImagePlan, recipe
from cleanroom.model.errors import ProjectError


def stale(engine: EngineName) -> list[str]:
    """Those that are not there, and those that were made by another recipe.

    Raises:
        BackendUnavailable: the engine is not there.
    """
    socket = find_socket(engine, os.environ)
    return [short for short, plan in PLANS.items() if not _current(engine, socket, plan)]


def _current(engine: EngineName, socket: str, plan: ImagePlan) -> bool:
    try:
        described = inspect_image(engine, socket, plan.name)
    except ProjectError:
        return False
    return ((described["Config"].get("Labels") or {}).get(RECIPE_LABEL)) == recipe(plan)


if __name__ == "__main__":
    print(*stale("podman" if sys.argv[1:] == ["podman"] else "docker"))
