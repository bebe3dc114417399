"""The caller's own configuration: what of a login must not be shown."""

from __future__ import annotations

import pytest

from cleanroom.dependencies.settings import basic, login_of, secrets_of


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
