"""What is said of files that phases cannot change or do not have."""

from __future__ import annotations

from cleanroom.engine.phases.lifecycle import hindrances


def test_files_of_another_owner_are_not_said_to_be_unchangeable():
    """They can be replaced and removed; what fails is to write to them or into such a folder."""
    (text,) = hindrances("/p", ("data", "etc"), ())
    assert text.startswith("/p: phases can read, replace and remove files of another owner")
    assert "not write to them, nor make or remove anything in such a folder" in text
    assert "such as data, etc;" in text


def test_what_a_copy_lacks_is_said_to_be_missing():
    """It is not there to be changed, whoever owns it."""
    (text,) = hindrances("/p", (), ("secret",))
    assert text.startswith("/p: phases do not have what this user may not read, such as secret;")


def test_nothing_is_said_where_nothing_hinders():
    """Mostly."""
    assert list(hindrances("/p", (), ())) == []
