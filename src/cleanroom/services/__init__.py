"""What the built-in and generic services are: what to run, when it is ready,
which variables a phase gets, and how state is prepared once.

For the supervisor, in this order:

1. `resolve(plan.services, caller=..., root=plan.root, tools=plan.tools,
   cache=TemplateCache(folder))` gives the recipes.
   Call it in a worker thread: it looks for programs, reads their versions and the init files.
   Every recipe is final: the password of this run and the secret of its template are in it.
   `migrations.migration_warnings(recipes, ...)` says which extensions files of the project create
   that a server lacks.
2. Where `recipe.template_key` is set, `cache.lookup(key)` gives the folder that the data begins
   with, or None.
   If None, `with cache.building(key) as folder` gives an empty folder; if that is None too,
   another process has built it meanwhile: look it up again.
   Mount the folder at DATA in an environment of role "prepare" with `recipe.files` in PRIVATE, and
   run `recipe.prepare` there.
   The template is published at the end of the block, and thrown away if an exception leaves it.
3. Show the template at DATA, copy-on-write above it.
   Write `recipe.files` to PRIVATE (mode 0600), and make a folder for `run_folder(name)`.
4. Run `recipe.main`.
   Ask `probe.is_ready(recipe.first_probe or recipe.probe, environment, output)` until it is True:
   the service is ready, and this run's own.
5. Give a phase `phase_variables(recipes that it names)`.
   Redact the values of `recipe.secrets` everywhere.

Nothing here talks to the bus, starts a task or makes an environment.
"""

from __future__ import annotations

from cleanroom.services.base import Recipe
from cleanroom.services.images import ImageFacts, ImageInspector, image_of
from cleanroom.services.recipes import new_secret, phase_variables, resolve
from cleanroom.services.templates import TemplateCache

__all__ = [
    "ImageFacts",
    "ImageInspector",
    "Recipe",
    "TemplateCache",
    "image_of",
    "new_secret",
    "phase_variables",
    "resolve",
]
