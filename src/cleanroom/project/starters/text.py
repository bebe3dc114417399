"""A starter as the text of a make.toml."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from cleanroom.project.starters.base import Starter, StarterPhase, StarterService

_HEAD = """\
# The lifecycle of this project ({language}).
# `cleanroom-engine plan` shows what would run, `cleanroom-engine pipeline {phases}` runs it.
"""
_SETTINGS = """\
# For the whole project; a phase's own cleanroom.KEY goes before it. All keys: docs/make-toml.md of cleanroom-engine.
[cleanroom]
policy = "Medium"          # Low, Medium, High or Locked
slo = {slo:<20} # what a whole run should take at most
"""  # noqa: E501
_IMAGE = (
    "image = {image}   # what container backends run phases in; the embedded backend needs none\n"
)
_SERVICES_HINT = """\
# Real services for this phase; it finds them by DATABASE_URL and REDIS_URL.
# cleanroom.containers = ["postgres", "redis"]
# cleanroom.timeout = "2m"
"""


def whole(
    starter: Starter,
    name: str,
    services: Sequence[StarterService] = (),
    backend: str = "",
    comments: Sequence[str] = (),
) -> str:
    """The make.toml of a project that is in one folder."""
    parts = [
        _head(starter, name, comments),
        f"{_settings([starter])}{_backend(backend)}{_image(starter)}{_variables(starter)}",
        *_services(services),
        *_phases(starter.phases, hint=not services),
    ]
    return "\n".join(parts)


def of_workspaces(
    starters: Mapping[str, Starter],
    name: str,
    services: Sequence[StarterService] = (),
    backend: str = "",
    comments: Sequence[str] = (),
) -> str:
    """The make.toml of a project that is in several folders.

    Each has its own file beside it but the root, whose phases are in this one.
    """
    first = next(iter(starters.values()))
    languages = dict.fromkeys(starter.language for starter in starters.values())
    root = starters.get("")
    own = root.comments if root else ()
    shown = msgspec.structs.replace(first, language="; ".join(languages), comments=own)
    head = _head(shown, name, comments)
    if root is None:
        head += "# Each folder below has its phases in a make.toml of its own.\n"
    workspaces = [
        f"[workspace.{_key(folder or 'root')}]\npath = {_value(folder or '.')}\n"
        for folder in starters
    ]
    settings = f"{_image(root)}{_variables(root)}" if root else ""
    whole = f"{_settings(starters.values())}{_backend(backend)}{settings}"
    parts = [head, *workspaces, whole, *_services(services)]
    if root:
        parts += _phases(root.phases, hint=not services)
    return "\n".join(parts)


def of_workspace(starter: Starter) -> str:
    """The make.toml of one folder of several."""
    head = "".join(f"# {line}\n" for line in (f"{starter.language}.", *starter.comments))
    settings = f"[cleanroom]\n{_image(starter)}{_variables(starter)}"
    return "\n".join([head, settings, *_phases(starter.phases, hint=False)])


def _head(starter: Starter, name: str, comments: Sequence[str]) -> str:
    named = " ".join(phase.name for phase in starter.phases)
    head = _HEAD.format(language=starter.language, phases=named)
    lines = "".join(f"# {_line(comment)}\n" for comment in (*starter.comments, *comments))
    return f"{head}{lines}\n[project]\nname = {_value(name)}\n"


def _settings(starters: Iterable[Starter]) -> str:
    """The first lines of the settings; the slo is that of what takes longest."""
    slo = max((each.slo for each in starters), key=lambda slo: slo.endswith("m"))
    return _SETTINGS.format(slo=_value(slo))


def _line(comment: str) -> str:
    """A comment on one line, whatever a name in it holds."""
    return "".join(letter if letter.isprintable() else "?" for letter in comment)


def _backend(backend: str) -> str:
    return f"backend = {_value(backend)}   # a service has an image only\n" if backend else ""


def _image(starter: Starter) -> str:
    return _IMAGE.format(image=_value(starter.image))


def _variables(starter: Starter) -> str:
    if not starter.variables:
        return ""
    return f"variables = {_value(dict(starter.variables))}\n"


def _services(services: Sequence[StarterService]) -> Iterator[str]:
    # A service of ours without keys needs no table.
    for service in (one for one in services if one.keys):
        comment = f"# {_line(service.comment)}\n" if service.comment else ""
        lines = "".join(f"{key} = {_value(value)}\n" for key, value in service.keys.items())
        yield f"{comment}[cleanroom.services.{_key(service.name)}]\n{lines}"


def _phases(phases: Sequence[StarterPhase], *, hint: bool) -> Iterator[str]:
    for phase in phases:
        text = f"[lifecycle.{phase.name}]\ndescription = {_value(phase.description)}\n"
        if phase.commands:
            text += _commands(phase.commands)
        if phase.containers:
            text += f"cleanroom.containers = {_value(list(phase.containers))}\n"
        elif phase.name == "test" and hint:
            text += _SERVICES_HINT
        yield text


def _commands(commands: Sequence[str]) -> str:
    if len(commands) == 1:
        return f"commands = [{_value(commands[0])}]\n"
    lines = "".join(f"  {_value(command)},\n" for command in commands)
    return f"commands = [\n{lines}]\n"


def _value(value: object) -> str:
    """A value as TOML writes it on one line."""
    import tomlkit

    if isinstance(value, dict):
        pairs = (f"{_key(name)} = {_value(each)}" for name, each in value.items())
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return tomlkit.item(value).as_string()


def _key(name: str) -> str:
    import tomlkit

    return tomlkit.key(name).as_string() if name else '""'
