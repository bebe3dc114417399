"""The certificate of servers on 127.0.0.1."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from cleanroom.core import host_programs
from cleanroom.model.errors import BackendUnavailable
from cleanroom.services.certificates import local_certificate


@pytest.mark.skipif(host_programs.find("openssl") is None, reason="openssl is not installed")
def test_one_certificate_is_made_for_a_cache(tmp_path: Path):
    """It is kept with a key that only its owner may read, and a client can trust it."""
    made = local_certificate(tmp_path)
    assert local_certificate(tmp_path) == made
    assert (tmp_path / "localhost/key.pem").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["localhost"]
    context = ssl.create_default_context(cadata=made.certificate)
    assert len(context.get_ca_certs()) == 1
    names = {("IP Address", "127.0.0.1"), ("DNS", "localhost")}
    assert names <= set(context.get_ca_certs()[0]["subjectAltName"])


def test_without_openssl_it_is_said_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With the line that installs it, and nothing is left."""
    monkeypatch.setattr(host_programs, "find", lambda name: None)
    with pytest.raises(BackendUnavailable) as caught:
        local_certificate(tmp_path)
    assert caught.value.code == "CR-SERVICE-033"
    assert "openssl" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
