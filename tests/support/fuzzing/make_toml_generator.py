"""Random make.toml files of every dialect, out of the keys that the product knows:
mostly meaningful, so that they get past the first check.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import msgspec

from cleanroom.model.policy import CONTROLS
from cleanroom.project.keys import (
    EgressKeys,
    ExpectedKeys,
    LimitKeys,
    ReadyKeys,
    ServiceKeys,
    SettingKeys,
    keys_of,
)
from support.fuzzing.hostile_text import NUMBERS, TEXTS, one, sometimes, text

PHASES = ("test", "build", "init", "check:all", "deploy", "a", "b")
SERVICES = ("postgres", "redis", "mail", "search")
ENVIRONMENTS = ("prod", "production", "ci")
COMMANDS = (
    "true",
    "pytest -q",
    "echo hello",
    "cleanroom-engine run test",
    "cargo build --release",
    "sh -c 'exit 7'",
    "echo 'open",
    "",
)
FOLDERS = ("sub", ".", "src/", "sub/../sub", "../..", "/etc", "nowhere", "sub/*", "link")
HOSTS = (
    "a.example:443",
    "127.0.0.1:80",
    "[::1]:80",
    "a.example",
    "a.example:0",
    "*.example:443",
    ":443",
)
RULES = (*(control.rule for control in CONTROLS), "policy", "nonsense")


_NUMBERS = tuple(
    number
    for number in NUMBERS
    if number not in ("007", "null", "NaN", "Infinity", "-Infinity", "9" * 5000)
)  # those that are TOML


def quoted(value: str) -> str:
    """As a TOML string."""
    return (
        '"'
        + "".join(
            {'"': '\\"', "\\": "\\\\"}.get(
                sign,
                sign if sign == "\t" or (sign >= " " and sign != "\x7f") else f"\\u{ord(sign):04x}",
            )
            for sign in value
        )
        + '"'
    )


def key(value: str) -> str:
    return (
        value
        if value and all(sign.isascii() and (sign.isalnum() or sign in "-_") for sign in value)
        else quoted(value)
    )


def _text(*usual: str) -> Callable[[Random], str]:
    return lambda random: quoted(text(random, usual))


def _number(*usual: str) -> Callable[[Random], str]:
    return lambda random: one(random, _NUMBERS) if sometimes(random, 6) else one(random, usual)


def _list(item: Callable[[Random], str]) -> Callable[[Random], str]:
    return lambda random: "[" + ", ".join(item(random) for _ in range(random.randrange(4))) + "]"


def _table(names: tuple[str, ...], item: Callable[[Random], str]) -> Callable[[Random], str]:
    return lambda random: (
        "{"
        + ", ".join(
            f"{key(name)} = {item(random)}" for name in {text(random, names) for _ in range(2)}
        )
        + "}"
    )


def _either(*forms: Callable[[Random], str]) -> Callable[[Random], str]:
    return lambda random: forms[random.randrange(len(forms))](random)


def _struct(kind: type[msgspec.Struct]) -> Callable[[Random], str]:
    def written(random: Random) -> str:
        names = list(keys_of(kind))
        chosen = {one(random, names) for _ in range(random.randrange(1, 4))}
        return (
            "{"
            + ", ".join(
                f"{name} = {value(random, keys_of(kind)[name][1].form)}" for name in sorted(chosen)
            )
            + "}"
        )

    return written


def _services(random: Random) -> str:
    return (
        "{"
        + ", ".join(
            f"{key(text(random, SERVICES))} = {_struct(ServiceKeys)(random)}"
            for _ in range(random.randrange(1, 3))
        )
        + "}"
    )


def _overlay(random: Random) -> str:
    return "{" + f"{one(random, ENVIRONMENTS)} = {_struct(SettingKeys)(random)}" + "}"


_words = _text("A", "RUST_LOG", "PATH", "{host}:{port}", "x=y")
_durations = _either(
    _text("20s", "1m30s", "500ms", "0s", "-1s", "1e3s", "99999999h", "1.5.5s", "20 s"),
    _number("1", "0.5"),
)
_egress = _either(_text(*HOSTS), lambda random: _struct(EgressKeys)(random))
_sizes = _either(
    _text("1GiB", "512MB", "0B", "-1GiB", "99999999TiB", "1.7KiB"), _number("1024", "1")
)
_command = _either(_text(*COMMANDS), _list(_text(*COMMANDS)))
_FORMS: dict[str, Callable[[Random], str]] = {
    "flag": _either(_number("true", "false"), _number("true", "false"), _text("yes")),
    "text": _text("reason", ":8080/health", "mail:1", "ready"),
    "texts": _list(_text(*SERVICES, "src/**", "**/*.py")),
    "command": _command,
    "argv": _command,
    "words": _table(("A", "B_C", "PATH"), _words),
    "commands": _table(PHASES, _command),
    "integer": _number("3"),
    "seed": _number("42"),
    "count": _number("64"),
    "number": _number("2", "0.5"),
    "port": _number("5432", "65535", "65536"),
    "ports": _list(_number("8080")),
    "named_ports": _table(("web", "metrics", "a b"), _number("8080", "65536")),
    "duration": _durations,
    "size": _sizes,
    "level": _text("Low", "Medium", "High", "Locked", "medium", "Meduim"),
    "backend": _text("auto", "memory", "embedded", "docker", "dokcer"),
    "reaction": _text("warn", "fail", "end"),
    "kind": _text("postgres", "redis", "generic"),
    "rules": _list(_text(*RULES)),
    "names": _list(_words),
    "egress": _list(_egress),
    "paths": _list(_text(*FOLDERS, "schema.sql")),
    "folders": _list(_text("/usr", *FOLDERS)),
    "cache": _table(("inputs", "input"), _list(_text("src/**"))),
    "expected": _list(_struct(ExpectedKeys)),
    "limits": _struct(LimitKeys),
    "ready": _struct(ReadyKeys),
    "services": _services,
    "env": _overlay,
    "telemetry": _number("true", "false"),
    "boundary": _text("required", "preferred"),
}


def value(random: Random, form: str) -> str:
    """A value as TOML: mostly of its form."""
    if sometimes(random, 12):
        return one(
            random,
            (
                quoted(one(random, TEXTS)),
                one(random, NUMBERS),
                "[]",
                "{}",
                "[[1]]",
                '["x", 1]',
                '{x = "y"}',
                "''' \n '''",
            ),
        )
    return _FORMS[form](random)


def setting(random: Random, prefix: str = "") -> str:
    """A line of a `cleanroom` table."""
    names = keys_of(SettingKeys)
    name = "contaners" if sometimes(random, 40) else one(random, list(names))
    return f"{prefix}{name} = {value(random, names[name][1].form if name in names else 'text')}\n"


def _phase(random: Random, table: str, lines: Callable[[Random], str]) -> str:
    body = "".join(lines(random) for _ in range(random.randrange(1, 4)))
    return f"[{table}.{key(text(random, PHASES, 15))}]\n{body}"


def _of_lifecycle(random: Random) -> str:
    return _either(
        lambda random: f"command = {_command(random)}\n",
        lambda random: f"commands = {_list(_text(*COMMANDS))(random)}\n",
        lambda random: f"depends_on = {_list(_text(*PHASES))(random)}\n",
        lambda random: (
            "env = "
            f"{_table((*ENVIRONMENTS, 'A'), _either(_words, _table(('A',), _words)))(random)}\n"
        ),
        lambda random: (
            f"{one(random, ('parallel', 'watch', 'port', 'outputs', 'cache', 'description'))} "
            f"= {value(random, 'text')}\n"
        ),
        lambda random: setting(random, "cleanroom."),
        lambda random: setting(random, "cleanroom."),
    )(random)


def _of_task(random: Random) -> str:
    name = one(
        random,
        (
            "command",
            "args",
            "script",
            "dependencies",
            "env",
            "cwd",
            "condition",
            "extend",
            "alias",
            "workspace",
        ),
    )
    forms = {
        "args": "texts",
        "dependencies": "texts",
        "script": "command",
        "env": "words",
        "command": "text",
        "cwd": "text",
    }
    shown = (
        _list(_text(*PHASES))(random)
        if name == "dependencies"
        else value(random, forms.get(name, "text"))
    )
    return f"{name} = {shown}\n" if sometimes(random, 2) else setting(random, "cleanroom.")


def _of_phases(random: Random) -> str:
    hooks = (
        f"hooks = {{ {one(random, ('before', 'after'))} = {_list(_text(*COMMANDS))(random)} }}\n"
    )
    return hooks if sometimes(random, 4) else _of_lifecycle(random)


def _hooks(random: Random) -> str:
    names = (
        "before_all",
        "after_all",
        *(f"{when}_{phase}" for when in ("before", "after") for phase in PHASES),
    )
    chosen = {text(random, names, 20) for _ in range(random.randrange(1, 4))}
    return "[hooks]\n" + "".join(
        f"{key(name)} = {_list(_text(*PHASES))(random)}\n" for name in sorted(chosen)
    )


def _workspaces(random: Random) -> str:
    if sometimes(random, 3):
        return (
            f"[workspace]\nmembers = {_list(_text(*FOLDERS))(random)}\n"
            f"parallel = {value(random, 'flag')}\n"
        )
    return f"[workspace.{key(text(random, ('api', 'web')))}]\npath = {_text(*FOLDERS)(random)}\n"


_PARTS: tuple[Callable[[Random], str], ...] = (
    lambda random: (
        f"[project]\nname = {_text('shop')(random)}\nversion = {value(random, 'text')}\n"
    ),
    lambda random: _phase(random, "lifecycle", _of_lifecycle),
    lambda random: _phase(random, "lifecycle", _of_lifecycle),
    lambda random: _phase(random, one(random, ("phases", "phase", "lifecycle.phases")), _of_phases),
    lambda random: _phase(random, "tasks", _of_task),
    _hooks,
    _workspaces,
    lambda random: (
        "[cleanroom]\n" + "".join(setting(random) for _ in range(random.randrange(1, 4)))
    ),
    lambda random: (
        f"[cleanroom.services.{key(text(random, SERVICES))}]\n"
        + _struct(ServiceKeys)(random).strip("{}").replace(", ", "\n")
        + "\n"
    ),
    lambda random: f"[cleanroom.env.{one(random, ENVIRONMENTS)}]\n" + setting(random),
    lambda random: (
        f"[env]\nA = {_words(random)}\n[env.{one(random, ENVIRONMENTS)}]\n"
        f"B = {value(random, 'text')}\n"
    ),
    lambda random: (
        f"[{key(one(random, TEXTS))}]\n{key(one(random, TEXTS))} = {value(random, 'text')}\n"
    ),
    lambda random: "[[lifecycle]]\n" if sometimes(random, 10) else "\n",
)


def _once(part: str) -> str:
    """Each key of a table once, mostly: most files would be no TOML at all otherwise."""
    lines = {line.split(" = ", 1)[0]: line for line in part.split("\n")}
    return "\n".join(lines.values()) + ("\n" if part.endswith("\n") else "")


def make_toml(random: Random) -> bytes:
    """A whole file; now and then with another end of lines or a byte order mark."""
    parts = [_PARTS[random.randrange(len(_PARTS))](random) for _ in range(random.randrange(1, 8))]
    made = "".join({part.split("\n", 1)[0]: part for part in map(_once, parts)}.values())
    if sometimes(random, 20):
        made = made.replace("\n", "\r\n")
    return ("\ufeff" if sometimes(random, 50) else "").encode() + made.encode(
        "utf-8", "surrogatepass"
    )


WORDS = tuple(
    word.encode()
    for word in (
        *PHASES,
        *SERVICES,
        *COMMANDS,
        *HOSTS,
        *RULES,
        *keys_of(SettingKeys),
        "lifecycle",
        "cleanroom",
        "hooks",
        "workspace",
    )
)
