"""Maven's projects, settings and repositories: what is read, asked, checked and laid out."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.core.beneath import Folder
from cleanroom.dependencies.discovery import ProjectFolder
from cleanroom.dependencies.maven import CENTRAL, HOME_M2, Maven
from cleanroom.dependencies.maven_pom import core_extensions, modules, read_pom, safe_options
from cleanroom.dependencies.maven_repository import SOURCES, files_inside, path_of
from cleanroom.dependencies.maven_settings import MavenSettings
from cleanroom.dependencies.maven_xml import NotXml, read_xml, write_xml
from cleanroom.dependencies.model import Artifact, Complete, Fetched, Found, Problem, Stored
from cleanroom.dependencies.session import Page, ToolResult, ToolRun
from cleanroom.dependencies.settings import Settings
from cleanroom.model.errors import DependencyRejected, DependencyUnavailable, ProjectError

REAL = Path(__file__).parents[1] / "fixtures/dependencies/surefire-3.2.5.pom"
SHA1 = "a" * 40
SETTINGS = """<settings>
  <localRepository>/elsewhere</localRepository><offline>true</offline>
  <servers><server><id>own</id><username>u</username><password>${env.TOKEN}</password></server>
  <server><id>other</id><username>u</username><password>{bm9uZW5vbmU=}</password></server></servers>
  <mirrors><mirror><id>own</id><mirrorOf>*</mirrorOf><url>http://repo.own.example/m2/</url></mirror>
  </mirrors>
  <proxies><proxy><host>proxy.example</host><port>3128</port><username>a@b</username>
  <password>p</password><nonProxyHosts>*.own.example|localhost</nonProxyHosts></proxy></proxies>
</settings>"""


def manager(home: Path = Path("/nonexistent"), **variables: str) -> Maven:
    return Maven(Settings(variables, home))


def configured(tmp_path: Path, **variables: str) -> Maven:
    (tmp_path / ".m2").mkdir()
    (tmp_path / ".m2/settings.xml").write_text(SETTINGS)
    return manager(tmp_path, **variables)


def found(text: str, **further: str) -> Found:
    files = {"pom.xml": text.encode(), **{n: t.encode() for n, t in further.items()}}
    return Found("maven", "", files)


# --- XML


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<project>",
        "<a/><b/>",
        '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><project>&e;</project>',
        "<!DOCTYPE project><project/>",
        "<project>&e;</project>",
        "<a>" * 100 + "</a>" * 100,
        '<?xml version="1.0" encoding="none-such"?><project/>',
        "<project>" + "<a/>" * 100_001 + "</project>",
        "<project>" + " " * (4 << 20) + "</project>",
    ],
)
def test_what_is_no_xml_of_maven_s_is_refused(text: str):
    """No entity is declared, no other document is read, and nothing is too large."""
    with pytest.raises(NotXml):
        read_xml(text.encode())


@given(st.binary() | st.text().map(lambda text: f"<project>{text}</project>".encode()))
def test_any_bytes_are_read_or_refused(content: bytes):
    """It comes with the project."""
    with suppress(ProjectError):
        manager().read(Found("maven", "", {"pom.xml": content}))
    assert list(safe_options(content)) is not None
    with suppress(NotXml):
        core_extensions(content)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_written_xml_is_read_again(text: str):
    """Whatever a password has."""
    node = read_xml(b"<a><b>x</b></a>")
    node = node._replace(children=(node.children[0]._replace(text=text.strip()),))
    assert read_xml(write_xml(node).encode()) == node


# --- projects


def test_a_real_project_is_read():
    """Its modules, and what it depends on."""
    content = REAL.read_bytes()
    assert len([one.text for one in modules(read_pom(content))]) == 15
    lock = manager().read(Found("maven", "", {"pom.xml": content}))
    assert lock.artifacts == ()
    assert "junit:junit" in {one.partition(" ")[0] for one in lock.unpinned}
    assert "plugins and all that these need" in lock.unresolved


def build(tmp_path: Path, **poms: str) -> None:
    for name, text in poms.items():
        path = tmp_path / name.replace("_", "/") / "pom.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<project>{text}</project>")


def find(tmp_path: Path, path: str) -> list[str] | None:
    with Folder.at(tmp_path) as root:
        one = manager().find(ProjectFolder(root, path))
    return None if one is None else list(one.files)


def test_a_build_is_its_topmost_project(tmp_path: Path):
    """Modules of modules and of profiles belong to it, and are not found again."""
    below = "<modules><module>b</module><module>../x</module></modules>"
    deep = "<profiles><profile><modules><module>c</module></modules></profile></profiles>"
    build(tmp_path, a=below, a_b=deep, a_b_c="", x="", y="")
    assert find(tmp_path, "a") == ["a/pom.xml", "a/b/pom.xml", "x/pom.xml", "a/b/c/pom.xml"]
    assert find(tmp_path, "a/b") is None
    assert find(tmp_path, "a/b/c") is None
    assert find(tmp_path, "y") == ["y/pom.xml"]


@pytest.mark.parametrize("name", ["../../etc", "/etc", "a\0b", "${x}", "", "a/../../.."])
def test_a_module_outside_of_the_project_is_not_read(tmp_path: Path, name: str):
    """Nor followed through a link."""
    text = f"<modules><module>{name}</module><module>l</module></modules>".replace("\0", "&#x1;")
    build(tmp_path, p=text)
    (tmp_path / "pom.xml").write_text("<project/>")
    (tmp_path / "p/l").symlink_to("/etc")
    assert find(tmp_path / "p", "") == ["pom.xml"]


def test_modules_in_a_circle_end(tmp_path: Path):
    """Maven refuses them later."""
    build(tmp_path, a="<modules><module>../b</module></modules>")
    build(tmp_path, b="<modules><module>../a</module></modules>")
    assert find(tmp_path, "a") == ["a/pom.xml", "b/pom.xml"]


def test_a_parent_in_the_project_belongs_to_the_build(tmp_path: Path):
    """Maven takes it from there and not from a repository."""
    build(tmp_path, parent="", app="<parent><relativePath>../parent</relativePath></parent>")
    assert find(tmp_path, "app") == ["app/pom.xml", "parent/pom.xml"]


def test_a_broken_project_is_named():
    """CR-FETCH-006."""
    with pytest.raises(ProjectError) as refused:
        manager().read(found("<project>"))
    assert (refused.value.code, refused.value.where) == ("CR-FETCH-006", "pom.xml:1:1")


def test_a_build_does_not_depend_on_its_own_modules():
    """They are built, not fetched."""
    group = "<groupId>g</groupId>"
    dependency = f"<dependency>{group}<artifactId>b</artifactId></dependency>"
    text = f"<project>{group}<dependencies>{dependency}</dependencies></project>"
    module = "<project><parent><groupId>g</groupId></parent><artifactId>b</artifactId></project>"
    assert manager().read(found(text)).unpinned[0] == "g:b"
    assert manager().read(found(text, **{"b/pom.xml": module})).unpinned[0].startswith("plugins")


@pytest.mark.parametrize("url", ["http://a.example", "file:///etc", "${x}", "https://", "ftp://a"])
def test_a_repository_without_https_is_named_and_not_asked(url: str):
    """Nobody vouches for what it answers."""
    text = f"<repositories><repository><id>a</id><url>{url}</url></repository></repositories>"
    one = found(f"<project>{text}</project>")
    assert len(manager().read(one).problems) == 1
    assert manager()._hosts(one) == {"repo.maven.apache.org:443"}


def test_options_of_the_project_that_name_versions_count():
    """And no others: they would lead Maven elsewhere."""
    text = b"-Drevision=1.2 -Dmaven.ext.class.path=x.jar -s evil.xml -Pfast,-slow -Drevision=$(x)\n"
    assert safe_options(text) == ["-Drevision=1.2", "-Drevision=", "-Pfast,-slow"]


def test_core_extensions_are_named_by_checked_words():
    """They are resolved for the phases, and never loaded."""
    entry = (
        "<extension><groupId>{}</groupId><artifactId>a</artifactId><version>1</version></extension>"
    )
    text = f"<extensions>{entry.format('g')}{entry.format('g,h')}{entry.format('')}</extensions>"
    assert core_extensions(text.encode()) == ["g:a:1"]


def test_a_wrapper_is_named():
    """It would download a Maven in the phase."""
    wrapper = {".mvn/wrapper/maven-wrapper.properties": "distributionUrl=https://x"}
    (problem,) = manager().read(found("<project/>", **wrapper)).problems
    assert "mvnw" in problem.entry


# --- settings


def test_the_caller_s_mirror_is_asked(tmp_path: Path):
    """It stands for all repositories, and may have a private address."""
    own = configured(tmp_path, TOKEN="t")
    assert own._hosts(found("<project/>")) == own.named_hosts() == {"repo.own.example:80"}


def test_a_login_goes_to_the_host_that_the_settings_name(tmp_path: Path):
    """A project may give a server's id any address."""
    own = configured(tmp_path, TOKEN="t")
    assert own.credentials("http://repo.own.example/m2/x") == {"Authorization": "Basic dTp0"}
    assert own.credentials("https://repo.own.example/m2/x") == {}
    assert own.credentials("https://evil.example/") == {}


def test_settings_are_written_anew(tmp_path: Path):
    """With a proxy, and without what leads elsewhere."""
    own = configured(tmp_path, TOKEN="a<b")
    assert own.settings.proxy == "http://a%40b:p@proxy.example:3128"
    assert own.settings.no_proxy == ".own.example,localhost"
    written = read_xml(own._own.for_fetch(own.settings.proxy, own.settings.no_proxy).encode())
    assert {node.name for node in written.children} == {"servers", "mirrors", "proxies"}
    assert written.value("servers/server/password") == "a<b"
    assert written.value("proxies/proxy/username") == "a@b"
    assert written.value("proxies/proxy/nonProxyHosts") == "*.own.example|*localhost"


def test_a_password_that_only_maven_reads_is_named(tmp_path: Path):
    """The engine checks digests with the same login."""
    problems = configured(tmp_path).read(found("<project/>")).problems
    assert [one.entry for one in problems] == ["server other"]


def test_settings_that_cannot_be_read_are_named():
    """And left out."""
    assert MavenSettings.of("<settings>", {}).unreadable
    assert MavenSettings.of("", {}) == MavenSettings()


# --- what Maven leaves


def left(tmp_path: Path, *files: str, origin: str = "central") -> Path:
    """A local repository as Maven writes it."""
    for file in files:
        path = tmp_path / "repository" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file)
        with (path.parent / SOURCES).open("a") as notes:
            notes.write(f"#x\n{path.name}>{origin}=\n")
    return tmp_path / "repository"


def listed(folder: Path) -> dict[str, Artifact]:
    return {
        path_of(one.artifact): one.artifact for one in files_inside(folder, {"central": CENTRAL})
    }


def test_files_have_the_address_of_their_repository(tmp_path: Path):
    """Jars with a package URL; notes of Maven's are none."""
    folder = left(tmp_path, "g/h/a/1.0/a-1.0.pom", "g/h/a/1.0/a-1.0-linux.jar")
    (folder / "g/h/a/1.0/a-1.0.pom.sha1").write_text(SHA1)
    (folder / "g/h/maven-metadata-central.xml").write_text("x")
    files = listed(folder)
    assert {path: one.url.removeprefix(CENTRAL) for path, one in files.items()} == {
        "g/h/maven-metadata-central.xml": "/g/h/maven-metadata.xml",
        "g/h/a/1.0/a-1.0-linux.jar": "/g/h/a/1.0/a-1.0-linux.jar",
        "g/h/a/1.0/a-1.0.pom": "/g/h/a/1.0/a-1.0.pom",
    }
    assert files["g/h/a/1.0/a-1.0-linux.jar"].purl == "pkg:maven/g.h/a@1.0?classifier=linux"
    assert files["g/h/a/1.0/a-1.0.pom"].purl == ""


@pytest.mark.parametrize(
    "file",
    ["g/a/1.0/b-1.0.jar", "a-1.0.jar", "g/a/1.0/a-1.0 .jar", "g.h/a/1/a-1.jar", "g/a/-1/a-1"],
)
def test_a_file_of_another_name_is_left_out(tmp_path: Path, file: str):
    """No repository has it."""
    assert listed(left(tmp_path, file)) == {}


def test_a_file_of_another_origin_or_behind_a_link_is_left_out(tmp_path: Path):
    """Only what an asked repository gave."""
    folder = left(tmp_path, "g/a/1/a-1.jar", origin="other")
    assert listed(folder) == {}
    folder = left(tmp_path, "g/b/1/b-1.jar")
    (folder / "g/b/1/b-1.jar").unlink()
    (folder / "g/b/1/b-1.jar").symlink_to("/etc/passwd")
    assert listed(folder) == {}
    (tmp_path / "link").symlink_to(folder)
    assert list(files_inside(tmp_path / "link", {"central": CENTRAL})) == []


@given(st.text(), st.text(), st.text(), st.text())
def test_no_path_leads_out_of_a_repository(group: str, name: str, version: str, file: str):
    """Whatever a set of the store says."""
    with suppress(ValueError):
        path = path_of(Artifact(name=f"{group}:{name}", version=version, file=file, url=""))
        assert not {"", ".", ".."} & set(path.split("/"))


class FakeSession:
    """Maven's answer, and the digests of its repository."""

    def __init__(self, folder: Path, *, exit_code: int = 0, digest: bytes = SHA1.encode()) -> None:
        self.folder, self.exit_code, self.digest = folder, exit_code, digest
        self.problems: list[Problem] = []
        self.tool = ToolRun([])

    async def run(self, tool: ToolRun) -> ToolResult:
        self.tool = tool
        return ToolResult(self.exit_code, b"[INFO] x\n[ERROR] no parent\n", self.folder)

    async def read(self, pages: list[Page]) -> list[bytes]:
        assert all(page.optional for page in pages)
        return [self.digest for _ in pages]

    def note(self, problem: Problem) -> None:
        self.problems.append(problem)

    def file(self, stored: Stored) -> Path:
        return self.folder / stored.artifact.file


async def resolved(session: Any, **files: str) -> tuple[Maven, tuple[Artifact, ...]]:
    own = manager()
    one = found("<project/>", **files)
    return own, await own.resolve(session, one, own.read(one))


@pytest.mark.parametrize("document", [SHA1, f"{SHA1}  a-1.jar\n", f"SHA1 (a-1.jar) = {SHA1}\n"])
async def test_a_file_has_the_digest_that_its_repository_gives(tmp_path: Path, document: str):
    """In each of the forms that are about; what Maven left is taken for it."""
    folder = left(tmp_path, "g/a/1/a-1.jar")
    (tmp_path / "answer").write_text(f"repository\tcentral\t{CENTRAL}\n")
    own, (artifact,) = await resolved(FakeSession(tmp_path, digest=document.encode()))
    assert artifact.digest == f"sha1:{SHA1}"
    assert own.downloaded(artifact) == folder / "g/a/1/a-1.jar"
    assert own.local_copies(artifact) == (Path("/nonexistent/.m2/repository/g/a/1/a-1.jar"),)


async def test_a_repository_without_digests_is_pinned_on_first_use(tmp_path: Path):
    """The engine fetches the files itself."""
    left(tmp_path, "g/a/1/a-1.jar")
    (tmp_path / "answer").write_text(f"repository\tcentral\t{CENTRAL}\n")
    _, (artifact,) = await resolved(FakeSession(tmp_path, digest=b""))
    assert artifact.digest == ""


OWN = "<id>own</id><url>https://own.example/m2</url>"
PROFILE = (
    "<profiles><profile><id>p</id><repositories><repository>{}</repository></repositories>"
    "</profile></profiles>"
)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (f"<mirrors><mirror>{OWN}<mirrorOf>*</mirrorOf></mirror></mirrors>", 0),
        (f"<mirrors><mirror>{OWN}<mirrorOf>central</mirrorOf></mirror></mirrors>", 0),
        (f"<mirrors><mirror>{OWN}<mirrorOf>*,!central</mirrorOf></mirror></mirrors>", 1),
        (PROFILE.format(OWN), 1),
        ("", 0),
    ],
)
def test_that_another_repository_may_give_what_the_own_lacks_is_said(
    tmp_path: Path, settings: str, said: int
):
    """Only where the caller has one of their own, and Maven asks a further one."""
    (tmp_path / ".m2").mkdir()
    (tmp_path / ".m2/settings.xml").write_text(f"<settings>{settings}</settings>")
    own = manager(tmp_path)
    cautions = own.read(found("<project/>")).cautions
    assert len(cautions) == said
    assert all("repo.maven.apache.org" in one and "own.example" in one for one in cautions)


async def test_what_maven_could_not_do_is_named(tmp_path: Path):
    """Missing, refused and moving ones; an address that nobody names is not asked."""
    left(tmp_path, "g/a/1-SNAPSHOT/a-1-SNAPSHOT.jar", "g/b/1/b-1.jar")
    (tmp_path / "answer").write_text(
        f"repository\tcentral\t{CENTRAL}\nmissing\tg:x\tnot there\nrefused\thttp://x.example\n\n"
        "repository\tevil\thttps://evil.example\nrepository\n"
    )
    session = FakeSession(tmp_path)
    _, artifacts = await resolved(session)
    assert [one.file for one in artifacts] == ["b-1.jar"]
    entries = [one.entry for one in session.problems]
    assert entries == ["g:x", "repository http://x.example", "g:a 1-SNAPSHOT"]


async def test_a_repository_that_nothing_needs_is_not_named(tmp_path: Path):
    """Descriptions of dependencies name many."""
    (tmp_path / "answer").write_text("refused\thttp://x.example\n")
    session = FakeSession(tmp_path)
    await resolved(session)
    assert session.problems == []


async def test_maven_that_fails_says_why(tmp_path: Path):
    """CR-FETCH-009."""
    with pytest.raises(DependencyUnavailable, match="no parent") as failed:
        await resolved(FakeSession(tmp_path, exit_code=1))
    assert failed.value.code == "CR-FETCH-009"


async def test_maven_sees_projects_and_nothing_else(tmp_path: Path):
    """No option, wrapper or extension of the project's."""
    session = FakeSession(tmp_path)
    entry = (
        "<extension><groupId>g</groupId><artifactId>a</artifactId><version>1</version></extension>"
    )
    extensions = f"<extensions>{entry}</extensions>"
    files = {".mvn/extensions.xml": extensions, ".mvn/maven.config": "-s evil.xml"}
    await resolved(session, **files)
    projects = [name for name in session.tool.files if name.startswith("project/")]
    assert projects == ["project/pom.xml"]
    assert "evil.xml" not in " ".join(session.tool.argv)
    assert "-Dcleanroom.extensions=g:a:1" in session.tool.argv
    assert session.tool.egress == ["repo.maven.apache.org:443"]


# --- what phases get


def stored(tmp_path: Path, text: str, version: str = "1") -> Complete:
    artifact = Artifact(name="g.h:a", version=version, file=f"a-{version}.jar", url="")
    (tmp_path / artifact.file).write_text(text)
    file = Stored(artifact=artifact, sha256=text, size=1)
    fetched = Fetched(manager="maven", folder="", name="pom.xml", files=(file,))
    return Complete(found("<project/>"), fetched)


async def test_the_view_is_a_home_of_maven_s(tmp_path: Path):
    """A repository, and settings that are offline."""
    view = tmp_path / "view"
    (view / "m2").mkdir(parents=True)
    session: Any = FakeSession(tmp_path)
    sets = [stored(tmp_path, "x"), stored(tmp_path, "x"), stored(tmp_path, "y", "2")]
    await manager().lay_out(session, sets, view, "/place")
    assert (view / "m2/repository/g/h/a/1/a-1.jar").read_text() == "x"
    assert (view / "m2/repository/g/h/a/2/a-2.jar").read_text() == "y"
    assert read_xml((view / "m2/settings.xml").read_bytes()).value("offline") == "true"


async def test_nothing_that_was_had_makes_an_empty_home(tmp_path: Path):
    """Where no repository answered, the phases say what they miss, and the run goes on."""
    fetched = Fetched(manager="maven", folder="", name="pom.xml")
    session: Any = FakeSession(tmp_path)
    sets = [Complete(found("<project/>"), fetched)]
    await manager().lay_out(session, sets, tmp_path, "/place")
    assert not list((tmp_path / "m2/repository").iterdir())
    assert (tmp_path / "m2/settings.xml").is_file()


async def test_two_files_of_one_name_are_refused(tmp_path: Path):
    """CR-FETCH-012."""
    session: Any = FakeSession(tmp_path)
    sets = [stored(tmp_path, "x"), stored(tmp_path, "y")]
    with pytest.raises(DependencyRejected):
        await manager().lay_out(session, sets, tmp_path, "/place")


def test_phases_have_it_in_their_home():
    """As the engine has it; Java takes its user's home from the accounts."""
    from cleanroom.engine.phases.environment_spec import HOME

    assert f"{HOME}/.m2" == HOME_M2
    access = manager().access("/view")
    assert access.overlays[0].target == HOME_M2
    assert access.variables == {"MAVEN_OPTS": f"-Dmaven.repo.local={HOME_M2}/repository"}
