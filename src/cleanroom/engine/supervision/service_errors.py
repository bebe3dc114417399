"""The errors that a service may end with. Pure functions.

`log_path` is where a person finds the service's output.
"""

from __future__ import annotations

import re

from cleanroom.backends.base import ExecResult
from cleanroom.engine.supervision.service import MainCommand, Service, last_lines
from cleanroom.model.errors import ProjectError, ServiceFailed
from cleanroom.services.base import PRIVATE

_SERVER_LOG = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S* \w+ \[\d+\] |\t")
# psql names the copy of an init file: its number, then the file's name.
_PRIVATE_FILE = re.compile(rf"psql:{re.escape(PRIVATE)}/\d+-([^:\n]+):")
# Words of PostgreSQL's programs, and what helps.
_ADVICE = {
    "permission denied to create extension": (
        "superuser = true lets the role create extensions that PostgreSQL does not call trusted"
    ),
    "ICU is not supported in this build": (
        "PostgreSQL of the wheel has no ICU; `version` or CLEANROOM_POSTGRES_BIN takes another one "
        "of this machine, such as Debian's package postgresql-N"
    ),
    "SSL is not supported by this build": (
        "PostgreSQL of the wheel has no TLS; `version` or CLEANROOM_POSTGRES_BIN takes another one "
        "of this machine, such as Debian's package postgresql-N"
    ),
    "unsupported version": (
        "the dump is of a newer pg_dump than this server's; `version` takes another server"
    ),
}
_ADVICE_OTHERWISE = "correct the service's init files or settings"


def ended_by_command(service: Service, cause: str) -> ServiceFailed:
    """A command of recovery ended its environment."""
    return ServiceFailed("CR-SERVICE-022", f"{_name(service)} was ended: {cause}")


def ended_by_itself(service: Service, main: MainCommand, log_path: str) -> ServiceFailed:
    """Its main command ended after it was ready."""
    text = f"{_name(service)} {main.end_text}"
    return ServiceFailed("CR-SERVICE-025", text, hint=_see(log_path))


def ended_before_ready(service: Service, main: MainCommand, log_path: str) -> ServiceFailed:
    """Its main command ended before it was ready."""
    text = f"{_name(service)} {main.end_text} before it was ready"
    return ServiceFailed("CR-SERVICE-023", _quoting(service, text), hint=_see(log_path))


def not_ready(service: Service, tries: int, log_path: str) -> ServiceFailed:
    """It did not answer its probe in time."""
    recipe = service.recipe
    waited = f"not ready after {recipe.start_timeout_seconds:g} s"
    text = f"{_name(service)} {waited} ({recipe.probe.kind} probe, {tries} tries)"
    return ServiceFailed("CR-SERVICE-020", _quoting(service, text), hint=_see(log_path))


def stopped_answering(service: Service, unanswered: int, log_path: str) -> ServiceFailed:
    """It was ready, and several health probes in a row failed."""
    text = f"{_name(service)} stopped answering ({unanswered} probes in a row)"
    return ServiceFailed("CR-SERVICE-024", text, hint=_see(log_path))


def given_up(service: Service, cause: str, log_path: str) -> ServiceFailed:
    """Recovery does not restart it any more. Its last error is the cause."""
    text = f"{_name(service)} was given up: {cause}"
    error = ServiceFailed("CR-SERVICE-021", text, hint=_see(log_path))
    if service.last_error is not None:
        error.__cause__ = service.last_error
    return error


def prepare_failed(
    service: Service, result: ExecResult, timeout_seconds: float, output: bytearray, log_path: str
) -> ProjectError:
    """A command that prepares its data failed, or did not end within `timeout_seconds`."""
    ended = f"exit status {result.exit_code}"
    if result.timed_out:
        ended = f"still running after {timeout_seconds:g} s"
    said = prepare_output(output)
    advice = next((hint for words, hint in _ADVICE.items() if words in said), _ADVICE_OTHERWISE)
    return ProjectError(
        "CR-SERVICE-026",
        f"{_name(service)}: its prepare step failed ({ended}): {said}",
        hint=f"{advice}; {_see(log_path)}",
    )


def prepare_output(output: bytearray) -> str:
    """The end of what a prepare step wrote, without the log of the server that it ran, and with
    files under their own names.
    """
    lines = output.splitlines(keepends=True)
    own = bytearray().join(line for line in lines if not _SERVER_LOG.match(line))
    return _PRIVATE_FILE.sub(r"\1:", last_lines(own or output))


def template_vanished(service: Service) -> ServiceFailed:
    """Its prepared data was published, and is not in the cache any more."""
    text = f"{_name(service)}: its prepared data vanished from the cache"
    return ServiceFailed("CR-SERVICE-027", text, hint="run it again")


def _name(service: Service) -> str:
    return f"service {service.recipe.name!r}"


def _see(log_path: str) -> str:
    return f"its output is in {log_path}"


def _quoting(service: Service, text: str) -> str:
    quoted = service.last_lines()
    return f"{text}; it said: {quoted}" if quoted else text
