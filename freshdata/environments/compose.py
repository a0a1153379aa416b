"""A state of the models in which one of them is as it was in an earlier version."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from freshdata.settings import Settings
from freshdata.transform.manifest import load_models
from freshdata.transform.versions import MODELS, keep_models, kept_commit, version_dir


def compose_models(settings: Settings, current: str, model: str, earlier: str) -> str:
    """Make and keep a version with one model's file, and its unit tests, from an earlier version.

    Args:
        settings: The instance.
        current: Fingerprint of the version that everything else is taken from.
        model: The model's name.
        earlier: Fingerprint of the version that the model is taken from; it may not have had the model.

    Returns:
        The new version's fingerprint.
    """
    folders = {fingerprint: version_dir(settings, fingerprint) for fingerprint in (current, earlier)}
    files = {
        fingerprint: folder.parent / manifest[model].path
        for fingerprint, folder in folders.items()
        if model in (manifest := load_models(settings.for_models(folder)))
    }
    with TemporaryDirectory() as scratch:
        project = Path(scratch) / MODELS
        shutil.copytree(folders[current], project)
        if current in files:
            (project / files[current].relative_to(folders[current])).unlink()
        if earlier in files:
            target = project / files[earlier].relative_to(folders[earlier])
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(files[earlier], target)
        _take_tests(project / "tests", folders[earlier] / "tests", model)
        return keep_models(settings, project, kept_commit(folders[current]) or "")


def _take_tests(tests: Path, earlier: Path, model: str) -> None:
    """Put a model's earlier unit tests in place of its present ones."""
    taken: dict[str, Any] = {}
    for path in sorted(earlier.rglob("*.y*ml")):
        taken |= {name: test for name, test in _tests(path).items() if _is_of(test, model)}
    for path in sorted(tests.rglob("*.y*ml")):
        present = _tests(path)
        kept = {name: test for name, test in present.items() if not _is_of(test, model)}
        if len(kept) < len(present):
            path.unlink()
            _write(path, kept)
    tests.mkdir(exist_ok=True)
    _write(tests / f"test_{model.replace('.', '_')}_restored.yaml", taken)


def _tests(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text()) or {}


def _is_of(test: Any, model: str) -> bool:
    return isinstance(test, dict) and str(test.get("model", "")).lower() == model


def _write(path: Path, tests: dict[str, Any]) -> None:
    if tests:
        path.write_text(yaml.safe_dump(tests, sort_keys=False, allow_unicode=True))
