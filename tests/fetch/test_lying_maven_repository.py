"""A repository of Maven's that lies, through the real command with the real Maven.

Maven resolves by itself in the fetch; what counts is what the engine makes of its answer.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from support import ecosystems_document
from support.lying_registry import PORT, Answer
from support.registry_project import RegistryProject, Said

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0, reason="makes network namespaces, as root"
    ),
    pytest.mark.skipif(shutil.which("mvn") is None, reason="mvn is not installed"),
    pytest.mark.skipif(shutil.which("javac") is None, reason="javac is not installed"),
]

OURS, THEIRS = f"https://private.test:{PORT}/m2", f"https://registry.test:{PORT}/public"
AT = "/example/ours/ours/1.0/ours-1.0"
MAKE = '[project]\nname = "p"\n[lifecycle.test]\ncommand = "true"\n'
COORDINATES = "<groupId>example.ours</groupId><artifactId>ours</artifactId><version>1.0</version>"
POM = (
    "<project><modelVersion>4.0.0</modelVersion>"
    "<groupId>org.example</groupId><artifactId>p</artifactId><version>1</version>{repositories}"
    f"<dependencies><dependency>{COORDINATES}</dependency></dependencies></project>\n"
)
MIRROR = (
    f"<settings><mirrors><mirror><id>m</id><url>{OURS}</url><mirrorOf>*</mirrorOf>"
    "</mirror></mirrors></settings>\n"
)
# One for its own packages, and the others as Maven has them.
BESIDE = (
    "<settings><mirrors><mirror><id>c</id><mirrorOf>central</mirrorOf>"
    f"<url>{THEIRS}</url></mirror></mirrors><profiles><profile><id>o</id><repositories>"
    f"<repository><id>ours</id><url>{OURS}</url></repository></repositories></profile></profiles>"
    "<activeProfiles><activeProfile>o</activeProfile></activeProfiles></settings>\n"
)


def jar(text: str) -> bytes:
    """A package with this in it; the same bytes each time."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr(zipfile.ZipInfo("said"), text)
    return written.getvalue()


def repository(at: str, content: bytes, **lies: Answer) -> dict[str, Answer]:
    """Answers of a repository with the one package; `lies` by suffixes, "_" for a dot."""
    pom = f"<project><modelVersion>4.0.0</modelVersion>{COORDINATES}</project>".encode()
    found = {}
    for suffix, file in (("pom", pom), ("jar", content)):
        found[f"{at}.{suffix}"] = Answer(body=file.hex())
        digest = hashlib.sha1(file).hexdigest()
        found[f"{at}.{suffix}.sha1"] = Answer(body=digest.encode().hex())
    return found | {f"{at}.{suffix.replace('_', '.')}": lie for suffix, lie in lies.items()}


HONEST = jar("honest")


def fetched(
    folder: Path, answers: dict[str, Answer], settings: str = MIRROR, repositories: str = ""
) -> Said:
    """The command with the caller's settings, and a server with these answers."""
    (folder / ".m2").mkdir(exist_ok=True)
    (folder / ".m2/settings.xml").write_text(settings)
    files = {"pom.xml": POM.format(repositories=repositories), "make.toml": MAKE}
    return RegistryProject(folder).call(answers, files, "fetch")


def stored(folder: Path) -> set[bytes]:
    return {path.read_bytes() for path in folder.glob("cache/dependencies/files/*/*")}


def test_the_callers_own_mirror_is_used(tmp_path: Path):
    """Its address is a private one, which settings.xml names; nobody else is asked."""
    said = fetched(tmp_path, repository(f"/m2{AT}", HONEST))
    assert said.code == 0, said.err
    assert HONEST in stored(tmp_path)
    assert all(line.startswith("- /m2/") for line in said.requests)
    ecosystems_document.record("maven", "private mirror")


def test_another_file_than_the_repositorys_own_digest_names_is_not_taken(tmp_path: Path):
    """Maven itself only warns, and uses the file."""
    lie = Answer(body=jar("another").hex())
    said = fetched(tmp_path, repository(f"/m2{AT}", HONEST, jar=lie))
    assert said.code == 3, said.err
    assert "CR-FETCH-001" in said.err
    assert jar("another") not in stored(tmp_path)
    ecosystems_document.record("maven", "verified")


def test_a_digest_that_is_missing_leaves_the_others_in_force(tmp_path: Path):
    """A repository that hides one digest has no file of another one believed."""
    lies = {"jar": Answer(body=jar("another").hex()), "pom_sha1": Answer(status=404)}
    said = fetched(tmp_path, repository(f"/m2{AT}", HONEST, **lies))
    assert said.code == 3, said.err
    assert "CR-FETCH-001" in said.err


def test_a_file_without_a_digest_is_pinned_on_first_use(tmp_path: Path):
    """As Maven would take it."""
    said = fetched(tmp_path, repository(f"/m2{AT}", HONEST, jar_sha1=Answer(status=404)))
    assert said.code == 0, said.err
    assert HONEST in stored(tmp_path)


TROUBLES = {
    "a file cut short": Answer(body=HONEST.hex(), length=len(HONEST) + 100),
    "a file that is not there": Answer(status=404),
    # a minute and more in all, with no second of silence
    "a file that comes byte by byte": Answer(body=HONEST.hex(), pause=0.8),
    "a redirect to the loopback": Answer(status=302, location="https://127.0.0.1/x"),
    "a redirect to a host that nothing names": Answer(
        status=302, location=f"https://registry.test:{PORT}/public{AT}.jar"
    ),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_what_maven_cannot_get_is_named_and_not_stored(tmp_path: Path, trouble: str):
    """A phase may not need it: a warning with the name of the package."""
    answers = repository(f"/m2{AT}", HONEST, jar=TROUBLES[trouble])
    answers |= repository(f"/public{AT}", HONEST)
    said = fetched(tmp_path, answers)
    assert "CR-FETCH" in said.err
    assert "ours" in said.err
    assert HONEST not in stored(tmp_path)
    assert not any("/public/" in line for line in said.requests)


def test_the_callers_own_repository_comes_before_the_projects(tmp_path: Path):
    """Strangers have the very name and version; the caller's is what is fetched."""
    named = f"<repositories><repository><id>x</id><url>{THEIRS}</url></repository></repositories>"
    answers = repository(f"/m2{AT}", HONEST) | repository(f"/public{AT}", jar("strangers"))
    said = fetched(tmp_path, answers, BESIDE, named)
    assert said.code == 0, said.err
    assert HONEST in stored(tmp_path)
    assert jar("strangers") not in stored(tmp_path)


def test_that_strangers_may_give_what_the_caller_lacks_is_said(tmp_path: Path):
    """No lock pins it, and Maven asks the next repository: named, in `plan` too."""
    answers = repository(f"/public{AT}", jar("strangers"))
    said = fetched(tmp_path, answers, BESIDE)
    assert "CR-FETCH-020" in said.err
    assert "registry.test" in said.err
