"""Claims about what installations are told inside, where the home folder is another one."""

from __future__ import annotations

from cleanroom.project.tools import tool_variables


def test_an_installation_that_is_shown_is_told_where_it_is():
    """rustup looks for its toolchains below HOME, which is a private folder inside."""
    assert tool_variables({"HOME": "/home/me"}, ["/home/me/.cargo/bin", "/home/me/.rustup"]) == {
        "RUSTUP_HOME": "/home/me/.rustup"
    }


def test_the_callers_own_word_wins():
    """Where the caller says where an installation is, inside says the same."""
    assert tool_variables({"HOME": "/home/me", "PYENV_ROOT": "/opt/pyenv"}, ["/opt/pyenv"]) == {
        "PYENV_ROOT": "/opt/pyenv"
    }


def test_what_is_not_shown_is_not_named():
    """A variable for a folder that does not exist inside would only mislead."""
    assert tool_variables(
        {"HOME": "/home/me", "NVM_DIR": "/home/me/.nvm"}, ["/home/me/.pyenv"]
    ) == {"PYENV_ROOT": "/home/me/.pyenv"}
