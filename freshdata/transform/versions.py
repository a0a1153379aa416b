"""Immutable copies of the models: what an instance deployed last, and the versions that were promoted to it.

An instance runs the project's own files until something is promoted to it, or an environment is planned beside it. From
then on it follows the last of its promoted versions, each a folder that nobody edits.
"""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import Literal

from freshdata.files import replace_file
from freshdata.settings import Settings

MODELS, COMMIT = "sqlmesh_models", "commit"
SOURCES = (".sql", ".yaml", ".yml", ".py", ".csv")


@dataclass(frozen=True)
class Version:
    """A state of the models that an instance follows, or has followed.

    Attributes:
        fingerprint: Of its files; the name of their folder.
        how: How the instance came to it.
        by: Who did it.
        environment: The environment it was promoted from, or an empty string.
        at: When, ISO 8601 in UTC.
        changed: The models that it changed, added or removed.
        heads: Table to its snapshot and schema before this version was deployed: of the models that it affects.
        restored: Model to the fingerprint of the version whose file it was rolled back to.
    """

    fingerprint: str
    how: Literal["deployed", "planned", "promoted", "rolled back"]
    by: str
    environment: str = ""
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    changed: tuple[str, ...] = ()
    heads: dict[str, tuple[int, int]] = field(default_factory=dict)
    restored: dict[str, str] = field(default_factory=dict)


def source_files(folder: Path) -> list[Path]:
    """The files that make a SQLMesh project, in order; whatever else lies there is none of it."""
    return sorted(path for path in folder.rglob("*") if path.suffix in SOURCES and path.is_file())


def models_fingerprint(folder: Path) -> str:
    """Changes whenever a file of a SQLMesh project does, wherever the project lies."""
    digest = hashlib.sha256()
    for path in source_files(folder):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def keep_models(settings: Settings, folder: Path, commit: str = "") -> str:
    """Copy a SQLMesh project into an instance's folder.

    Args:
        settings: The instance.
        folder: The project.
        commit: The git commit that its files are of, as far as it is known.

    Returns:
        Its fingerprint.
    """
    settings.models_versions_dir.mkdir(parents=True, exist_ok=True)
    scratch = Path(mkdtemp(dir=settings.models_versions_dir))
    for path in source_files(folder):
        target = scratch / MODELS / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    (scratch / COMMIT).write_text(commit)
    fingerprint = models_fingerprint(scratch / MODELS)
    try:
        scratch.rename(settings.models_versions_dir / fingerprint)
    except OSError:  # It is there already.
        shutil.rmtree(scratch)
    return fingerprint


def version_dir(settings: Settings, fingerprint: str) -> Path:
    """The folder of a kept version's SQLMesh project."""
    return settings.models_versions_dir / fingerprint / MODELS


def kept_commit(folder: Path) -> str | None:
    """The git commit of a kept version's SQLMesh project, empty when it is unknown; None when it is no kept one."""
    path = folder.parent / COMMIT
    return path.read_text() if path.is_file() else None


def keep_deployed(settings: Settings, commit: str) -> None:
    """Keep what an instance that runs the project's own files has deployed, and forget what it deployed before."""
    if _followed_file(settings).is_file():
        return
    before, fingerprint = deployed_version(settings), keep_models(settings, settings.models_dir, commit)
    replace_file(settings.models_versions_dir / "deployed", fingerprint)
    if before not in (None, fingerprint):
        shutil.rmtree(settings.models_versions_dir / str(before), ignore_errors=True)


def deployed_version(settings: Settings) -> str | None:
    """The fingerprint of the project's own files when they were deployed last, or None."""
    path = settings.models_versions_dir / "deployed"
    return path.read_text() if path.is_file() else None


def read_versions(settings: Settings) -> list[Version]:
    """The versions that an instance has followed, the current one last; empty while it runs the project's own files."""
    path = _followed_file(settings)
    versions = []
    for item in json.loads(path.read_text()) if path.is_file() else []:
        item["changed"] = tuple(item["changed"])
        item["heads"] = {table: tuple(head) for table, head in item["heads"].items()}
        versions.append(Version(**item))
    return versions


def write_versions(settings: Settings, versions: list[Version]) -> None:
    """Make an instance follow the last of some versions; without any, the project's own files."""
    if versions:
        settings.models_versions_dir.mkdir(parents=True, exist_ok=True)
        replace_file(_followed_file(settings), json.dumps([asdict(version) for version in versions]))
    else:
        _followed_file(settings).unlink(missing_ok=True)


def _followed_file(settings: Settings) -> Path:
    return settings.models_versions_dir / "followed.json"
