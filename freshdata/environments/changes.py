"""What a working copy of the models changes against production's, read from both manifests and files."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from typing import Literal

from freshdata.transform.manifest import ModelInfo
from freshdata.transform.versions import source_files


@dataclass(frozen=True)
class ModelChange:
    """What happens to one model.

    Attributes:
        model: The model's name.
        kind: ``added``, ``changed`` or ``removed``; ``described`` when only its description, owner, audits or comments
            change, which leaves its rows as they are; ``downstream`` when it reads a table whose rows change.
        asset: The key of its Dagster asset.
        owner: Owning team: the one to tell.
        breaking: What its readers would miss; empty when nothing.
        diff: Unified diff of its file, production's first.
        view: Whether it is a serving view: it has no table to build.
    """

    model: str
    kind: Literal["added", "changed", "removed", "described", "downstream"]
    asset: str
    owner: str
    breaking: tuple[str, ...] = ()
    diff: str = ""
    view: bool = False

    @property
    def differs(self) -> bool:
        """Whether its rows may differ from production's."""
        return self.kind in ("added", "changed", "downstream")

    @property
    def rebuilt(self) -> bool:
        """Whether its table is to be built: its rows may differ from production's."""
        return self.differs and not self.view


def model_changes(
    production: Mapping[str, ModelInfo], production_dir: Path, working: Mapping[str, ModelInfo], working_dir: Path
) -> tuple[ModelChange, ...]:
    """Compare two states of the models; upstream before downstream, removed models last.

    Args:
        production: Production's models.
        production_dir: Folder of production's SQLMesh project.
        working: The models of the working copy.
        working_dir: Folder of its SQLMesh project.
    """
    changes: dict[str, ModelChange] = {}
    touched: set[str] = production.keys() - working.keys()
    for name, info in working.items():
        before = production.get(name)
        diff = _diff(_file(production_dir, before), _file(working_dir, info), name)
        kind = _kind(before, info, diff, affected=bool(touched.intersection(info.depends_on)))
        if kind is None:
            continue
        breaking = breaking_changes(before, info) if before else ()
        changes[name] = ModelChange(name, kind, _asset(name), info.owner, breaking, diff, info.view)
        if changes[name].differs:
            touched.add(name)
    for name, info in production.items():
        if name not in working:
            diff = _diff(_file(production_dir, info), "", name)
            gone = ("the model is removed",)
            changes[name] = ModelChange(name, "removed", _asset(name), info.owner, gone, diff, info.view)
    return tuple(changes.values())


def breaking_changes(before: ModelInfo, after: ModelInfo) -> tuple[str, ...]:
    """What a model's readers would miss: columns that are gone or have another type, or another grain."""
    found = [f"column {name} is removed" for name in before.columns if name not in after.columns]
    found += [
        f"column {name} changes from {kind} to {after.columns[name]}"
        for name, kind in before.columns.items()
        if after.columns.get(name, kind) != kind
    ]
    if before.grain != after.grain:
        found.append(f"the grain changes from ({', '.join(before.grain)}) to ({', '.join(after.grain)})")
    return tuple(found)


def other_changes(production_dir: Path, working_dir: Path) -> tuple[str, ...]:
    """The project's files that differ and define no model: audits, tests, macros, configuration."""
    folders = [
        {str(path.relative_to(folder)): path.read_bytes() for path in source_files(folder)}
        for folder in (production_dir, working_dir)
    ]
    names = sorted(folders[0].keys() | folders[1].keys())
    return tuple(
        name for name in names if not name.startswith("models/") and folders[0].get(name) != folders[1].get(name)
    )


def _kind(
    before: ModelInfo | None, info: ModelInfo, diff: str, *, affected: bool
) -> Literal["added", "changed", "described", "downstream"] | None:
    if before is None:
        return "added"
    if before.code_version != info.code_version:
        return "changed"
    if affected:
        return "downstream"
    return "described" if diff or before.metadata_version != info.metadata_version else None


def _asset(model: str) -> str:
    return model.replace(".", "/")


def _file(folder: Path, info: ModelInfo | None) -> str:
    return (folder.parent / info.path).read_text() if info else ""


def _diff(before: str, after: str, name: str) -> str:
    lines = unified_diff(before.splitlines(), after.splitlines(), f"production/{name}", f"plan/{name}", lineterm="")
    return "\n".join(lines)
