"""Packages that are not in the project, and what package managers are told where there is no
network.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from cleanroom.engine.phases.offline import SWITCHES, switches
from cleanroom.model.policy import Level, Policy, default_policy
from cleanroom.project import dependencies, load
from cleanroom.project.dependencies import Asked
from cleanroom.project.tools import editable_installs, visible_tools
from support.project_builder import NO_FLOOR

MEDIUM = default_policy(Level.MEDIUM)
OPEN = msgspec.structs.replace(MEDIUM, egress=("example.org:443",))


def laid_out(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


LOCK = (
    '[[package]]\nname = "itoa"\nsource = "registry+https://github.com/rust-lang/crates.io-index"\n'
)
SUM = "github.com/google/uuid v1.6.0 h1:x\n"
PACKAGE = '{"name": "n", "dependencies": {"left-pad": "^1.3.0"}}'


POM = "<project><artifactId>a</artifactId></project>"
GRADLE = 'dependencies { implementation("a:b:1") }'
INSTALLED = ".venv/lib/python3.12/site-packages/flask/x"
BARE = ".venv/lib/python3.12/site-packages/pip/x"

# Command -> files of the project -> a part of the hint, empty where there is none.
CASES = [
    ("cargo test", {"Cargo.lock": LOCK}, "cargo vendor"),
    ("cargo test", {"Cargo.lock": LOCK, "vendor/itoa/x": ""}, ""),
    ("cargo test", {"Cargo.lock": LOCK, "vendor/.keep": ""}, "cargo vendor"),
    (
        "cargo test",
        {"Cargo.lock": LOCK, ".cargo/config.toml": '[source.crates-io]\nreplace-with = "here"'},
        "",
    ),
    ("cargo test", {"Cargo.lock": '[[package]]\nname = "mine"\n'}, ""),
    ("cargo test", {"Cargo.toml": '[dependencies]\nserde = "1"\n'}, "cargo generate-lockfile"),
    ("cargo test", {"Cargo.toml": '[dependencies]\nmine = { path = "mine" }\n'}, ""),
    ("cargo --version", {"Cargo.lock": LOCK}, ""),
    ("cd x && go test ./...", {"x/go.sum": SUM}, "go mod vendor"),
    ("cd x && go test ./...", {"go.sum": SUM}, ""),
    ("go test ./a/...", {"go.work": "use ./a\n", "a/go.sum": SUM}, "go work vendor"),
    ("go vet ./...", {"go.sum": SUM, "vendor/modules.txt": ""}, ""),
    ("go test", {"go.mod": "module m\n\nrequire a.b/c v1.0.0\n"}, "`go mod tidy`"),
    ("npm test", {"package.json": PACKAGE, "package-lock.json": "{}"}, "run `npm ci` before"),
    ("npm test", {"package.json": PACKAGE}, "`npm install --package-lock-only` and `npm ci`"),
    ("npm test", {"package.json": PACKAGE, "node_modules/left-pad/x": ""}, ""),
    ("npm test", {"package.json": PACKAGE, "node_modules/.package-lock.json": ""}, "npm ci"),
    ("npm test", {"package.json": '{"name": "n", "dependencies": {}}'}, ""),
    ("npm ci", {"package.json": PACKAGE, "node_modules/left-pad/x": ""}, "leave `npm ci` out"),
    ("pnpm test", {"package.json": PACKAGE, "pnpm-lock.yaml": ""}, "pnpm install"),
    ("node x.js", {"package.json": PACKAGE, "yarn.lock": ""}, "yarn install"),
    ("yarn", {"package.json": PACKAGE}, "yarn install --mode update-lockfile"),
    (
        ".venv/bin/pip install -r requirements.txt",
        {"requirements.txt": "flask\n"},
        ".venv/bin/pip install -r requirements.txt",
    ),
    ("python3 -m pip install -e .", {"pyproject.toml": ""}, "pip install -e ."),
    ("pip install -r requirements.txt", {INSTALLED: ""}, ""),
    ("pip install --find-links wheels -r requirements.txt", {}, ""),
    ("pip --version", {"requirements.txt": "flask\n"}, ""),
    ("pip check", {"requirements.txt": "flask\n"}, ""),
    (".venv/bin/python -m pytest", {"requirements.txt": "pytest\n"}, "python3 -m venv .venv"),
    (".venv/bin/python -m pytest", {"requirements.txt": "pytest\n", BARE: ""}, "venv"),
    (".venv/bin/python -m pytest", {"requirements.txt": "pytest\n", INSTALLED: ""}, ""),
    (".venv/bin/python -m pytest", {"requirements.txt": "# none\n"}, ""),
    ("python3 -m pytest", {"requirements.txt": "pytest\n"}, ""),
    ("uv run pytest", {"pyproject.toml": '[project]\ndependencies = ["a"]', "uv.lock": ""}, "uv"),
    ("uv run pytest", {"pyproject.toml": '[project]\ndependencies = ["a"]'}, "`uv lock`"),
    (
        "uv pip install -p .venv -r pylock.toml",
        {"pylock.toml": ""},
        "`python3 -m venv .venv && uv pip install -p .venv -r pylock.toml`",
    ),
    ("uv run x.py", {"pyproject.toml": '[project]\nname = "a"'}, ""),
    (
        "poetry run pytest",
        {"pyproject.toml": '[tool.poetry.dependencies]\nflask = "3"'},
        "`poetry lock`",
    ),
    (
        "poetry run pytest",
        {"pyproject.toml": '[tool.poetry.dependencies]\npython = "^3"', "poetry.lock": ""},
        "",
    ),
    ("tox", {"tox.ini": ""}, "tox run --notest"),
    ("tox", {"tox.ini": "", ".tox/py/x": ""}, ""),
    ("./mvnw -B test", {"pom.xml": POM}, "dependency:go-offline` before, and add"),
    ("mvn -Dmaven.repo.local=.m2 test", {"pom.xml": POM, ".m2/x": ""}, ""),
    ("mvn test", {}, ""),
    ("./gradlew test", {"build.gradle.kts": GRADLE}, "gradle -g .gradle-home build"),
    ("gradle --offline -g .h test", {"build.gradle": GRADLE, ".h/x": ""}, ""),
    ("gradle test", {"build.gradle": "apply plugin: 'java'"}, ""),
    ("./cargo-like go.sum", {"Cargo.lock": LOCK, "go.sum": SUM}, ""),
]


def hints(phases: list[Asked], fetched: set[str] = frozenset()) -> dict[str, str]:
    """The hints where the fetch step knows these managers only."""
    return dependencies.hints(phases, lambda: fetched)


def asked(root: Path, *commands: str, name: str = "test", policy: Policy = MEDIUM) -> Asked:
    return Asked(name, root, commands, policy)


@pytest.mark.parametrize(("command", "files", "helps"), CASES)
def test_missing_packages_are_named_with_what_brings_them(
    tmp_path: Path, command: str, files: dict[str, str], helps: str
):
    """A file that names packages, a command that needs them, and no folder that holds them:
    the line that helps, and the phase that it helps.
    """
    found = hints([asked(laid_out(tmp_path, files), command)])
    assert helps in found.get("test", "")
    assert bool(found) == bool(helps)
    assert all("phase test" in hint for hint in found.values())


def test_a_manager_whose_packages_are_fetched_misses_its_lock_only(tmp_path: Path):
    """With the lock there is no hint; without it the hint is the line that writes it."""
    (tmp_path / "package.json").write_text(PACKAGE)
    found = hints([asked(tmp_path, "npm test")], fetched={"npm"})
    assert "`npm install --package-lock-only` before" in found["test"]
    (tmp_path / "package-lock.json").write_text("{}")
    assert hints([asked(tmp_path, "npm test")], fetched={"npm"}) == {}


def test_a_phase_after_the_one_that_installs_has_no_hint(tmp_path: Path):
    """What init cannot install is said of init, once."""
    laid_out(tmp_path, {"package.json": PACKAGE, "package-lock.json": "{}"})
    phases = [asked(tmp_path, "npm ci", name="init"), asked(tmp_path, "npm test")]
    assert list(hints(phases)) == ["init"]
    assert list(hints(phases[1:])) == ["test"]
    assert not hints([phases[0]._replace(policy=OPEN), phases[1]])


def test_managers_of_one_family_install_for_each_other(tmp_path: Path):
    """What uv put into .venv is there for a program of it, whichever file names it."""
    laid_out(tmp_path, {"pyproject.toml": '[project]\ndependencies = ["six"]\n'})
    phases = [asked(tmp_path, "uv sync", name="init"), asked(tmp_path, ".venv/bin/python x.py")]
    assert list(hints(phases)) == ["init"]


@pytest.mark.parametrize("command", ["tox -e py", "nox -s tests"])
def test_what_tox_and_nox_install_is_fetched_with_pips(tmp_path: Path, command: str):
    root = laid_out(tmp_path, {"tox.ini": "", "noxfile.py": ""})
    assert hints([asked(root, command)], {"pip"}) == {}


def test_environments_that_tox_and_nox_prepared_are_there(tmp_path: Path):
    """The phase that runs the tests is not advised after the one that prepared them."""
    for prepare, run in (("tox -e py --notest", "tox -e py"), ("nox --install-only", "nox -R")):
        phases = [asked(tmp_path, prepare, name="init"), asked(tmp_path, run)]
        assert list(hints(phases)) == ["init"]


def test_a_phase_with_egress_misses_nothing(tmp_path: Path):
    """It may fetch its packages."""
    assert not hints([asked(laid_out(tmp_path, {"go.sum": SUM}), "go test", policy=OPEN)])


def test_the_hint_has_what_pip_was_asked_for(tmp_path: Path):
    """Extras and constraints of the phase's own command are in the line to paste."""
    (hint,) = hints([asked(tmp_path, ".venv/bin/pip install -c c.txt -e '.[test]'")]).values()
    assert "`python3 -m venv .venv && .venv/bin/pip install -c c.txt -e '.[test]'`" in hint


def test_a_phase_that_names_a_folder_of_packages_misses_nothing(tmp_path: Path):
    """Its variables say where they are."""
    phase = asked(tmp_path, "pip install -e .")
    assert not hints([phase._replace(variables={"PIP_FIND_LINKS": "wheels"})])


def test_a_phase_on_the_host_misses_nothing(tmp_path: Path):
    """It has the host's network."""
    phase = asked(laid_out(tmp_path, {"go.sum": SUM}), "go test")
    assert not hints([phase._replace(hermetic=False)])


def test_files_that_say_nothing_are_no_hint_and_no_error(tmp_path: Path):
    """Malformed, deep and binary manifests are as if they named no package."""
    laid_out(tmp_path, {"package.json": "[" * 5000, "pyproject.toml": "a.b" * 9, "Cargo.toml": "="})
    (tmp_path / "requirements.txt").write_bytes(b"\xff\x00")
    commands = ("npm test", "uv run x", ".venv/bin/python x.py", "cargo test", "go test")
    found = hints([asked(tmp_path, command, name=command) for command in commands])
    assert "npm test" not in found
    assert "cargo test" not in found


def test_what_the_fetch_step_brings_is_no_hint_of_the_plan(tmp_path: Path):
    """npm with a lock has none, without one the line that writes it."""
    laid_out(
        tmp_path, {"package.json": PACKAGE, "make.toml": "[lifecycle.init]\ncommand = 'npm ci'"}
    )
    (phase,) = load(tmp_path, ("init",), caller={}, floor=NO_FLOOR).phases
    assert phase.dependencies.endswith("run `npm install --package-lock-only` before")
    (tmp_path / "package-lock.json").write_text("{}")
    (phase,) = load(tmp_path, ("init",), caller={}, floor=NO_FLOOR).phases
    assert phase.dependencies == ""


def test_the_plan_has_the_hint_before_the_run(tmp_path: Path):
    """The hint stands with its phase, in the folder that the phase runs in."""
    make = "[lifecycle.check]\ncommand = 'gradle test'"
    laid_out(tmp_path, {"build.gradle": GRADLE, "make.toml": make})
    (phase,) = load(tmp_path, ("check",), caller={}, floor=NO_FLOOR).phases
    assert phase.dependencies.startswith("phase check has no network")


def test_package_managers_are_told_where_there_is_no_network():
    """From Medium on without egress they are offline; with a network they are left alone."""
    assert switches(MEDIUM) == switches(default_policy(Level.HIGH)) == SWITCHES
    assert switches(OPEN) == {}
    assert switches(default_policy(Level.LOW)) == {}


def test_packages_in_development_are_named_and_not_shown(tmp_path: Path):
    """What a project's own virtual environment says of folders outside is its word,
    not the caller's: they are named, a line that is no path is not.
    """
    environment, elsewhere = tmp_path / "project/.venv", tmp_path / "library/src"
    elsewhere.mkdir(parents=True)
    lines = f"{elsewhere}\nimport os; os.getcwd()\nrelative\n"
    laid_out(environment, {"pyvenv.cfg": "", "lib/python3.11/site-packages/_library.pth": lines})
    assert str(elsewhere) not in visible_tools(
        {"PATH": "/usr/bin", "HOME": str(tmp_path)}, tmp_path / "project"
    )
    assert editable_installs(tmp_path / "project") == (str(elsewhere),)


def test_packages_in_development_of_the_callers_environment_are_shown(tmp_path: Path):
    """A virtual environment outside of the project, which the caller's variable names,
    is the caller's word, and so is what it uses.
    """
    environment, elsewhere = tmp_path / "environment", tmp_path / "library/src"
    elsewhere.mkdir(parents=True)
    laid_out(
        environment,
        {"pyvenv.cfg": "", "lib/python3.11/site-packages/_library.pth": f"{elsewhere}\n"},
    )
    caller = {"PATH": "/usr/bin", "HOME": str(tmp_path / "home"), "VIRTUAL_ENV": str(environment)}
    assert str(elsewhere) in visible_tools(caller, tmp_path / "project")


@pytest.mark.parametrize(
    "files",
    [
        {"project/.venv/pyvenv.cfg": "home = {secret}\n"},
        {"project/.venv/pyvenv.cfg": "executable = {secret}/key\n"},
        {"project/.venv/pyvenv.cfg": "base-executable = {secret}/bin/tool\n"},
        {
            "project/.venv/pyvenv.cfg": "",
            "project/.venv/lib/python3.11/site-packages/x.pth": "{secret}\n",
        },
    ],
    ids=["home", "executable", "a bin folder", "pth"],
)
def test_a_file_of_the_project_cannot_have_a_folder_shown(tmp_path: Path, files: dict[str, str]):
    """A phase, or the repository, may write any of these; the next run shows no folder for it that
    is no interpreter's.
    """
    secret = tmp_path / "secret"
    laid_out(secret, {"key": "k", "bin/tool": "t", "lib/data": "d"})
    (secret / "bin/tool").chmod(0o755)
    laid_out(tmp_path, {name: text.format(secret=secret) for name, text in files.items()})
    assert (
        visible_tools(
            {"PATH": f"{tmp_path}/project/.venv/bin:/usr/bin", "HOME": str(tmp_path / "home")},
            tmp_path / "project",
        )
        == ()
    )


def test_a_link_of_the_project_cannot_have_a_folder_shown(tmp_path: Path):
    """Neither by a program that is a link, nor as a folder that is one,
    wherever it stands on PATH.
    """
    secret = tmp_path / "secret"
    laid_out(secret, {"key": "k", "bin/tool": "t", "lib/data": "d"})
    (secret / "bin/tool").chmod(0o755)
    laid_out(tmp_path, {"project/.venv/pyvenv.cfg": "", "project/tools/x": ""})
    (tmp_path / "project/.venv/bin").mkdir()
    (tmp_path / "project/.venv/bin/python").symlink_to(secret / "key")
    (tmp_path / "project/.venv/bin/tool").symlink_to(secret / "bin/tool")
    (tmp_path / "project/bin").symlink_to(secret / "bin")
    path = f"{tmp_path}/project/bin:{tmp_path}/project/.venv/bin:/usr/bin"
    assert visible_tools({"PATH": path, "HOME": str(tmp_path / "home")}, tmp_path / "project") == ()


def test_the_interpreter_of_the_projects_environment_is_shown(tmp_path: Path):
    """With its library, and nothing else that lies beside it."""
    python = tmp_path / "python"
    laid_out(python, {"bin/python3": "", "lib/python3.11/os.py": "", "share/x": ""})
    (python / "bin/python3").chmod(0o755)
    laid_out(tmp_path, {"project/.venv/pyvenv.cfg": f"home = {python}/bin\n"})
    (tmp_path / "project/.venv/bin").mkdir()
    (tmp_path / "project/.venv/bin/python").symlink_to(python / "bin/python3")
    assert visible_tools(
        {"PATH": "/usr/bin", "HOME": str(tmp_path / "home")}, tmp_path / "project"
    ) == (str(python),)
