"""What tools of the host start, or take as their configuration, without anybody naming it: a table.

A phase that passed may bring such files back, and the run says so. Not in the table is what a
person starts by name or what is there to be built: sources, Makefile, package.json, Cargo.toml.
Names are compared without regard to case. What else a path is called, by links, `linked` knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
    Row(
        "git",
        "filters, merge drivers, addresses of submodules; what its configuration often includes",
        ".gitattributes .gitmodules .gitconfig",
    ),
    Row(
        "other version control",
        "hooks in their configuration",
        ".hg/ .jj/ .sl/ .bzr/ _darcs/ .svn/ .hgrc",
    ),
    Row(
        "managers of git hooks",
        "hooks run at the next commit",
        """.husky/ .githooks/ .git-hooks/ .lefthook/ lefthook.yml .lefthook.yml lefthook.yaml
        .lefthook.yaml lefthook.toml .lefthook.toml lefthook.json .lefthook.json
        lefthook-local.yml .lefthook-local.yml .lefthook-local/ .huskyrc .huskyrc.js
        .huskyrc.json .simple-git-hooks.json .simple-git-hooks.js .simple-git-hooks.cjs
        simple-git-hooks.js .pre-commit-config.yaml .pre-commit-config.yml prek.toml
        .pre-commit-hooks.yaml .overcommit.yml .lintstagedrc .lintstagedrc.js
        .lintstagedrc.cjs .lintstagedrc.mjs .lintstagedrc.json .lintstagedrc.yml
        lint-staged.config.js lint-staged.config.cjs lint-staged.config.mjs
        .commitlintrc.js .commitlintrc.cjs commitlint.config.js commitlint.config.cjs
        commitlint.config.mjs commitlint.config.ts""",
    ),
    Row("direnv", "run on entering the folder", ".envrc .direnv/"),
    Row(
        "dotenv readers", "variables, PATH among them", ".env .env.local .env.development .env.test"
    ),
    Row(
        "version managers",
        "choose which program a name starts; mise runs tasks and hooks",
        """.mise.toml mise.toml .mise.local.toml mise.local.toml .mise/ mise/config.toml
        .config/mise.toml mise/conf.d/ mise-tasks/ .mise-tasks/ .rtx.toml .tool-versions
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
    Row(
        "development environments in the cloud",
        "run when one is opened",
        ".gitpod.yml .gitpod.Dockerfile devfile.yaml .devfile.yaml .replit .idx/ .codesandbox/",
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
        .windsurfrules .aider.conf.yml .opencode/ opencode.json opencode.jsonc .roo/ .kiro/
        .amazonq/ .junie/ .clinerules .clinerules/ .goosehints .qwen/ .agents/ .github/prompts/
        CLAUDE.md CLAUDE.local.md AGENTS.md GEMINI.md .github/copilot-instructions.md
        .github/instructions/""",
    ),
    Row(
        "continuous integration",
        "run at the next push, with its secrets",
        """.github/workflows/ .github/actions/ .gitea/workflows/ .forgejo/workflows/
        .gitlab-ci.yml .gitlab/ci/ .circleci/ .travis.yml azure-pipelines.yml
        bitbucket-pipelines.yml Jenkinsfile .buildkite/ .drone.yml .woodpecker.yml
        .woodpecker/ appveyor.yml .appveyor.yml .cirrus.yml .teamcity/ cloudbuild.yaml
        .semaphore/ .tekton/ .builds/ .build.yml buildspec.yml codefresh.yml netlify.toml
        .github/dependabot.yml renovate.json renovate.json5 .renovaterc .renovaterc.json""",
    ),
    Row(
        "Python",
        "run at the start of every interpreter, or naming the interpreter",
        "sitecustomize.py usercustomize.py *.pth *._pth pyvenv.cfg .pythonrc.py .pdbrc .pdbrc.py",
        True,
    ),
    Row("pytest", "run before any test", "conftest.py pytest.ini .pytest.ini"),
    Row(
        "package installers",
        "indexes, and what runs on an install",
        "pip.conf pip.ini uv.toml poetry.toml .pypirc .condarc",
    ),
    Row(
        "Node's package managers",
        "scripts, registries, the package manager itself",
        """.npmrc .yarnrc .yarnrc.yml .yarn/releases/ .yarn/plugins/ .pnp.cjs .pnp.loader.mjs
        .yarn/sdks/ .pnpmfile.cjs .pnpmfile.mjs pnpmfile.js pnpm-workspace.yaml bunfig.toml""",
    ),
    Row(
        "linters in editors",
        "programs, run when a file is opened",
        """.eslintrc .eslintrc.js .eslintrc.cjs .eslintrc.json .eslintrc.yml eslint.config.js
        eslint.config.mjs eslint.config.cjs eslint.config.ts eslint.config.mts .eslintrc.yaml
        .prettierrc .prettierrc.js .prettierrc.cjs .prettierrc.mjs .prettierrc.json
        prettier.config.js prettier.config.mjs prettier.config.cjs prettier.config.ts
        .stylelintrc .stylelintrc.js .stylelintrc.cjs .stylelintrc.json stylelint.config.js
        stylelint.config.mjs stylelint.config.cjs .pylintrc .flake8 mypy.ini .mypy.ini
        .rubocop.yml .solargraph.yml .formatter.exs .credo.exs .luacheckrc .luarc.json
        .php-cs-fixer.php .php-cs-fixer.dist.php""",
    ),
    Row(
        "cargo and rust-analyzer",
        "wrappers and runners; build scripts run when a file is opened",
        "build.rs .cargo/config .cargo/config.toml",
    ),
    Row(
        "JVM build tools",
        "the build tool itself, its options and extensions",
        """.mvn/ gradlew gradlew.bat mvnw mvnw.cmd gradle/wrapper/ gradle.properties .sbtopts
        .jvmopts .sdkmanrc init.gradle init.gradle.kts gradle/init.d/ .gradle/init.d/ .m2/
        .mavenrc .bsp/""",
    ),
    Row(
        "Bazel and Buck",
        "options and the program itself",
        ".bazelrc user.bazelrc .bazeliskrc .bazelversion tools/bazel .buckconfig .buckversion",
    ),
    Row("Terraform", "provider programs", ".terraform/ .terraformrc terraform.rc"),
    Row("Ruby", "run at the start of its tools", ".irbrc .pryrc .rdbgrc .byebugrc .rspec .bundle/"),
    Row("PHP and web servers", "run before every page", ".user.ini .htaccess"),
    Row(
        "debuggers and interactive interpreters",
        "run where they start",
        """.gdbinit .gdbearlyinit .lldbinit .ghci .iex.exs .erlang .Rprofile .Renviron .ocamlinit
        .octaverc .julia/ .sqliterc .psqlrc .mongoshrc.js""",
    ),
    Row("desktops and file managers", "started by a click", "*.desktop .directory autorun.inf"),
)


def started_by(path: str, *, is_folder: bool = False) -> str:
    """What of the host starts or reads by itself what is at this relative path; else empty."""
    name = path.casefold()
    *folders, _ = name.split("/")
    # A folder of the table is one too where a link stands in its place; as a folder by itself it
    # starts nothing.
    keys = _folder_keys(folders) if is_folder else (*_folder_keys(name.split("/")), *_keys(name))
    return _first(keys, packaged=is_packaged(name))


def started_below(folder: str) -> str:
    """What of the host starts or reads by itself all that is in a folder of this path."""
    name = folder.casefold()
    return _first(_folder_keys(name.split("/")), packaged=is_packaged(f"{name}/"))


def opened_by(link: str) -> str:
    """What of the host looks into a folder of this link's name for some files; else empty."""
    name = link.casefold()
    row = _opened().get(name.rpartition("/")[2])
    if row is None or (is_packaged(name) and not row.installed):
        return ""
    return row.by


def is_packaged(path: str) -> bool:
    """Does it lie among packages that are installed in the project?"""
    return not set(PACKAGES).isdisjoint(path.split("/")[:-1])


def _first(keys: Iterable[str], *, packaged: bool) -> str:
    rows = _rows()
    found = (rows[key] for key in keys if key in rows)
    return next((row.by for row in found if row.installed or not packaged), "")


def _folder_keys(folders: Sequence[str]) -> Iterator[str]:
    """The names of the table that would stand for all that is below these folders."""
    yield from (f"{folder}/" for folder in folders)
    yield from (f"{above}/{folder}/" for above, folder in pairwise(folders))


def _keys(path: str) -> tuple[str, ...]:
    """The names of the table that would stand for what is at the path alone."""
    above, _, name = path.rpartition("/")
    above = above.rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    return (name, f"{above}/{name}", f"{above}/*", f"*{dot}{suffix}" if stem else "")


@cache
def _rows() -> dict[str, Row]:
    return {name.casefold(): row for row in TABLE for name in row.names.split()}


@cache
def _opened() -> dict[str, Row]:
    """By the first part of each name of two."""
    names = {name: row for name, row in _rows().items() if "/" in name.rstrip("/")}
    return {name.partition("/")[0]: row for name, row in names.items()}
