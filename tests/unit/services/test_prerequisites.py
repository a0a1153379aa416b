"""What a user reads when Java or Maven is missing, old or broken."""

import os
import shutil
import stat
import threading
from pathlib import Path

import pytest

from freshdata.errors import PrerequisiteError
from freshdata.services import prerequisites
from freshdata.services.prerequisites import REGISTRY, find_java, jars_folder, resolve_jars
from freshdata.settings import PROJECT, Settings


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def path(tmp_path, monkeypatch):
    """An otherwise empty PATH, and an own home folder."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(prerequisites, "INSTALLED", tmp_path / "jvm")
    for tool in ("mkdir", "touch", "echo", "sleep", "sh"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool, path="/usr/bin:/bin"))
    return tmp_path / "bin"


@pytest.fixture
def settings(tmp_path):
    shutil.copy(PROJECT / "pom.xml", tmp_path / "pom.xml")
    return Settings(project=tmp_path)


@pytest.mark.usefixtures("path")
def test_no_java():
    with pytest.raises(PrerequisiteError, match="Java was not found") as raised:
        find_java()
    assert raised.value.program == "java"
    assert "FRESHDATA_KAFKA_BOOTSTRAP" in raised.value.remedy


@pytest.mark.parametrize(
    ("answer", "found"),
    [('openjdk version "11.0.2"', "Java 11"), ('java version "1.8.0_292"', "Java 8"), ("nonsense", "unknown version")],
)
def test_an_old_java(path, answer, found):
    program(path, "java", f"echo '{answer}' >&2")
    with pytest.raises(PrerequisiteError, match=found):
        find_java()


def test_a_java_that_does_not_run(path):
    program(path, "java", "exit 3")
    with pytest.raises(PrerequisiteError, match="does not run"):
        find_java()


@pytest.mark.parametrize("version", ["17.0.15", "21", "25-ea"])
def test_a_good_java(path, version):
    program(path, "java", f"echo 'openjdk version \"{version}\" 2025-04-15' >&2")
    assert find_java() == str(path / "java")


def test_java_home_goes_first(path, tmp_path, monkeypatch):
    program(path, "java", "echo 'openjdk version \"11\"' >&2")
    home = tmp_path / "jdk"
    home.mkdir()
    program(home / "bin", "java", "echo 'openjdk version \"21\"' >&2")
    monkeypatch.setenv("JAVA_HOME", str(home))
    assert find_java() == str(home / "bin" / "java")


@pytest.mark.usefixtures("path")
def test_no_maven_matters_only_while_jars_are_missing(settings):
    with pytest.raises(PrerequisiteError, match="Maven was not found"):
        resolve_jars(settings)
    jars_folder(settings).mkdir(parents=True)
    assert resolve_jars(settings) == jars_folder(settings)


def test_a_failing_maven_is_quoted_and_leaves_nothing_half(path, settings):
    program(path, "mvn", "echo '[ERROR] Could not transfer artifact'; exit 1")
    with pytest.raises(PrerequisiteError, match="Could not transfer artifact"):
        resolve_jars(settings)
    assert [item.name for item in jars_folder(settings).parent.iterdir()] == ["lock"]


FAKE_MAVEN = """\
echo run >> "$COUNT"
for a in "$@"; do case $a in -DoutputDirectory=*) d=${a#*=};; esac; done
sleep 0.3
mkdir -p "$d"
touch "$d/kafka_2.13.jar"
"""


def test_many_askers_run_maven_once(path, settings, tmp_path, monkeypatch):
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))
    monkeypatch.setattr(prerequisites, "_show_progress", lambda _, work: work(lambda _: None))
    program(path, "mvn", FAKE_MAVEN)
    threads = [threading.Thread(target=resolve_jars, args=(settings,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "count").read_text() == "run\n"
    assert [item.name for item in jars_folder(settings).iterdir()] == ["kafka_2.13.jar"]


def test_an_unwritable_maven_cache_is_replaced_by_the_projects_own(path, settings, tmp_path, monkeypatch):
    (tmp_path / "user").write_text("a file where the home folder should be")  # Even root cannot write there.
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))
    program(path, "mvn", f'echo "$@" > {tmp_path / "arguments"}; {FAKE_MAVEN}')
    resolve_jars(settings)
    assert f"-Dmaven.repo.local={settings.root / 'm2'}" in (tmp_path / "arguments").read_text()


def test_another_pom_asks_for_other_jars(settings):
    before = jars_folder(settings)
    (settings.project / "pom.xml").write_text("<project/>")
    assert jars_folder(settings) != before
    assert os.path.commonpath([before, jars_folder(settings)]) == str(settings.root / "jars")


def test_an_older_java_first_on_the_path_gives_way_to_a_newer_one_beside_it(path, tmp_path):
    program(path, "java", "echo 'openjdk version \"17\"' >&2")
    with pytest.raises(PrerequisiteError, match="Java 17, the schema registry needs 21") as raised:
        find_java(21, REGISTRY)
    assert "openjdk-21" in raised.value.remedy
    assert "FRESHDATA_SCHEMA_REGISTRY_URL" in raised.value.remedy
    for version in ("11", "25"):
        (tmp_path / "jvm" / version).mkdir(parents=True)
        program(tmp_path / "jvm" / version / "bin", "java", f"echo 'openjdk version \"{version}\"' >&2")
    assert find_java(21, REGISTRY) == str(tmp_path / "jvm" / "25" / "bin" / "java")
    assert find_java() == str(path / "java")
