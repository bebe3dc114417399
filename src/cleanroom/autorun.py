"""What tools of the host start, or take as their configuration, without anybody naming it: a table.

A phase that passed may bring such files back, and the run says so. Not in the table is what a
person starts by name or what is there to be built: sources, Makefile, package.json, Cargo.toml.
Names are compared without regard to case.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import NamedTuple


class Row(NamedTuple):
    """Names at any depth: NAME, *.SUFFIX, FOLDER/NAME, FOLDER/* (right in it), FOLDER/ (below)."""

    by: str  # what starts or reads them
    why: str
    names: str  # separated by blanks
    installed: bool = False  # counts in the packages too that are installed in the project


PACKAGES = ("node_modules", "site-packages", "dist-packages")
TABLE = (
    Row("git", "filters, merge drivers, addresses of submodules", ".gitattributes .gitmodules"),
    Row(
        "other version control",
        "hooks in their configuration",
        ".hg/ .jj/ .sl/ .bzr/ _darcs/ .svn/",
    ),
    Row(
        "managers of git hooks",
        "hooks run at the next commit",
        """.husky/ .githooks/ .git-hooks/ .lefthook/ lefthook.yml .lefthook.yml lefthook.yaml
        .pre-commit-config.yaml .pre-commit-hooks.yaml .overcommit.yml .lintstagedrc
        .lintstagedrc.js lint-staged.config.js commitlint.config.js""",
    ),
    Row("direnv", "run on entering the folder", ".envrc .direnv/"),
    Row("dotenv readers", "variables, PATH among them", ".env .env.local"),
    Row(
        "version managers",
        "choose which program a name starts; mise runs tasks and hooks",
        """.mise.toml mise.toml .mise/ mise/config.toml .rtx.toml .tool-versions
        .python-version .node-version .nvmrc .ruby-version .java-version .go-version
        .sdkmanrc rust-toolchain rust-toolchain.toml .rbenv-vars devbox.json""",
    ),
    Row(
        "shells",
        "run by a shell that starts there",
        """.bashrc .bash_profile .bash_login .bash_logout .profile .zshrc .zshenv .zprofile
        .zlogin .kshrc .autoenv .autoenv.zsh .inputrc .ssh/""",
    ),
    Row("whatever a PATH leads to", "programs", "bin/* sbin/* .bin/* Scripts/* shims/*", True),
    Row(
        "Visual Studio Code",
        "tasks, interpreters, debuggers, containers",
        ".vscode/ *.code-workspace .devcontainer/ .devcontainer.json .vscode-server/",
    ),
    Row("JetBrains IDEs", "run configurations, interpreters, watchers", ".idea/ .run/ .fleet/"),
    Row(
        "other editors",
        "settings that start programs",
        """.zed/ .vim/ .exrc .vimrc .nvimrc .nvim.lua .lvimrc .dir-locals.el .dir-locals-2.el
        *.sublime-project .helix/ .kakrc .nova/ .vs/""",
    ),
    Row(
        "coding assistants",
        "servers, hooks and instructions that they follow",
        """.mcp.json .claude/ .cursor/ .cursorrules .gemini/ .codex/ .continue/ .windsurf/
        .windsurfrules .aider.conf.yml CLAUDE.md AGENTS.md GEMINI.md
        .github/copilot-instructions.md""",
    ),
    Row(
        "continuous integration",
        "run at the next push, with its secrets",
        """.github/workflows/ .github/actions/ .gitea/workflows/ .forgejo/workflows/
        .gitlab-ci.yml .gitlab/ci/ .circleci/ .travis.yml azure-pipelines.yml
        bitbucket-pipelines.yml Jenkinsfile .buildkite/ .drone.yml .woodpecker.yml
        .woodpecker/ appveyor.yml .appveyor.yml .cirrus.yml .teamcity/ cloudbuild.yaml
        .semaphore/ .github/dependabot.yml renovate.json""",
    ),
    Row(
        "Python",
        "run at the start of every interpreter, or naming the interpreter",
        "sitecustomize.py usercustomize.py *.pth *._pth pyvenv.cfg .pythonrc.py .pdbrc",
        True,
    ),
    Row("pytest", "run before any test", "conftest.py pytest.ini"),
    Row("package installers", "indexes, and what runs on an install", "pip.conf uv.toml .pypirc"),
    Row(
        "Node's package managers",
        "scripts, registries, the package manager itself",
        """.npmrc .yarnrc .yarnrc.yml .yarn/releases/ .yarn/plugins/ .pnp.cjs .pnp.loader.mjs
        .pnpmfile.cjs pnpmfile.js bunfig.toml""",
    ),
    Row(
        "linters in editors",
        "programs, run when a file is opened",
        """.eslintrc .eslintrc.js .eslintrc.cjs .eslintrc.json .eslintrc.yml eslint.config.js
        eslint.config.mjs eslint.config.cjs eslint.config.ts .prettierrc .prettierrc.js
        .prettierrc.cjs .prettierrc.mjs prettier.config.js prettier.config.mjs
        .stylelintrc.js stylelint.config.js .pylintrc .rubocop.yml .solargraph.yml""",
    ),
    Row(
        "cargo and rust-analyzer",
        "wrappers and runners; build scripts run when a file is opened",
        "build.rs .cargo/config .cargo/config.toml",
    ),
    Row(
        "JVM build tools",
        "the build tool itself, its options and extensions",
        ".mvn/ gradlew mvnw gradle/wrapper/ .sbtopts .jvmopts .sdkmanrc init.gradle",
    ),
    Row(
        "Bazel and Buck",
        "options and the program itself",
        ".bazelrc .bazelversion tools/bazel .buckconfig .buckversion",
    ),
    Row("Terraform", "provider programs", ".terraform/ .terraformrc"),
    Row("Ruby", "run at the start of its tools", ".irbrc .pryrc .rspec .bundle/"),
    Row("PHP and web servers", "run before every page", ".user.ini .htaccess"),
    Row(
        "debuggers and interactive interpreters",
        "run where they start",
        """.gdbinit .lldbinit .ghci .Rprofile .Renviron .ocamlinit .octaverc .julia/ .sqliterc
        .psqlrc""",
    ),
    Row("desktops and file managers", "started by a click", "*.desktop .directory autorun.inf"),
)


def started_by(path: str, *, is_folder: bool = False) -> str:
    """What of the host starts or reads by itself what is at this relative path; else empty."""
    rows = _rows()
    name = path.casefold()
    packaged = not set(PACKAGES).isdisjoint(name.split("/")[:-1])
    found = (rows[key] for key in _keys(name, is_folder) if key in rows)
    return next((row.by for row in found if row.installed or not packaged), "")


def _keys(path: str, is_folder: bool) -> Iterator[str]:
    """The names of the table that would stand for the path."""
    *folders, name = path.split("/")
    # A folder of the table is one too where a link stands in its place; as a folder by itself it
    # starts nothing.
    within = folders if is_folder else [*folders, name]
    yield from (f"{folder}/" for folder in within)
    yield from (f"{above}/{folder}/" for above, folder in pairwise(within))
    if is_folder:
        return
    above = folders[-1] if folders else ""
    stem, dot, suffix = name.rpartition(".")
    yield from (name, f"{above}/{name}", f"{above}/*", f"*{dot}{suffix}" if stem else "")


@cache
def _rows() -> dict[str, Row]:
    return {name.casefold(): row for row in TABLE for name in row.names.split()}
