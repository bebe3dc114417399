"""A certificate for servers on 127.0.0.1 of phases, made once for a user's cache by openssl."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path
from subprocess import TimeoutExpired
from typing import NamedTuple

from cleanroom.core import host_programs
from cleanroom.model.errors import BackendUnavailable

MAKE_SECONDS = 30.0
_NAMES = "subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost"


class Certificate(NamedTuple):
    """Both in PEM. It is its own authority."""

    certificate: str
    key: str


def local_certificate(folder: Path) -> Certificate:
    """The certificate kept in `folder`, made if there is none. Blocks.

    Raises:
        BackendUnavailable: openssl is not there or fails, or the folder cannot be written.
    """
    made = folder / "localhost"
    try:
        if not made.is_dir():
            _make(folder, made)
        return Certificate((made / "certificate.pem").read_text(), (made / "key.pem").read_text())
    except (host_programs.NotTrusted, OSError, TimeoutExpired) as error:
        raise BackendUnavailable(
            "CR-SERVICE-033",
            f"{folder}: a certificate could not be made: {error}",
            hint="apt install openssl; or make room for CLEANROOM_CACHE",
        ) from error


def _make(folder: Path, made: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    building = folder / f"localhost.{secrets.token_hex(4)}"
    building.mkdir(mode=0o700)
    try:
        options = ["req", "-x509", "-nodes", "-days", "3650", "-newkey", "ec"]
        options += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost"]
        options += ["-addext", _NAMES]
        options += ["-out", str(building / "certificate.pem")]
        options += ["-keyout", str(building / "key.pem")]
        done = host_programs.run("openssl", options, timeout_seconds=MAKE_SECONDS)
        if done.returncode:
            raise OSError(f"openssl: {done.stderr.strip()[-200:]}")
        (building / "key.pem").chmod(0o600)
        # another process may have been faster
        if not made.is_dir():
            building.rename(made)
    finally:
        shutil.rmtree(building, ignore_errors=True)
