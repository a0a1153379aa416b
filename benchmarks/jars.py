"""What a benchmark's contenders are made of, fetched once into ``.freshdata/bench-jars``."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from freshdata.errors import PrerequisiteError
from freshdata.services.prerequisites import MAVEN_OPTS
from freshdata.settings import Settings


def fetched(name: str, source: Path, fetch: Callable[[Path, Path], None]) -> Path:
    """A folder of fetched files; it is complete or absent.

    Args:
        name: Its name.
        source: The file that says what belongs into it: when that changes, another folder is filled.
        fetch: Fills the folder, its second argument; the first is a folder for what is not kept.

    Raises:
        PrerequisiteError: they cannot be fetched.
    """
    folder = Settings().root / "bench-jars" / f"{name}-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as scratch:
            target = Path(scratch, "kept")
            fetch(Path(scratch), target)
            target.rename(folder)
    return folder


def from_maven(pom: Path, target: Path, *options: str) -> None:
    """Copy the runtime dependencies of a ``pom.xml`` into a folder.

    Raises:
        PrerequisiteError: Maven is missing, or failed.
    """
    maven = shutil.which("mvn")
    if maven is None:
        raise PrerequisiteError("mvn", "Maven was not found.", remedy="Install Maven.")
    command = [maven, "-q", "-B", "-f", str(pom), *options, "dependency:copy-dependencies"]
    environment = {**os.environ, "MAVEN_OPTS": os.environ.get("MAVEN_OPTS", MAVEN_OPTS)}
    run("mvn", [*command, "-DincludeScope=runtime", f"-DoutputDirectory={target}"], environment)


def run(program: str, command: list[str], environment: dict[str, str]) -> None:
    """Run a program that fetches something.

    Raises:
        PrerequisiteError: it failed.
    """
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if result.returncode:
        told = [line for line in (result.stdout + result.stderr).splitlines() if "ERROR" in line]
        reason = told[0] if told else f"exit code {result.returncode}"
        raise PrerequisiteError(program, f"{reason[:300]}", remedy=f"Try `{' '.join(command)}`.")
