"""Variables of services as shells and readers of `.env` files take them."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cleanroom.cli.views.exports import dotenv_lines, is_offered, shell_lines

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


@given(TEXT)
@settings(max_examples=60)
def test_a_shell_has_each_value_as_it_is(value: str):
    """Whatever a project writes is a value, and never a command."""
    lines = "\n".join(shell_lines({"NAME": value}))
    script = 'eval "$1"; printf "%s" "$NAME"'
    ran = subprocess.run(["/bin/sh", "-c", script, "sh", lines], capture_output=True, check=True)

    assert ran.stdout == value.encode()
    assert ran.stderr == b""


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("redis://:word@127.0.0.1:6379/0", "A=redis://:word@127.0.0.1:6379/0"),
        ("", "A="),
        ("two words # no comment", "A='two words # no comment'"),
        ("$HOME `id`", "A='$HOME `id`'"),
        ("it's", 'A="it\'s"'),
        ("http://h/?a=b&c=d", "A='http://h/?a=b&c=d'"),
        ("one\ntwo", 'A="one\\ntwo"'),
    ],
)
def test_a_value_that_readers_would_change_is_quoted(value: str, line: str):
    """Plain where it may be; in single quotes, which nobody looks into; else escaped."""
    assert dotenv_lines({"A": value}) == [line]


@given(TEXT)
@example("x&./evil")
@settings(max_examples=60)
def test_a_shell_that_reads_an_env_file_runs_no_command(value: str):
    """`. ./.env` is usual: whatever a project writes is a value there too."""
    lines = "\n".join(dotenv_lines({"NAME": value}))
    script = 'eval "$1"; printf "%s" "${NAME+set}"'
    ran = subprocess.run(
        ["/bin/sh", "-c", script, "sh", lines], capture_output=True, check=True, cwd="/"
    )

    assert ran.stdout == b"set"
    assert ran.stderr == b""


@pytest.mark.parametrize(
    "name", ["", "A B", "A;id", "A=B", "1A", "A\n", "LD_PRELOAD", "PATH", "BASH_ENV", "PYTHONPATH"]
)
def test_a_name_that_is_a_command_or_decides_about_code_is_not_offered(name: str):
    """make.toml is the project's, and `eval` runs outside of any environment."""
    assert not is_offered(name)


@pytest.mark.parametrize(
    "name",
    [
        "MAKEFLAGS",
        "MAKEFILES",
        "TAR_OPTIONS",
        "LUA_INIT",
        "VIMINIT",
        "EXINIT",
        "npm_config_script_shell",
        "PIP_INDEX_URL",
        "UV_INDEX_URL",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "CFLAGS",
        "CC",
        "CLASSPATH",
        "DOTNET_STARTUP_HOOKS",
        "R_PROFILE_USER",
        "OPENSSL_CONF",
        "LIBMYSQL_PLUGINS",
        "PSQLRC",
        "PSQL_PAGER",
        "KUBECONFIG",
        "AWS_CONFIG_FILE",
        "GCONV_PATH",
        "PROMPT",
        "RSYNC_RSH",
        "INPUTRC",
        "https_proxy",
        "HTTPS_PROXY",
        "SSL_CERT_FILE",
        "PYTEST_PLUGINS",
        "PYTEST_ADDOPTS",
        "VIMRUNTIME",
        "EMACSLOADPATH",
        "LESS",
        "AWS_PAGER",
        "SUDO_EDITOR",
        "GEM_HOME",
        "BUNDLE_GEMFILE",
        "COMPOSER_HOME",
        "VIRTUAL_ENV",
        "TCLLIBPATH",
        "CMAKE_TOOLCHAIN_FILE",
        "ANSIBLE_CONFIG",
        "TF_CLI_CONFIG_FILE",
        "FZF_DEFAULT_COMMAND",
        "COMPOSE_FILE",
        "GTK_MODULES",
        "QT_PLUGIN_PATH",
        "GIO_EXTRA_MODULES",
        "KRB5_CONFIG",
        "SASL_PATH",
    ],
)
def test_a_name_by_which_a_usual_program_runs_code_is_not_offered(name: str):
    """`MAKEFILES=evil.mk` has the caller's next `make` read a file of the project."""
    assert not is_offered(name)


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "MYSQL_HOST", "PGPASSWORD", "TF_VAR_a"])
def test_a_name_of_clients_of_services_is_offered(name: str):
    assert is_offered(name)


@pytest.mark.parametrize("name", ["DATABASE_URL", "PGHOST", "PGSSLROOTCERT", "APP_ENV", "GREETING"])
def test_a_name_of_services_is_offered(name: str):
    assert is_offered(name)
