"""Secrets do not survive, in any form they are looked for and however a stream is cut."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cleanroom.core.encodings.escapes import has_escapes
from cleanroom.core.redaction import REPLACEMENT, Redactor, secret_values
from cleanroom.model.capability import Process, Target
from cleanroom.model.events import Envelope, Note, Output, Started, Subject, Violation, encode

# Upper case, digits and marks: none of them stands in the replacement or in the engine's own words.
SECRETS = st.text('ABCDEFXYZ0123456789"\\/+ü€&=%\n', min_size=6, max_size=20).filter(
    lambda value: value.strip() == value
)
PLAIN = st.text("abcdefgh \n", max_size=20)


def forms(secret: str) -> list[str]:
    """How programs print it."""
    raw = secret.encode()
    return [
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        base64.b64encode(raw).decode().rstrip("="),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
    ]


@given(secret=SECRETS, before=PLAIN, after=PLAIN, form=st.integers(0, 7))
def test_no_form_of_a_secret_survives_in_an_event(secret, before, after, form):
    """Whatever field it stands in, and as whatever form, it is not in the event's encoding."""
    shown = forms(secret)[form]
    hidden = before + shown + after
    events = [
        Output(subject=Subject("phase", "test"), stream="stdout", text=hidden, offset=0),
        Note(subject=Subject("run", hidden), level="info", text=hidden),
        Started(subject=Subject("phase", "test", hidden), attributes={"command": hidden}),
        Violation(
            subject=Subject("phase", "test"),
            environment="e",
            dimension="network",
            rule="network.egress",
            severity="violation",
            outcome="blocked",
            mechanism="m",
            certainty="held_syscall",
            confidence="observed",
            target=Target(path=hidden, port=1),
            process=Process(pid=1, argv=("curl", hidden)),
        ),
    ]
    for envelope in Redactor([secret]).envelopes(
        [Envelope(1, "r", 0, 0, "", "", "", event) for event in events]
    ):
        encoded = encode(envelope)
        assert json.dumps(shown, ensure_ascii=False)[1:-1].encode() not in encoded
        assert REPLACEMENT.encode() in encoded


@given(secret=SECRETS, prefix=st.binary(max_size=5), suffix=st.binary(max_size=5))
def test_a_secret_inside_base64_of_something_longer_is_found(secret, prefix, suffix):
    """At each of base64's three alignments the part that the secret alone decides is taken out."""
    shown = base64.b64encode(prefix + secret.encode() + suffix).decode()

    assert REPLACEMENT in Redactor([secret]).text(shown)


@given(
    secrets=st.lists(SECRETS, min_size=1, max_size=3),
    pieces=st.lists(st.one_of(PLAIN, st.integers(0, 2)), max_size=8),
    data=st.data(),
)
def test_a_stream_reads_the_same_however_it_is_cut(secrets, pieces, data):
    """Fed in any pieces a stream gives what the whole text gives, and no secret is in it."""
    redactor = Redactor(secrets)
    text = "".join(
        secrets[piece % len(secrets)] if isinstance(piece, int) else piece for piece in pieces
    )
    stream, raw, shown = redactor.stream(), text.encode(), b""
    while raw:
        size = data.draw(st.integers(1, len(raw)))
        shown += stream.feed(raw[:size])
        raw = raw[size:]
    shown += stream.end()

    assert shown.decode() == redactor.text(text)
    assert not any(secret.encode() in shown for secret in secrets)


@given(secret=SECRETS, text=PLAIN)
def test_output_that_begins_no_secret_is_shown_at_once(secret, text):
    """A prompt does not wait for the next line: its end is the beginning of no form of a secret."""
    # One that has an escape in it is looked for with the escape undone too, which may be a blank.
    assume(not has_escapes(secret.encode()))
    prompt = f"{text}> ".encode()

    assert Redactor([secret]).stream().feed(prompt) == prompt


def test_less_than_a_secret_is_held_back():
    """At most the longest value less one byte waits."""
    stream = Redactor(["SECRET-VALUE"]).stream()

    assert stream.feed(b"xSECRET-VALU") == b"x"
    assert stream.feed(b"E!") == b"[redacted]!"
    assert stream.feed(b"SECRET-") == b""
    assert stream.end() == b"SECRET-"


def test_an_event_without_a_secret_is_the_same_object():
    """Nothing is copied where there is nothing to take out."""
    event = Note(subject=Subject("run", "shop"), level="info", text="hello")

    assert Redactor(["SECRET"]).event(event) is event


def test_the_engine_s_own_words_stay():
    """A password that is also a word of the vocabulary or a public name does not break events."""
    redactor = Redactor(["stdout", "postgres", "abc"], public=["postgres"])
    event = Output(
        subject=Subject("service", "postgres"),
        stream="stdout",
        text="abc postgres on stdout",
        offset=0,
    )

    assert redactor.event(event) == Output(
        subject=Subject("service", "postgres"),
        stream="stdout",
        text="abc postgres on [redacted]",
        offset=0,
    )


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("GITHUB_TOKEN", "ghp_1234", ["ghp_1234"]),
        ("PGPASSWORD", "hunter22", ["hunter22"]),
        ("AWS_SECRET_ACCESS_KEY", "abc/def+", ["abc/def+"]),
        ("STRIPE_KEY", "sk_live", ["sk_live"]),
        ("DATABASE_URL", "postgres://u:p%40ssword@h/db", ["p%40ssword", "p@ssword"]),
        ("TOKEN_LIMIT", "1000", []),
        ("USE_TOKEN", "true", []),
        ("KEYBOARD", "qwerty", []),
        ("HOME", "/home/someone", []),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization=Bearer%20hunter22, x-scope-orgid=demo",
            ["Bearer hunter22", "hunter22"],
        ),
        (
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
            "x-honeycomb-team=abcd,x=0123456789abcdef",
            ["0123456789abcdef", "abcd"],
        ),
        ("PIN_TOKEN", "abc", []),
    ],
)
def test_secret_values_are_found_by_name_and_in_urls(name, value, found):
    """Names that look secret and passwords in URLs count; switches,
    small numbers and short values do not.
    """
    assert secret_values({name: value}) == found
