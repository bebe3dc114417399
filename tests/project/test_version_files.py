"""Which lines of version managers' files of the caller's home reach a phase."""

from __future__ import annotations

from pathlib import Path

import pytest

from cleanroom.project.version_files import version_files

MISE_CONFIG = """
[tools]
node = "20.20.2"
python = ["3.12", { version = "3.11", postinstall = "curl https://example.org" }]
"npm:prettier" = "latest"
odd = { path = "/home/me/odd" }
[env]
GITHUB_TOKEN = "s3cret"
_.file = "~/.secrets.env"
[settings]
idiomatic_version_file_enable_tools = ["node"]
github_attestations = false
[tasks.x]
run = "echo s3cret"
"""


def files(home: Path, *tools: str, **caller: str) -> dict[str, str]:
    return {
        file.name: file.text
        for file in version_files(
            {"HOME": str(home), **caller}, [f"{home}/{tool}" for tool in tools]
        )
    }


def test_mises_configuration_is_reduced_to_tools_and_versions(tmp_path: Path):
    """Its variables, tasks and hooks do not enter: they may be secrets."""
    config = tmp_path / ".config/mise/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(MISE_CONFIG)
    assert files(tmp_path, ".local/share/mise") == {
        ".mise-global.toml": (
            '[tools]\n"node" = ["20.20.2"]\n"python" = ["3.12", "3.11"]\n'
            '"npm:prettier" = ["latest"]\n'
            '[settings]\nidiomatic_version_file_enable_tools = ["node"]\n'
        )
    }


def test_asdf_is_told_versions_and_which_files_have_them(tmp_path: Path):
    """Comments and hooks do not enter, nor a line that names no version."""
    (tmp_path / ".tool-versions").write_text(
        "nodejs 20.20.2 system # s3cret\npython\nruby ref:v3 path:/opt/ruby\nx $(s3cret)\n"
    )
    (tmp_path / ".asdfrc").write_text(
        "legacy_version_file = yes\npre_asdf_install = curl s3cret\nlegacy_version_file2 = yes\n"
    )
    assert files(tmp_path, ".asdf") == {
        ".tool-versions": "nodejs 20.20.2 system\nruby ref:v3 path:/opt/ruby\n",
        ".asdfrc": "legacy_version_file = yes\n",
    }


def test_the_files_of_a_manager_that_is_not_shown_stay_out(tmp_path: Path):
    """They would be of no use."""
    (tmp_path / ".tool-versions").write_text("nodejs 20\n")
    assert files(tmp_path, ".pyenv") == {}
    moved = {"MISE_DATA_DIR": f"{tmp_path}/m"}
    assert files(tmp_path, ".asdf", "m", **moved) == {".tool-versions": "nodejs 20\n"}


@pytest.mark.parametrize(
    "text", ["", "[tools", "tools = 3\nsettings = 3\n", "[tools]\nnode = 20\n", "x = " + "[" * 9999]
)
def test_what_names_no_version_is_no_file(tmp_path: Path, text: str):
    """Neither where it is missing, is broken or has other types."""
    config = tmp_path / "config.toml"
    if text:
        config.write_text(text)
    named = {"MISE_GLOBAL_CONFIG_FILE": str(config)}
    assert files(tmp_path, ".local/share/mise", **named) == {}
