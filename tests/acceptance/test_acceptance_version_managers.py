"""Version managers in the home folder work inside, laid out as they lay themselves out; through the
real command, with namespaces and without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.command_harness import Project
from support.folder_permissions import allow_traversal
from support.paths import OLDER_KERNEL

pytestmark = pytest.mark.sandbox

# As `asdf exec`: the version that the nearest .tool-versions names, then the home's.
ASDF = """#!/bin/sh
data="${ASDF_DATA_DIR:-$HOME/.asdf}"; name=$2; shift 2
for file in .tool-versions "$HOME/.tool-versions"; do
  version=$(sed -n 's/^tool //p' "$file" 2>/dev/null)
  [ -z "$version" ] || exec "$data/installs/tool/$version/bin/$name" "$@"
done
echo "No version is set for command $name" >&2; exit 126
"""
# As mise: started by the name of a shim, it looks in its configuration and its data.
MISE = """#!/bin/sh
config="${MISE_GLOBAL_CONFIG_FILE:-$HOME/.config/mise/config.toml}"
version=$(sed -n 's/^"*tool"* = [["]*\\([0-9.]*\\).*/\\1/p' "$config")
exec "${MISE_DATA_DIR:-$HOME/.local/share/mise}/installs/tool/$version/bin/$(basename "$0")" "$@"
"""
NVM = 'PATH="$NVM_DIR/versions/node/$(cat "$NVM_DIR/alias/default")/bin:$PATH"\n'
UV = 'echo "$UV_PYTHON_INSTALL_DIR" && ls "$UV_PYTHON_INSTALL_DIR"'


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def link(path: Path, target: str | Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def lay_asdf(home: Path) -> tuple[str, str]:
    data = home / ".asdf"
    shim = f'#!/bin/sh\n# asdf-plugin: tool 1.2\nexec {data}/bin/asdf exec "tool" "$@"\n'
    program(data / "shims/tool", shim)
    program(data / "bin/asdf", ASDF)
    program(data / "installs/tool/1.2/bin/tool", "echo asdf works")
    (home / ".tool-versions").write_text("tool 1.2\n")
    return ".asdf/shims", "tool"


def lay_mise(home: Path) -> tuple[str, str]:
    data = home / ".local/share/mise"
    link(data / "shims/tool", program(home / ".local/bin/mise", MISE))
    program(data / "installs/tool/1.2/bin/tool", "echo mise works")
    config = home / ".config/mise/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[tools]\ntool = "1.2"\n[env]\nTOKEN = "planted"\n')
    return ".local/share/mise/shims", f"! grep -r planted {config} $HOME 2> /dev/null && tool"


def lay_nvm(home: Path) -> tuple[str, str]:
    program(home / ".nvm/versions/node/v22/bin/node", "echo nvm works")
    program(home / ".nvm/nvm.sh", NVM)
    (home / ".nvm/alias").mkdir()
    (home / ".nvm/alias/default").write_text("v22\n")
    return ".nvm/versions/node/v22/bin", '. "$NVM_DIR/nvm.sh" && node'


def lay_sdkman(home: Path) -> tuple[str, str]:
    java = home / ".sdkman/candidates/java"
    program(java / "21-tem/bin/java", "echo sdkman works")
    link(java / "current", "21-tem")
    return ".sdkman/candidates/java/current/bin", 'java && test -d "$SDKMAN_DIR/candidates"'


def lay_pyenv(home: Path) -> tuple[str, str]:
    root = home / ".pyenv"
    program(root / "shims/tool", f'export PYENV_ROOT="{root}"\nexec "{root}/libexec/pyenv" tool')
    program(root / "libexec/pyenv", 'exec "$PYENV_ROOT/versions/$(cat $PYENV_ROOT/version)/bin/$1"')
    program(root / "versions/3.12/bin/tool", "echo pyenv works")
    (root / "version").write_text("3.12\n")
    return ".pyenv/shims", "tool"


def lay_uv(home: Path) -> tuple[str, str]:
    data = home / ".local/share/uv"
    program(home / ".local/bin/uv", UV)
    program(data / "python/cpython-3.12/bin/python3.12", "echo uv works")
    secret = data / "credentials/credentials.toml"
    secret.parent.mkdir()
    secret.write_text("planted")
    return (
        ".local/bin",
        f"uv && ! cat {secret} 2> /dev/null && $UV_PYTHON_INSTALL_DIR/*/bin/python3.12",
    )


def lay_pipx(home: Path) -> tuple[str, str]:
    link(
        home / ".local/bin/tool",
        program(home / ".local/share/pipx/venvs/tool/bin/tool", "echo pipx works"),
    )
    return ".local/bin", 'tool && test -d "$PIPX_HOME/venvs"'


LAYOUTS = {
    "asdf": lay_asdf,
    "mise": lay_mise,
    "nvm": lay_nvm,
    "sdkman": lay_sdkman,
    "pyenv": lay_pyenv,
    "uv": lay_uv,
    "pipx": lay_pipx,
}


@pytest.mark.parametrize("policy", ["Low", "Medium"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_version_managers_programs_run_inside(project: Project, name: str, policy: str):
    """Each finds its versions, though the home is another at Medium, and no secret is shown."""
    if policy == "Low" and name in ("uv", "mise"):
        pytest.skip("at Low the home is the caller's own, secrets included")
    folder, command = LAYOUTS[name](project.home)
    project.caller = {"PATH": f"{project.home}/{folder}:/usr/bin:/bin"}
    if policy == "Low":  # the caller's own shell sets them
        project.caller |= {
            "NVM_DIR": f"{project.home}/.nvm",
            "SDKMAN_DIR": f"{project.home}/.sdkman",
            "PIPX_HOME": f"{project.home}/.local/share/pipx",
        }
    project.write({"use": f"{command} && echo done > out"}, policy=f'"{policy}"')
    said = project.call("pipeline", "use")
    assert said.code == 0, said.err
    assert f"{name} works" in log_of(project)
    assert said.result["violations"] == []


@pytest.mark.parametrize("policy", ["Medium", "High"])
def test_credentials_beside_programs_are_shown_empty(project: Project, policy: str):
    """As `npm config set --global` writes them; other settings are there."""
    folder, _ = lay_nvm(project.home)
    version = (project.home / folder).parent
    (version / "etc").mkdir()
    (version / "etc/npmrc").write_text("//registry.example.org/:_authToken=planted\n")
    (version / "pip.conf").write_text("[global]\nretries = 3\n")
    project.caller = {"PATH": f"{project.home}/{folder}:/usr/bin:/bin"}
    command = (
        f"cat {version}/etc/npmrc && grep retries {version}/pip.conf && ! ls -A /.over | grep ."
    )
    project.write({"use": command}, policy=f'"{policy}"', tools=f'["{project.home}/.nvm"]')
    said = project.call("pipeline", "use")
    assert said.code == 0, said.err
    assert log_of(project) == "retries = 3\n"


@pytest.mark.parametrize("name", ["asdf", "mise", "uv"])
def test_they_do_without_namespaces_too(
    project: Project, name: str, tmp_path_factory: pytest.TempPathFactory
):
    """Tier E3, where the home is a folder of the host."""
    folder, command = LAYOUTS[name](project.home)
    allow_traversal(project.home, tmp_path_factory.getbasetemp())
    project.caller = {"PATH": f"{project.home}/{folder}:/usr/bin:/bin"}
    project.write({"use": f"{command} && echo done > out"}, policy='"Medium"')
    done = subprocess.run(
        [sys.executable, str(OLDER_KERNEL), "namespaces", "--", *project.argv("pipeline", "use")],
        cwd=project.root,
        env=project.variables(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"{name} works" in log_of(project)


def log_of(project: Project) -> str:
    return "".join(
        path.read_text() for path in project.root.glob(".ggen/cleanroom/runs/*/logs/use.log")
    )
