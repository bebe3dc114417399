"""The caller's own configuration: what of a login must not be shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from cleanroom.dependencies.settings import Settings, basic, login_of, secrets_of


@pytest.mark.parametrize(
    ("header", "hidden", "shown"),
    [
        ("Bearer npm_abcdef", {"npm_abcdef"}, set()),
        ("cargo-token", {"cargo-token"}, set()),
        (basic("me", "hunter2")["Authorization"], {"hunter2", "me:hunter2"}, {"me", ""}),
        (basic("ghp_abc", "x-oauth-basic")["Authorization"], {"ghp_abc"}, {"x-oauth-basic"}),
        (basic("ghp_abc", "")["Authorization"], {"ghp_abc"}, {""}),
        ("Basic not-base64", {"not-base64"}, {""}),
    ],
)
def test_tokens_and_passwords_are_hidden_and_names_are_not(
    header: str, hidden: set[str], shown: set[str]
):
    """Unless the name is the token. The whole value is hidden too."""
    found = set(secrets_of(header))
    assert {header, *hidden} <= found
    assert not found & shown


@pytest.mark.parametrize(
    ("address", "hidden"),
    [
        ("http://me:hunter2@proxy.example:3128", {"hunter2"}),
        ("http://me:hunter%402@proxy.example:3128", {"hunter%402", "hunter@2"}),
        ("http://proxy.example:3128", set()),
        ("http://[", set()),
    ],
)
def test_the_login_of_a_proxy_is_hidden(address: str, hidden: set[str]):
    """As it is written, and as it is sent."""
    found = {secret for header in login_of(address) for secret in secrets_of(header)}
    assert found >= hidden
    assert bool(found) == bool(hidden)


@pytest.mark.parametrize(
    ("url", "user"),
    [
        ("https://one.example/x", "one"),
        ("https://one.example:443/x", "one"),
        ("https://ONE.example/x", "one"),
        ("https://one.example:8443/x", "port"),
        ("https://one.example:9443/x", ""),
        ("https://two.example:9443/x", ""),
        ("https://named.example:9443/x", "named"),
        ("https://other.example/x", ""),
        ("https://default/x", ""),
    ],
)
def test_a_login_of_netrc_goes_where_the_caller_names_the_place(
    tmp_path: Path, url: str, user: str
):
    """A host's own port, a port that netrc has, or one that other files of the caller name."""
    machines = (
        "one.example one",
        "one.example:8443 port",
        "two.example two",
        "named.example named",
    )
    lines = [f"machine {host} login {name} password p" for host, name in map(str.split, machines)]
    (tmp_path / ".netrc").write_text("\n".join([*lines, "default login any password p\n"]))
    settings = Settings({}, tmp_path)
    named = frozenset(("named.example:9443",))
    assert settings.credentials(url, named) == (basic(user, "p") if user else {})
