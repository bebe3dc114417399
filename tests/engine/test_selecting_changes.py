"""Which changes come back: the pure selection, and the look at the host before it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.backends.base import Change
from cleanroom.engine.phases.host_facts import HostFacts, opens_to_others, read_host_facts
from cleanroom.engine.phases.host_links import with_links
from cleanroom.engine.phases.selection import Selection, Withheld, fully_written, select, unreported


def files(*paths: str) -> list[Change]:
    return [Change(path=path, kind="file") for path in paths]


def folders(*paths: str) -> list[Change]:
    return [Change(path=path, kind="directory") for path in paths]


def deleted(*paths: str) -> list[Change]:
    return [Change(path=path, kind="deleted") for path in paths]


def back(changes, *, passed=True, outputs=None, **host) -> tuple[str, ...]:
    return select(changes, passed=passed, outputs=outputs, host=HostFacts(**host)).paths


def looked(root: Path, changes, **options) -> HostFacts:
    return read_host_facts(str(root), changes, **options)


# --- outputs


def test_a_passed_phase_brings_everything_but_history():
    """Without outputs every change comes back, never `.git` and `.ggen`."""
    assert back(files("a", ".git/HEAD", ".ggen/state.json", "d/e")) == ("a", "d/e")


def test_declared_outputs_are_all_that_comes_back():
    """Outputs select paths and what is below them, by prefix of whole parts or pattern, also
    under `.ggen` where declared."""
    changes = files("target/a", "targets/b", "x.log", "sub/y.log", ".ggen/out", "top")
    outputs = ("target/", "*.log", ".ggen/out")
    assert back(changes, outputs=outputs) == ("target/a", "x.log", "sub/y.log", ".ggen/out")


def test_an_output_covers_what_it_spells():
    """A name with brackets, stars or question marks is itself before it is a pattern."""
    changes = files("pages/[id]/out", "pages/x/out", "a*b", "[", "other")
    assert back(changes, outputs=("pages/[id]/",)) == ("pages/[id]/out",)
    assert back(changes, outputs=("a*b", "[")) == ("a*b", "[")
    assert back(changes, outputs=("pages/[[]id]",)) == ("pages/[id]/out",)


def test_new_folders_above_a_chosen_path_come_with_it():
    """A file in new folders can be written only when they are made."""
    changes = [*folders("a", "a/b", "z"), *files("a/b/c")]
    assert back(changes, outputs=("a/b/c",)) == ("a", "a/b", "a/b/c")


def test_a_folder_that_was_there_does_not_change_with_what_lies_in_it():
    """The mode of a folder that the host has comes back where the folder is asked for, not
    with a file in it."""
    changes = [*folders("a"), *files("a/c.log")]
    assert back(changes, outputs=("a/c.log",), folders=frozenset({"a"})) == ("a/c.log",)
    assert back(changes, folders=frozenset({"a"})) == ("a", "a/c.log")


# --- phases that did not pass


def test_an_ignored_folder_comes_back_from_a_failed_phase_whole_or_not_at_all():
    """A program that may not come back keeps its virtual environment away, and no other folder."""
    venv = (".venv", ".venv/bin", ".venv/lib")
    kept = (".venv/lib/a.py", "target/a.o")
    changes = [*folders(*venv, "target"), *files(*kept, ".venv/bin/activate")]
    host = HostFacts(
        ignored=frozenset(change.path for change in changes),
        ignored_folders=frozenset((*venv, "target")),
    )
    selection = select(changes, passed=False, outputs=None, host=host)
    assert selection.paths == ("target", "target/a.o")
    assert selection.incomplete == {".venv"}
    assert unreported(changes, selection) == (".venv",)
    assert select(changes, passed=True, outputs=None, host=host).incomplete == frozenset()


def test_a_new_package_without_its_script_stays_away():
    """In a virtual environment that the host has a package without its script is not installed."""
    changes = [*folders(".venv/lib/x"), *files(".venv/lib/x/x.py", ".venv/bin/x")]
    ignored = frozenset(change.path for change in changes)
    above = frozenset((".venv", ".venv/lib"))
    assert back(changes, passed=False, ignored=ignored, ignored_folders=above) == ()


def test_removals_in_an_ignored_folder_do_not_keep_its_additions_away():
    """A build that failed keeps what it has built, though it removed older parts."""
    changes = [*files("target/new"), *deleted("target/old")]
    ignored = frozenset(("target/new", "target/old"))
    above = frozenset(("target",))
    paths = back(changes, passed=False, ignored=ignored, ignored_folders=above)
    assert paths == ("target/new",)


def test_declared_outputs_come_from_an_incomplete_folder():
    """What an output names comes back all the same, and makes no folder incomplete."""
    changes = [*folders(".venv", ".venv/bin"), *files(".venv/a", ".venv/bin/activate")]
    ignored = frozenset(change.path for change in changes)
    host = {"ignored": ignored, "ignored_folders": frozenset((".venv", ".venv/bin"))}
    outputs = (".venv/bin/activate",)
    everything = tuple(change.path for change in changes)
    assert back(changes, passed=False, outputs=outputs, **host) == everything


def test_a_failed_phase_brings_outputs_and_ignored_paths():
    """Of a phase that failed nothing else comes back."""
    changes = files("src/a", "out/b", "cache/c", ".git/x")
    ignored = frozenset({"cache/c", ".git/x"})
    assert back(changes, passed=False, outputs=("out",), ignored=ignored) == ("out/b", "cache/c")
    assert back(changes, passed=False) == ()


def test_a_failed_phase_deletes_nothing_that_is_no_output(tmp_path: Path):
    """Neither by removing, nor by putting a file in a folder's place or a folder in a file's,
    ignored or not."""
    for path in ("cache/a/b", "cache/c", "cache/d", "out/a/b"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    changes = [
        *files("cache/a"),
        *deleted("cache/c"),
        *folders("cache/d"),
        *files("cache/d/e", "cache/new"),
        *deleted("out/a"),
    ]
    host = looked(tmp_path, changes)._replace(ignored=frozenset(c.path for c in changes))
    assert select(changes, passed=False, outputs=None, host=host).paths == ("cache/new",)
    outputs = select(changes, passed=False, outputs=("out",), host=host).paths
    assert outputs == ("cache/new", "out/a")


def test_a_folder_in_a_files_place_is_not_made_for_what_lies_in_it(tmp_path: Path):
    """An output below a folder that would take the place of a file stays away, where the phase
    failed."""
    (tmp_path / "a").write_text("the developer's")
    changes = [*folders("a", "a/b"), *files("a/b/c")]
    host = looked(tmp_path, changes)
    assert select(changes, passed=False, outputs=("a/b/c",), host=host).paths == ()
    came = select(changes, passed=True, outputs=("a/b/c",), host=host).paths
    assert came == ("a", "a/b", "a/b/c")


def test_what_starts_by_itself_never_comes_from_a_failed_phase():
    """Programs, hooks and tasks stay away although they are ignored, unless they are declared."""
    paths = (".venv/bin/python", ".envrc", "node_modules/.bin/x", "node_modules/x/index.js")
    changes = files(*paths)
    assert back(changes, passed=False, ignored=frozenset(paths)) == ("node_modules/x/index.js",)
    assert back(changes, passed=False, outputs=(".venv",), ignored=frozenset()) == (paths[0],)


# --- what never comes back without being spelled


@pytest.mark.parametrize("name", [".git", ".ggen"])
@pytest.mark.parametrize("above", ["", "sub/", "a/b/"])
@pytest.mark.parametrize("output", ["", ".", "*", "**", "*.sample", "sub", "a/b"])
def test_history_at_any_depth_comes_back_only_where_it_is_spelled(name, above, output):
    """No pattern and no folder above it declares `.git` or `.ggen`; its own name does."""
    changes = files(f"{above}{name}/hooks/x.sample")
    assert back(changes, outputs=(output,) if output else None) == ()
    assert back(changes, outputs=(f"{above}{name}",)) == (changes[0].path,)


SPELLINGS = [".GIT", ".Git", "git~1", "GIT~2", ".git ", ".git.", ".g\u200cit", ".git::$DATA"]


@pytest.mark.parametrize("name", [*SPELLINGS, ".GGEN", "ggen~1"])
def test_another_spelling_of_history_is_history(name):
    """What some file system takes for `.git` does not come back, and is named."""
    chosen = select(files(f"a/{name}/hooks/x"), passed=True, outputs=None)
    assert chosen.paths == ()
    assert "another spelling" in chosen.withheld[0].reason


@pytest.mark.parametrize("inside", ["", "vendor/", "A/b/"])
@pytest.mark.parametrize("head", ["HEAD", "head"])
def test_a_folder_that_git_would_take_for_a_repository_does_not_come_back(tmp_path, inside, head):
    """HEAD, objects and refs together, wherever they lie; what lies beside them does."""
    parts = (head, "config", "hooks/post-checkout", "index", "objects/x", "refs/x", "src/a")
    changes = files(*(inside + part for part in parts))
    chosen = select(changes, passed=True, outputs=None, host=looked(tmp_path, changes))
    assert chosen.paths == (f"{inside}src/a",)
    assert len(chosen.withheld) == 6


def test_a_repository_in_pieces_is_one(tmp_path: Path):
    """Also where an earlier phase brought the other pieces, and where they lie in another
    folder."""
    for folder in ("objects", "refs"):
        (tmp_path / folder).mkdir()
    assert back(files("HEAD"), **looked(tmp_path, files("HEAD"))._asdict()) == ()
    changes = files("w/HEAD", "w/commondir")
    assert back(changes, **looked(tmp_path, changes)._asdict()) == ()
    changes = [*files("HEAD"), *deleted("refs")]
    assert back(changes, **looked(tmp_path, changes)._asdict()) == ("HEAD", "refs")


def test_a_repository_comes_back_where_its_name_is_declared(tmp_path: Path):
    """An output that spells the folder brings it, one above it does not."""
    changes = files("out/m.git/HEAD", "out/m.git/objects/x", "out/m.git/refs/x")
    host = looked(tmp_path, changes)
    assert select(changes, passed=True, outputs=("out",), host=host).paths == ()
    assert len(select(changes, passed=True, outputs=("out/m.git",), host=host).paths) == 3


def test_parts_that_make_no_repository_are_files_like_others(tmp_path: Path):
    """`config`, `hooks` and `objects` are names of folders in many projects."""
    changes = files("config/a", "hooks/b", "src/objects/c", "src/refs/d")
    assert len(back(changes, **looked(tmp_path, changes)._asdict())) == 4


def test_make_toml_comes_back_only_where_it_is_spelled(tmp_path: Path):
    """The project's and its workspaces', there or not; another one is a file like others."""
    changes = files("make.toml", "api/make.toml", "generated/make.toml")
    tomls = [str(tmp_path / "make.toml"), str(tmp_path / "api/make.toml")]
    host = looked(tmp_path, changes, files=tomls)
    chosen = select(changes, passed=True, outputs=None, host=host)
    assert chosen.paths == ("generated/make.toml",)
    assert [change.path for change in chosen.withheld] == ["make.toml", "api/make.toml"]
    for outputs in ((".",), ("*",), ("*.toml",), ("api",)):
        came = select(changes, passed=True, outputs=outputs, host=host).paths
        assert not {"make.toml", "api/make.toml"} & set(came)
    assert select(changes, passed=True, outputs=("make.toml",), host=host).paths == ("make.toml",)


def test_what_make_toml_names_is_not_rewritten(tmp_path: Path):
    """A script that it names and that is there comes back only where declared; one that a
    phase makes comes, and is listed."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/deploy.sh").write_text("#!/bin/sh\n")
    changes = files("scripts/deploy.sh", "out/app")
    named = [str(tmp_path / "scripts/deploy.sh"), str(tmp_path / "out/app")]
    host = looked(tmp_path, changes, named=named)
    chosen = select(changes, passed=True, outputs=None, host=host)
    assert chosen.paths == ("out/app",)
    assert chosen.autorun == (("out/app", "make.toml"),)
    declared = select(changes, passed=True, outputs=("scripts/",), host=host)
    assert declared.paths == ("scripts/deploy.sh",)


@pytest.mark.parametrize("inner", ["lib/.git/HEAD", "make.toml", "run.sh"])
@pytest.mark.parametrize("kind", ["deleted", "file", "symlink"])
def test_nothing_that_stays_goes_with_the_folder_that_it_lies_in(tmp_path, inner, kind):
    """A folder that holds a repository, a make.toml or a script is not removed, and nothing
    takes its place."""
    path = tmp_path / "sub" / inner
    path.parent.mkdir(parents=True)
    path.write_text("x")
    changes = [Change(path="sub", kind=kind)]
    options = {"files": [str(tmp_path / "sub/make.toml")], "named": [str(tmp_path / "sub/run.sh")]}
    chosen = select(changes, passed=True, outputs=None, host=looked(tmp_path, changes, **options))
    assert chosen.paths == ()
    assert "would go with it" in chosen.withheld[0].reason


def test_nothing_comes_in_the_place_of_what_stays(tmp_path: Path):
    """A folder in the place of make.toml does not come with what lies in it either."""
    (tmp_path / "make.toml").write_text("")
    changes = [*folders("make.toml"), *files("make.toml/x")]
    host = looked(tmp_path, changes, files=[str(tmp_path / "make.toml")])
    assert select(changes, passed=True, outputs=None, host=host).paths == ()


# --- what is said


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["HEAD", "objects/ab/cd", "refs/heads/main", "index"], "HEAD, objects, refs"),
        (["refs/tags/v1", "packed-refs", "logs/HEAD"], "packed-refs, refs"),
        (["hooks/pre-commit"], "hooks"),
        (["modules/lib/HEAD", "modules/lib/index"], "HEAD"),
    ],
)
def test_a_changed_history_that_stays_is_one_word(changed, said):
    """Not one for each file, and it names what changed; at any depth."""
    for repository in (".git", "sub/.git"):
        stayed = select(
            files("a", *(f"{repository}/{path}" for path in changed)),
            passed=True,
            outputs=None,
        )
        assert stayed.paths == ("a",)
        (one,) = stayed.withheld
        assert one.path == repository
        assert one.reason == f"{said} changed"


def test_what_stayed_away_and_was_not_said_is_found():
    """Neither folders nor what was chosen or withheld with all that lies in it; of a repository
    its history as one."""
    changes = [
        *folders("d", "held"),
        *files("d/a", "held/x", "out", ".git/HEAD", ".git/refs/x", ".git/index", ".ggen/s"),
        *deleted("gone"),
    ]
    selection = Selection(("out",), (Withheld("held", "it"),))
    assert unreported(changes, selection) == ("d/a", ".git", "gone")


PROPOSED = {
    "make.toml": ("make.toml", None),
    "run.sh": ("run.sh", None),
    "bare/HEAD": ("bare", None),
    ".git/HEAD": (".git", None),
    "api/.git/HEAD": ("api/.git", None),
    "sub": ("sub/make.toml", "deleted"),
}


@pytest.mark.parametrize("path", PROPOSED)
def test_the_proposed_output_brings_back_what_was_withheld(tmp_path: Path, path: str):
    """Beside `.`, which stands for every other change: nothing is withheld any more."""
    for there in ("sub/make.toml", "run.sh"):
        (tmp_path / there).parent.mkdir(exist_ok=True)
        (tmp_path / there).write_text("x")
    spelled, kind = PROPOSED[path]
    repository = ["bare/objects/x", "bare/refs/x"] if path == "bare/HEAD" else []
    changes = [*files("other", *repository), Change(path=path, kind=kind or "file")]
    deciding = [str(tmp_path / name) for name in ("make.toml", "sub/make.toml")]
    host = looked(tmp_path, changes, files=deciding, named=[str(tmp_path / "run.sh")])

    before = select(changes, passed=True, outputs=None, host=host)
    after = select(changes, passed=True, outputs=(".", spelled), host=host)

    assert before.paths == ("other",)
    assert {change.spelled for change in before.withheld} == {spelled}
    assert set(after.paths) == {change.path for change in changes}


def test_a_removed_repository_that_stays_is_said():
    """As a whole; a file in its place as well."""
    for change in (*deleted(".git"), *files(".git")):
        (one,) = select([change], passed=True, outputs=None).withheld
        assert (one.path, one.reason) == (".git", "it changed")


LOOKING = (".git/index", ".git/ORIG_HEAD", ".git/modules/lib/index", ".ggen/x")


@pytest.mark.parametrize("path", LOOKING)
def test_what_tools_write_when_they_look_at_a_repository_is_not_worth_a_word(path):
    """`git status` writes the index anew."""
    changes = [*folders(".git"), *files(path)]
    assert select(changes, passed=True, outputs=None).withheld == ()


def test_an_output_in_a_repository_comes_back_whatever_else_changed_there():
    """What stays of it holds nothing up that an output spells."""
    changes = [*folders(".git/hooks"), *files(".git/HEAD", ".git/hooks/x")]
    chosen = select(changes, passed=True, outputs=(".", ".git/hooks"))
    assert chosen.paths == (".git/hooks", ".git/hooks/x")
    assert [change.path for change in chosen.withheld] == [".git"]


def test_what_starts_by_itself_is_listed_where_it_comes_back():
    """Files and links, not folders and deletions, and only those that were chosen."""
    changes = [*files(".envrc", "a", ".git/hooks/x"), *deleted("conftest.py"), *folders(".husky")]
    assert select(changes, passed=True, outputs=None).autorun == ((".envrc", "direnv"),)
    assert select(changes, passed=True, outputs=("a",)).autorun == ()


def test_what_the_host_would_lose_is_found_through_no_link(tmp_path: Path):
    """Folders that go, whatever a folder takes the place of, and what of it never goes."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/x").write_text("x")
    root = tmp_path / "root"
    (root / "d/e").mkdir(parents=True)
    (root / "empty/er").mkdir(parents=True)
    for path in ("d/a", "d/e/b", "d/e/c", "f"):
        (root / path).write_text("x")
    (root / "d/e/.git").mkdir()
    (root / "d/link").symlink_to(tmp_path / "outside")
    (root / "way").symlink_to(tmp_path / "outside")
    changes = [*deleted("d", "empty", "f", "gone"), *folders("way"), *deleted("way/x")]
    lost = looked(root, changes).lost
    assert lost == {"d": "d/e/.git", "empty": "", "f": "", "way": ""}


# --- properties

NAMES = st.text("abg.", min_size=1, max_size=3).filter(lambda name: name not in (".", ".."))
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
KINDS = st.sampled_from(("file", "directory", "symlink", "deleted", "refused"))
CHANGES = st.lists(st.tuples(PATHS, KINDS), unique_by=lambda pair: pair[0]).map(
    lambda pairs: [Change(path=path, kind=kind) for path, kind in sorted(pairs)]
)
OUTPUTS = st.none() | st.lists(PATHS | st.sampled_from((".", "*", "a*", "[ab]")), max_size=3)


@given(CHANGES, st.booleans(), OUTPUTS, st.sets(PATHS), st.sets(PATHS), st.sets(PATHS))
def test_the_selection_holds_for_whatever_changed(changes, passed, outputs, ignored, there, held):
    """What is chosen did change, in order; what is withheld is not chosen; a failed phase
    costs the host nothing undeclared."""
    lost = {path: "x" if path in held else "" for path in there}
    host = HostFacts(ignored=frozenset(ignored), lost=lost, files=frozenset(held))
    chosen = select(changes, passed=passed, outputs=outputs, host=host)
    assert list(chosen.paths) == [c.path for c in changes if c.path in set(chosen.paths)]
    assert not set(chosen.paths) & {change.path for change in chosen.withheld}
    assert {path for path, _ in chosen.autorun} <= set(chosen.paths)
    if not passed and outputs is None:
        assert not set(chosen.paths) & lost.keys()
        assert not set(chosen.paths) & {c.path for c in changes if c.kind == "deleted"}
    if passed and outputs is None and not held:
        assert set(chosen.paths) == {change.path for change in changes}


@given(CHANGES, OUTPUTS, st.sets(PATHS))
def test_a_failed_phase_brings_no_more_than_one_that_passed(changes, outputs, ignored):
    """With the same outputs; beside them only what is ignored."""
    host = HostFacts(ignored=frozenset(ignored))
    failed = set(select(changes, passed=False, outputs=outputs, host=host).paths)
    passed = set(select(changes, passed=True, outputs=outputs, host=host).paths)
    extra = failed - passed
    above = {path for path in extra if any(other.startswith(f"{path}/") for other in extra)}
    assert extra - above <= ignored


def test_the_look_goes_through_no_link(tmp_path: Path):
    """A project that is a link is the caller's word; what lies behind a link inside is not
    there."""
    (tmp_path / "real").mkdir()
    os.symlink("real", tmp_path / "project")
    os.symlink("/etc", tmp_path / "real/etc")
    host = looked(tmp_path / "project", deleted("etc/passwd"))
    assert host.lost == {}


def test_what_a_name_leads_to_counts_as_named(tmp_path: Path):
    """The links on the way to a file, in a folder's place too, and what it really is;
    never what lies outside.
    """
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/make.toml").write_text("")
    (tmp_path / "make.toml").symlink_to("conf/../conf/make.toml")
    (tmp_path / "scripts").symlink_to(tmp_path / "impl")
    (tmp_path / "impl").mkdir()
    (tmp_path / "impl/x.sh").symlink_to("../out.sh")
    (tmp_path / "out.sh").symlink_to("/etc/passwd")
    root = str(tmp_path)
    assert with_links(root, [f"{root}/make.toml"]) == (
        f"{root}/make.toml",
        f"{root}/conf/make.toml",
    )
    named = with_links(root, [f"{root}/scripts/x.sh"])
    assert named == tuple(
        f"{root}/{name}" for name in ("scripts/x.sh", "scripts", "impl/x.sh", "out.sh")
    )


def test_a_circle_of_links_ends(tmp_path: Path):
    """Two links that name each other are both named, and nothing hangs."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert set(with_links(str(tmp_path), [f"{tmp_path}/a"])) == {f"{tmp_path}/a", f"{tmp_path}/b"}


def test_what_lies_around_a_conflict_is_not_said_to_have_come():
    """A folder in which somebody changed a file, and what was to come into a place that is taken,
    stayed as they were.
    """
    assert fully_written(
        ["dd", "f", ".vscode/tasks.json", "other"], ["dd/new", "f", ".vscode"]
    ) == {"other"}


FILE, FOLDER, LINK = 0o100000, 0o040000, 0o120777
OPENED = [
    (FILE | 0o644, "file", 0o664, True),
    (FILE | 0o664, "file", 0o666, True),
    (FOLDER | 0o755, "directory", 0o757, True),
    (FILE | 0o666, "file", 0o666, False),
    (FILE | 0o600, "file", 0o755, False),
    (FOLDER | 0o777, "directory", 0o755, False),
    (0, "file", 0o664, False),
    (0, "file", 0o666, True),
    (0, "directory", 0o777, True),
    (LINK, "file", 0o646, True),
    (FOLDER | 0o777, "file", 0o606, True),
    (FILE | 0o644, "deleted", 0, False),
    (FILE | 0o644, "symlink", 0o777, False),
]


@pytest.mark.parametrize(("before", "kind", "mode", "opens"), OPENED)
def test_rights_to_write_are_told_where_others_did_not_have_them(before, kind, mode, opens):
    """By the modes of what is of one kind before and now; what is new counts from everybody on."""
    change = Change(path="x", kind=kind, mode=mode)
    assert opens_to_others(before, change) is opens


@pytest.mark.parametrize(
    ("path", "fields", "opens"),
    [
        (".venv/.lock", {}, False),
        (".lock", {}, False),
        (".venv/.lock", {"bytes": 1}, True),
        (".venv/.lock", {"mode": 0o777}, True),
        (".venv/.lock", {"kind": "directory"}, True),
        (".venv/poetry.lock", {}, True),
        (".venv/lib/__init__.py", {}, True),
    ],
)
def test_an_empty_lock_of_uv_is_no_news(path: str, fields: dict[str, object], opens: bool) -> None:
    """Anything that somebody may read or start is."""
    change = Change(path=path, **{"kind": "file", "mode": 0o666, **fields})
    assert opens_to_others(0, change) is opens


def test_a_link_that_tools_know_is_followed_before_many_that_lead_through_many(tmp_path: Path):
    """What a phase makes to be followed for hours hides none of the others, nor costs as much."""
    long = "/".join(["a", ".."] * 1000) + "/x"
    many = [Change(path=f"m{number}", kind="symlink", target=long) for number in range(1000)]
    known = Change(path="z/.vscode", kind="symlink", target="../cfg")
    seen = read_host_facts(str(tmp_path), [*many, known], files=(), named=())
    assert seen.links.started_by("cfg/tasks.json").startswith("Visual Studio Code")


def test_links_of_an_earlier_run_hide_none_that_tools_know(tmp_path: Path):
    """They lie in the project by then, as the host's own do."""
    for number in range(300):
        (tmp_path / f"a{number}").symlink_to("/".join(["b", ".."] * 500) + "/x")
    (tmp_path / ".vscode").symlink_to("cfg")
    (tmp_path / "cfg").mkdir()
    changed = Change(path="cfg/tasks.json", kind="file")
    seen = read_host_facts(str(tmp_path), [changed], files=(), named=())
    assert seen.links.started_by("cfg/tasks.json").startswith("Visual Studio Code")
