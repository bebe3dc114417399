"""What is said of a service that could not be prepared."""

from __future__ import annotations

from cleanroom.engine.supervision.service_errors import prepare_output

OUTPUT = b"""\
2026-11-29 09:23:17.140 UTC [32] ERROR:  syntax error at or near "CREAT" at character 1
2026-11-29 09:23:17.140 UTC [32] STATEMENT:  CREAT
\tTABLE item;
psql:/var/cleanroom/private/2-schema.sql:1: ERROR:  syntax error at or near "CREAT"
LINE 1: CREAT
        ^
2026-11-29 09:23:17.249 UTC [16] LOG:  database system is shut down
"""


def test_the_line_of_the_file_is_said_and_not_how_the_server_was_shut_down():
    """The file has its own name, and the server's log stays in the log."""
    assert prepare_output(bytearray(OUTPUT)) == (
        'schema.sql:1: ERROR:  syntax error at or near "CREAT"\nLINE 1: CREAT\n        ^'
    )


def test_a_server_that_did_not_start_is_quoted():
    """Where there is nothing but its log, that is what there is to say."""
    log = b"2026-11-29 09:23:17.140 UTC [32] FATAL:  could not map memory\n"
    assert "could not map memory" in prepare_output(bytearray(log))
