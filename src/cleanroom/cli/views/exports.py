"""Variables as a shell, or a program that reads `.env` files, takes them. Pure.

They are a project's, and `eval` makes them the caller's: a name that is none would be a command,
and some names decide which code the caller's own programs run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What a shell, the loader and interpreters take code or programs from.
_DECIDING = re.compile(
    r"(?:LD_|DYLD_|BASH|ZDOTDIR|GIT_|PYTHON|PERL|RUBY|NODE_|NPM_|CARGO_|RUSTC|GO|JAVA_|JDK_|_JAVA|"
    r"MAVEN_|GRADLE_|CLEANROOM_(?:CACHE|RUN_ID|\w+_BIN)$).*"
    r"|PATH|HOME|SHELL|ENV|IFS|CDPATH|FPATH|PS[0-4]|PROMPT_COMMAND|\w*EDITOR|VISUAL|\w*PAGER|BROWSER"
    r"|TMPDIR|XDG_\w+|SSH_\w+|DOCKER_\w+|COMPOSE_\w+|CONTAINER_HOST|LESS\w*|SUDO_ASKPASS"
    r"|TERM|TERMINFO|USER|LOGNAME"
    # make, tar, editors, interpreters, package managers and what tests and builds with them
    r"|G?MAKEFLAGS|MAKEFILES|MFLAGS|TAR_OPTIONS|RSYNC_\w+|\w+_RSH|[GN]?VIM\w*|EMACS\w*|EXINIT|INPUTRC"
    r"|PYTEST_\w+|VIRTUAL_ENV|CONDA_\w+|PIPENV_\w+|POETRY_\w+|GEM_\w+|BUNDLER?_\w+|COMPOSER_\w+"
    r"|TCL\w+|CMAKE_\w+|CCACHE_\w+|PKG_CONFIG\w*|ANSIBLE_\w+|TF_(?:CLI|PLUGIN)_\w+|FZF_\w+"
    r"|LUA_\w+|R_\w+|PHPRC|PHP_INI_SCAN_DIR|RUST(?:FLAGS|DOC\w*|UP_\w+)|CLASSPATH|DOTNET_\w+"
    r"|CORECLR_\w+|COR_\w+|JULIA_\w+|ERL_\w+|DENO_\w+|BUN_\w+|YARN_\w+|COREPACK_\w+"
    r"|(?i:npm_config_\w+|pip_\w+|uv_\w+)|CC|CXX|CPP|LD|[A-Z]+FLAGS|COMPILER_PATH|GCC_\w+"
    # zsh, the C library, desktops, and the libraries and clients of services
    r"|R?PROMPT[0-9]?|(?:READ)?NULLCMD|GLIBC_TUNABLES|GCONV_PATH|LOCPATH|NLSPATH|OPENSSL_\w+"
    r"|GTK_\w+|QT_\w+|GIO_\w+|GNUPGHOME|KRB5\w+|SASL_\w+|WGETRC"
    r"|PSQLRC|PSQL_\w+|PGSERVICEFILE|PGSYSCONFDIR|LIBMYSQL_\w+|MYSQL_HOME|KUBECONFIG"
    r"|AWS_(?:CONFIG|SHARED_CREDENTIALS)_FILE"
    # through whom everything else is reached, and whom it believes
    r"|(?i:\w+_proxy)|SSL_CERT_\w+|CURL_\w+|REQUESTS_CA_BUNDLE"
)
# Without what ends a command or begins a home: shells read `.env` files too (`. ./.env`).
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./?^*!-]*")


def is_offered(name: str) -> bool:
    """Whether a caller may be given the variable."""
    return bool(_NAME.fullmatch(name)) and not _DECIDING.fullmatch(name)


def shell_lines(variables: Mapping[str, str]) -> list[str]:
    """Lines for `eval` in any POSIX shell."""
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]


def dotenv_lines(variables: Mapping[str, str]) -> list[str]:
    """Lines of an `.env` file, quoted where its readers would take a character for something."""
    return [f"{name}={_dotenv(value)}" for name, value in variables.items()]


def _dotenv(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    if value.isprintable() and "'" not in value and "\\" not in value:
        return f"'{value}'"
    escaped = re.sub(r'([\\"$`])', r"\\\1", value)
    escaped = escaped.replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'
