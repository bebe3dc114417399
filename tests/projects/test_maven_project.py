"""Projects of strangers that use Maven: their phases pass without a network."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from support.strangers import Stranger

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
    pytest.mark.skipif(shutil.which("mvn") is None, reason="mvn is not installed"),
    pytest.mark.skipif(shutil.which("javac") is None, reason="javac is not installed"),
]

PARENT = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>com.example</groupId><artifactId>parent</artifactId><version>1.0-SNAPSHOT</version>
  <packaging>pom</packaging>
  <modules><module>lib</module><module>app</module></modules>
  <properties>
    <maven.compiler.source>17</maven.compiler.source>
    <maven.compiler.target>17</maven.compiler.target>
    <project.build.sourceEncoding>UTF-8</project.build.sourceEncoding>
  </properties>
  <dependencyManagement><dependencies><dependency>
    <groupId>org.junit</groupId><artifactId>junit-bom</artifactId><version>5.10.2</version>
    <type>pom</type><scope>import</scope>
  </dependency></dependencies></dependencyManagement>
  <dependencies><dependency>
    <groupId>org.junit.jupiter</groupId><artifactId>junit-jupiter</artifactId><scope>test</scope>
  </dependency></dependencies>
  <build>
    <extensions><extension>
      <groupId>kr.motd.maven</groupId><artifactId>os-maven-plugin</artifactId>
      <version>1.7.1</version>
    </extension></extensions>
    <pluginManagement><plugins>
      <plugin><artifactId>maven-surefire-plugin</artifactId><version>3.2.5</version></plugin>
      <plugin><artifactId>maven-compiler-plugin</artifactId><version>3.11.0</version></plugin>
    </plugins></pluginManagement>
  </build>
</project>
"""
MODULE = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <parent><groupId>com.example</groupId><artifactId>parent</artifactId>
    <version>1.0-SNAPSHOT</version></parent>
  <artifactId>{name}</artifactId>
  <dependencies><dependency>
    <groupId>{group}</groupId><artifactId>{needed}</artifactId><version>{version}</version>
  </dependency></dependencies>
</project>
"""
JACKSON = "com.fasterxml.jackson.core"
LIBRARY = """package x;

public class Lib {
    public static String json(Object one) throws Exception {
        return new com.fasterxml.jackson.databind.ObjectMapper().writeValueAsString(one);
    }
}
"""
TEST = """package x;

import org.junit.jupiter.api.Assertions;
import org.junit.jupiter.api.Test;

class AppTest {
    @Test
    void writes() throws Exception {
        Assertions.assertEquals("[1]", Lib.json(new int[] {1}));
        Assertions.assertNotNull(System.getProperty("os.name"));
        java.nio.file.Files.writeString(java.nio.file.Path.of("../said.txt"), Lib.json(7));
    }
}
"""
OLD_TEST = """package x;

public class AppTest {
    @org.junit.Test
    public void writes() throws Exception {
        java.nio.file.Files.writeString(java.nio.file.Path.of("said.txt"), "7");
    }
}
"""
OLD = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>com.example</groupId><artifactId>old</artifactId><version>1</version>
  <properties>
    <maven.compiler.source>17</maven.compiler.source>
    <maven.compiler.target>17</maven.compiler.target>
  </properties>
  <dependencies><dependency>
    <groupId>junit</groupId><artifactId>junit</artifactId><version>4.13.2</version>
    <scope>test</scope>
  </dependency></dependencies>
</project>
"""
MAKE = """[project]
name = "p"
[lifecycle.init]
command = "{init}"
[lifecycle.test]
command = "{test}"
"""


def passes(folder: Path, files: dict[str, str], cache: Path) -> None:
    """Its tests run, and write a file, each time."""
    stranger = Stranger(folder, {**files, ".gitignore": "target/\nsaid.txt\n"}, cache)
    # A local repository of the caller's is taken from too.
    stranger.caller["HOME"] = str(folder / "home")
    stranger.passes(("init", "test"), anew=("said.txt",))
    assert (stranger.root / "said.txt").read_text() == "7"


@pytest.mark.timeout(1000)
def test_modules_that_need_each_other_pass(tmp_path: Path, cache: Path):
    """JUnit 5, jackson, and an extension that only the phases load."""
    files = {
        "pom.xml": PARENT,
        "lib/pom.xml": MODULE.format(
            name="lib", group=JACKSON, needed="jackson-databind", version="2.17.1"
        ),
        "lib/src/main/java/x/Lib.java": LIBRARY,
        "app/pom.xml": MODULE.format(
            name="app", group="com.example", needed="lib", version="${project.version}"
        ),
        "app/src/test/java/x/AppTest.java": TEST,
        "make.toml": MAKE.format(
            init="mvn -B -ntp compile dependency:resolve", test="mvn -B -ntp package"
        ),
    }
    passes(tmp_path, files, cache)


@pytest.mark.timeout(1000)
def test_the_default_plugins_of_maven_pass(tmp_path: Path, cache: Path):
    """A project that names no plugin, with JUnit 4."""
    files = {
        "pom.xml": OLD,
        "src/test/java/x/AppTest.java": OLD_TEST,
        "make.toml": MAKE.format(init="mvn -B -ntp validate", test="mvn -B -ntp verify"),
    }
    passes(tmp_path, files, cache)


@pytest.mark.timeout(1000)
def test_what_surefire_takes_by_itself_is_there(tmp_path: Path, cache: Path):
    """Surefire 3.5.2 asks for its launcher in the launcher's own versions, not its own parent's."""
    named = "<artifactId>junit-jupiter</artifactId><version>5.11.4</version>"
    surefire = "<artifactId>maven-surefire-plugin</artifactId><version>3.5.2</version>"
    pom = OLD.replace("<groupId>junit</groupId>", "<groupId>org.junit.jupiter</groupId>")
    pom = pom.replace("<artifactId>junit</artifactId><version>4.13.2</version>", named)
    files = {
        "pom.xml": pom.replace(
            "</project>", f"<build><plugins><plugin>{surefire}</plugin></plugins></build></project>"
        ),
        "src/test/java/x/AppTest.java": OLD_TEST.replace(
            "org.junit.Test", "org.junit.jupiter.api.Test"
        ),
        "make.toml": MAKE.format(init="mvn -B -ntp validate", test="mvn -B -ntp test"),
    }
    passes(tmp_path, files, cache)
