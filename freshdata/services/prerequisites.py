"""The programs the local services need: Java, and Maven as long as their jars are missing."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from freshdata.errors import PrerequisiteError
from freshdata.settings import Settings, load_settings

OLDEST_JAVA = 17
INSTALLED = Path("/usr/lib/jvm")
# Maven runs for seconds: a compiler that starts slowly costs more than it saves.
MAVEN_OPTS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"


@dataclass(frozen=True)
class Jars:
    """What a profile of ``pom.xml`` resolves to.

    Attributes:
        profile: The profile's id.
        name: Whose jars they are.
        megabytes: Their size.
        one: A pattern that one of the files has.
        instead: What to do instead of having them.
    """

    profile: str
    name: str
    megabytes: int
    one: str
    instead: str


KAFKA = Jars("kafka", "Kafka", 43, "kafka_*.jar", "set FRESHDATA_KAFKA_BOOTSTRAP to use an existing Kafka")
SPARK = Jars("spark", "Iceberg for Spark", 62, "iceberg-*.jar", "name them in FRESHDATA_SPARK_CONFIG: spark.jars")
REGISTRY = Jars(
    "registry",
    "the schema registry",
    159,
    "apicurio-registry-app-*.tar.gz",
    "set FRESHDATA_SCHEMA_REGISTRY_URL to use an existing registry",
)
CDC = Jars("cdc", "Kafka Connect and Debezium", 44, "debezium-connector-postgres-*.jar", "go without `--with cdc`")
TRINO = Jars("trino", "Trino", 833, "trino-server-*.tar.gz", "set FRESHDATA_TRINO_URI to use an existing Trino")


def find_java(oldest: int = OLDEST_JAVA, wanted: Jars = KAFKA) -> str:
    """The path of a Java that is new enough: ``JAVA_HOME``'s, the one on the PATH, or one installed beside it.

    Args:
        oldest: The oldest version that will do.
        wanted: What it is to run.

    Raises:
        PrerequisiteError: there is none, it does not run, or it is older.
    """
    remedy = (
        f"Install a Java {oldest} or newer (for example `apt install openjdk-{oldest}-jre-headless`), "
        f"or {wanted.instead}."
    )
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(str(Path(home, "bin", "java"))) if home else None
    java = java or shutil.which("java")
    beside = sorted(filter(None, (shutil.which(str(folder / "bin" / "java")) for folder in INSTALLED.glob("*"))))
    if java is None and not beside:
        raise PrerequisiteError("java", "Java was not found.", remedy=remedy)
    first, *others = [java, *beside] if java else beside
    found = _java_version(first, remedy)
    if found >= oldest:
        return first
    if newer := next((other for other in others if _java_version(other, remedy) >= oldest), None):
        return newer
    version = found or "of an unknown version"
    raise PrerequisiteError("java", f"{first} is Java {version}, {wanted.name} needs {oldest}.", remedy=remedy)


def _java_version(java: str, remedy: str) -> int:
    """Its major version; 0 when it does not say."""
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise PrerequisiteError("java", f"{java} does not run: {error}.", remedy=remedy) from error
    version = re.search(r'version "(?:1\.)?(\d+)', answer.stderr + answer.stdout)
    return int(version[1]) if version else 0


def jars_folder(settings: Settings, wanted: Jars = KAFKA) -> Path:
    """Where jars are, or belong: a folder named after the content of ``pom.xml``."""
    pom = settings.project / "pom.xml"
    return settings.root / "jars" / f"{wanted.profile}-{hashlib.sha256(pom.read_bytes()).hexdigest()[:12]}"


def resolve_jars(settings: Settings, wanted: Jars = KAFKA) -> Path:
    """Jars, resolved with Maven if they are not there yet.

    Several processes may ask at once: one works, the others wait for it. A folder is complete or absent.

    Returns:
        The folder with the jars.

    Raises:
        PrerequisiteError: the jars are missing, and Maven is missing too or failed.
    """
    jars = jars_folder(settings, wanted)
    if jars.is_dir():
        return jars
    jars.parent.mkdir(parents=True, exist_ok=True)
    with (jars.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if jars.is_dir():
            return jars
        with tempfile.TemporaryDirectory(dir=jars.parent, prefix=".new-") as scratch:
            fetched = Path(scratch, "jars")
            _show_progress(wanted, lambda advance: _run_maven(settings, wanted, fetched, advance))
            fetched.rename(jars)
    return jars


def _show_progress(wanted: Jars, work: Callable[[Callable[[str], None]], None]) -> None:
    from rich.console import Console

    what = f"Fetching {wanted.name} with Maven ({wanted.megabytes} MB, once)"
    with Console(stderr=True).status(f"{what} …") as status:
        work(lambda text: status.update(f"{what}: {text}"))


def _run_maven(settings: Settings, wanted: Jars, target: Path, advance: Callable[[str], None]) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise PrerequisiteError(
            "mvn",
            f"Maven was not found, and the jars of {wanted.name} are not there yet.",
            remedy=f"Install Maven (for example `apt install maven`), or {wanted.instead}.",
        )
    command = [maven, "-B", "-f", str(settings.project / "pom.xml"), f"-P{wanted.profile}"]
    command += [
        "dependency:copy-dependencies",
        "-DincludeScope=runtime",
        f"-DoutputDirectory={target}",
        *_local_repository(settings),
    ]
    told: list[str] = []
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "MAVEN_OPTS": os.environ.get("MAVEN_OPTS", MAVEN_OPTS)},
    ) as process:
        for line in process.stdout or ():
            told.append(line)
            if match := re.search(r"(?:Downloaded from \S+ .*|Copying )([^/\s]+\.jar)", line):
                advance(match[1])
    if process.returncode or not any(target.glob(wanted.one)):
        reason = next((line.strip() for line in told if "ERROR" in line), f"exit code {process.returncode}")
        raise PrerequisiteError(
            "mvn",
            f"Maven could not fetch {wanted.name}: {reason[:400]}.",
            remedy=f"Check the network and Maven's settings, then try `{' '.join(command[:6])}`.",
        )


def _local_repository(settings: Settings) -> list[str]:
    """Options that move Maven's own cache into the project's data folder when the user's cannot be written."""
    usual = Path.home() / ".m2" / "repository"
    try:
        usual.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=usual):
            return []
    except OSError:
        return [f"-Dmaven.repo.local={settings.root / 'm2'}"]


def main() -> None:
    """Fetch the jars ahead of the first start, for the project's setup."""
    settings = load_settings()
    if settings.kafka_bootstrap:
        return
    try:
        find_java()
        resolve_jars(settings)
    except PrerequisiteError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
