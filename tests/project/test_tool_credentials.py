"""Which files of shown installations name credentials."""

from __future__ import annotations

from pathlib import Path

import pytest

from cleanroom.project.tool_credentials import credential_files

TOKEN = "//registry.example.org/:_authToken=s3cret\n"


def written(path: Path, text: str = TOKEN) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("etc/npmrc", TOKEN),
        ("versions/node/v22.1.0/etc/npmrc", "_password = x\n"),
        (
            "versions/3.12.1/pip.conf",
            "[global]\nindex-url = https://me:s3cret@example.org/simple\n",
        ),
        ("installs/nodejs/22/etc/npmrc", TOKEN),
        ("node-versions/v22/installation/etc/npmrc", TOKEN),
        ("venvs/tool/pip.conf", "[global]\nindex-url = https://me@example.org/simple\n"),
        ("cpython-3.12/pip.conf", "password = x\n"),
        (".condarc", "channels: [https://example.org/t/s3cret/get]\n"),
    ],
)
def test_each_managers_own_place_is_known(tmp_path: Path, name: str, text: str):
    """Where npm, pip and conda keep the configuration of one installation."""
    path = written(tmp_path / "tool" / name, text)
    assert credential_files([str(tmp_path / "tool")]) == (path,)


def test_a_file_without_credentials_is_shown_as_it_is(tmp_path: Path):
    """Tools read their settings there."""
    written(tmp_path / "etc/npmrc", "registry=https://registry.example.org/\nfund=false\n")
    written(tmp_path / "pip.conf", "[global]\nindex-url = https://example.org/simple\n")
    assert credential_files([str(tmp_path)]) == ()


def test_a_link_is_judged_by_what_it_leads_to(tmp_path: Path):
    """It is emptied where that is shown too, and leads nowhere inside where it is not."""
    inner = written(tmp_path / "tool/real")
    (tmp_path / "tool/etc").mkdir()
    (tmp_path / "tool/etc/npmrc").symlink_to(inner)
    (tmp_path / "tool/pip.conf").symlink_to(written(tmp_path / "elsewhere"))
    assert credential_files([str(tmp_path / "tool")]) == (inner,)


def test_what_is_too_large_to_look_through_is_not_shown(tmp_path: Path):
    """A configuration has some lines."""
    path = written(tmp_path / "etc/npmrc", "# x\n" * 20_000)
    assert credential_files([str(tmp_path)]) == (path,)
