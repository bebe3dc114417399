"""Claims about the encodings of a make.toml, and about make's job server."""

from __future__ import annotations

import codecs

import pytest

from cleanroom.engine.phases.environment_spec import without_job_server
from cleanroom.model.errors import ProjectError
from cleanroom.project.source import parse_source

TEXT = '[project]\nname = "p"\n'


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_byte_order_mark_and_line_ends_of_another_system_change_nothing(mark: bytes, ends: str):
    source = parse_source(mark + TEXT.replace("\n", ends).encode(), "make.toml")
    assert (source.table, source.text) == ({"project": {"name": "p"}}, TEXT)


def test_only_one_byte_order_mark_is_taken_for_one():
    with pytest.raises(ProjectError) as refused:
        parse_source(2 * codecs.BOM_UTF8 + TEXT.encode(), "make.toml")
    assert refused.value.code == "CR-PROJECT-003"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le"])
def test_utf_16_is_refused_by_name(encoding: str):
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else codecs.BOM_UTF16_LE
    text = TEXT.encode(encoding)
    with pytest.raises(ProjectError, match="UTF-16") as refused:
        parse_source(text if text.startswith(mark) else mark + text, "make.toml")
    assert (refused.value.code, refused.value.where) == ("CR-PROJECT-002", "make.toml:1:1")


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        (" -j4 --jobserver-auth=3,4", ""),
        ("ks -j4 --jobserver-auth=fifo:/tmp/GMfifo12 -- V=-j3 X=1", "ks -- V=-j3 X=1"),
        ("--jobserver-fds=3,4 -j", ""),
        ("-Oline -j8", "-Oline"),
        ("k", "k"),
    ],
)
def test_make_flags_lose_their_job_server_and_nothing_else(flags: str, kept: str):
    assert without_job_server(flags) == kept
