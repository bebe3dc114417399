"""What the built-in and generic services are: what to run, when it is ready,
which variables a phase gets, and how state is prepared once.

For the supervisor, in this order:

1.
   `recipes = resolve(plan.services, caller=..., root=plan.root, tools=plan.tools,
   cache=TemplateCache(folder))`, in a worker thread: it looks for programs,
   asks them for their version and reads the init files.
   Every recipe is final: the password of this run and the secret of its template are in it.
   2.
   Where `recipe.template_key` is set: `cache.lookup(key)` gives the folder that the data begins
   with, or None.
   None: `with cache.building(key) as folder` gives an empty folder (None:
   another process was faster, look it up again); mount it at DATA in an environment of role
   "prepare" with `recipe.files` in PRIVATE and run `recipe.prepare` there.
   An exception that leaves the block throws the folder away, otherwise it is published.
   3.
   The template is shown at DATA, copy-on-write above it;
   `recipe.files` go to PRIVATE (mode 0600); a folder for `run_folder(name)`.
   4.
   Run `recipe.main`; ask
   `probe.ask(recipe.first_probe or recipe.probe, environment, output)` until it is True:
   it is ready, and this run's own.
   5.
   A phase gets `phase_variables(recipes it names)`.
   Values in `recipe.secrets` are redacted everywhere.

Nothing here talks to the bus, starts a task or makes an environment.
"""

from __future__ import annotations

from cleanroom.services.base import Recipe
from cleanroom.services.images import AskImage, ImageFacts, image_of
from cleanroom.services.recipes import new_secret, phase_variables, resolve
from cleanroom.services.templates import TemplateCache

__all__ = [
    "AskImage",
    "ImageFacts",
    "Recipe",
    "TemplateCache",
    "image_of",
    "new_secret",
    "phase_variables",
    "resolve",
]
