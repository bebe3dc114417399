"""Errors, one class for each party that can act on them, and their exit statuses.

Values only.
The texts behind `cleanroom-engine explain CODE` are in `model/codes/`;
an error raised with a code that is not there fails a test.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The command's exit statuses (`docs/exit-codes.md`)."""

    OK = 0
    NOT_PASSED = 1
    USAGE = 2
    REFUSED = 3
    UNVERIFIED = 4
    ENGINE = 5
    TIMEOUT = 124
    INTERRUPTED = 130
    TERMINATED = 143


# Where several apply the first of these wins: a signal explains all others, a file that has to be
# edited explains that nothing ran, and a pass explains nothing.
EXIT_ORDER = (
    Exit.INTERRUPTED,
    Exit.TERMINATED,
    Exit.ENGINE,
    Exit.REFUSED,
    Exit.USAGE,
    Exit.TIMEOUT,
    Exit.NOT_PASSED,
    Exit.UNVERIFIED,
    Exit.OK,
)


class CleanroomError(Exception):
    """Base of all errors of the engine.

    `code` is a stable identifier such as CR-PLAN-004, `hint` a remedy or "",
    `where` a file position such as `make.toml:5:9` or "".
    """

    exit = Exit.ENGINE
    # already shown to the user, or no stream is left to show it on
    reported = False

    def __init__(self, code: str, message: str, *, hint: str = "", where: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.where = where

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class UsageError(CleanroomError):
    """The command line asked for something that does not exist."""

    exit = Exit.USAGE


class ProjectError(CleanroomError):
    """A file of the project has to be edited."""

    exit = Exit.USAGE


class PolicyRefused(CleanroomError):
    """The policy asks for what this machine or backend cannot hold, or a canary was not stopped."""

    exit = Exit.REFUSED


class NothingToVerify(CleanroomError):
    """The requested commands verify nothing, whatever their exit status."""

    exit = Exit.UNVERIFIED


class BackendUnavailable(CleanroomError):
    """The backend, or a program that it needs, is not there."""

    exit = Exit.ENGINE


class EnvironmentFailed(CleanroomError):
    """An environment could not be made, or ended while it was in use."""

    exit = Exit.ENGINE


class ServiceFailed(CleanroomError):
    """A service did not become ready, or died more often than its restarts allow."""

    exit = Exit.ENGINE


class DependencyError(CleanroomError):
    """A dependency of the project could not be fetched."""


class DependencyRejected(DependencyError):
    """A registry gave another file than the lock names, or led elsewhere."""

    exit = Exit.REFUSED


class DependencyUnavailable(DependencyError):
    """A registry does not have a file, does not answer, or may not be asked."""

    exit = Exit.ENGINE


class ArtifactError(CleanroomError):
    """A file of the engine could not be written or read."""

    exit = Exit.ENGINE


def combined(codes: list[Exit]) -> Exit:
    """The exit status of a command to which all of `codes` apply."""
    return next((code for code in EXIT_ORDER if code in codes), Exit.OK)


def first_cause(error: BaseException) -> CleanroomError:
    """The error that explains an exception or a group of them.

    An exception that is no CleanroomError becomes the cause of one.
    """
    found = _leaves(error)
    ours = [leaf for leaf in found if isinstance(leaf, CleanroomError)]
    if ours:
        return min(
            ours,
            key=lambda leaf: list(Exit).index(leaf.exit) if leaf.exit is not Exit.ENGINE else -1,
        )
    leaf = found[0]
    wrapped = BackendUnavailable if isinstance(leaf, TimeoutError | OSError) else CleanroomError
    cause = wrapped("CR-ENGINE-000", f"{type(leaf).__name__}: {leaf}", hint="--debug shows where")
    cause.__cause__ = leaf
    return cause


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]
