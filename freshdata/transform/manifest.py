"""What the models are, without loading SQLMesh: a manifest computed once for each state of the project's files."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from freshdata.contracts import load_contracts
from freshdata.errors import TransformError
from freshdata.files import replace_file
from freshdata.intervals import Granularity
from freshdata.settings import Settings
from freshdata.transform.periods import Period, Unit

if TYPE_CHECKING:
    from sqlmesh import Context

ENGINE_CODE = Path(__file__).parent
MANIFESTS_KEPT = 5
# The schema of serving views: SELECTs with a name, of which nothing is stored.
SERVING, VIEW_KIND = "serving", "embedded"


@dataclass(frozen=True)
class AuditInfo:
    """An audit of a model.

    Attributes:
        name: The audit's name.
        blocking: Whether its failure must keep the rows from what is downstream.
    """

    name: str
    blocking: bool


@dataclass(frozen=True)
class ModelInfo:
    """One model: a Silver or Gold table, or a serving view over them.

    Attributes:
        name: Identifier, for example ``gold.carrier_day``.
        layer: Its schema, for example ``gold``.
        description: What one row is.
        owner: Owning team.
        kind: ``merge_by_key``, ``overwrite_changed_partitions``, ``scd2`` or ``full``; ``embedded`` is a serving view.
        partition_column: Column of its partitions' days or hours, or None.
        columns: Column to SQL type, in order.
        column_descriptions: Column to description.
        depends_on: Tables it reads, sorted.
        column_lineage: Column to the upstream (table, column) pairs it is computed from.
        audits: Its audits.
        code_version: Changes when the model's logic does.
        metadata_version: Changes when its description, owner or audits do.
        path: Its file, relative to the folder that holds the project's.
        tags: Its tags.
        grain: Columns that together identify a row; empty when the model does not say.
        period: How many upstream days or hours a row sums up.
        sql: A serving view's SELECT over tables, in DuckDB's dialect, all names quoted and in full; a table has none.
    """

    name: str
    layer: str
    description: str
    owner: str
    kind: str
    partition_column: str | None
    columns: dict[str, str]
    column_descriptions: dict[str, str]
    depends_on: tuple[str, ...]
    column_lineage: dict[str, tuple[tuple[str, str], ...]]
    audits: tuple[AuditInfo, ...]
    code_version: str
    metadata_version: str
    path: str
    tags: tuple[str, ...] = field(default_factory=tuple)
    grain: tuple[str, ...] = field(default_factory=tuple)
    period: Period = field(default_factory=Period)
    sql: str = ""

    @property
    def view(self) -> bool:
        """Whether it is a serving view: there is no table of it, nor anything to run."""
        return self.layer == SERVING

    @property
    def granularity(self) -> Granularity | None:
        """What is made by itself: each of its days, or each of its hours; None when neither is."""
        return self.period.granularity if self.partition_column is not None else None

    @property
    def daily(self) -> bool:
        """Whether each of its days is made by itself."""
        return self.granularity == "day"


def load_manifest(settings: Settings) -> dict[str, ModelInfo]:
    """The project's models that have a table: see :func:`load_models`."""
    return stored(load_models(settings))


def stored(models: Mapping[str, ModelInfo]) -> dict[str, ModelInfo]:
    """Those of some models that have a table."""
    return {name: model for name, model in models.items() if not model.view}


def load_models(settings: Settings) -> dict[str, ModelInfo]:
    """The project's models by name, upstream before downstream; SQLMesh is loaded only when a file has changed.

    Raises:
        TransformError: the project cannot be loaded.
    """
    settings = settings.for_models(settings.models_dir)
    if (manifest := kept_models(settings)) is not None:
        return manifest
    from freshdata.transform.context import open_context

    # A home of its own: the manifest does not depend on the instance, whose state another process may hold, nor on its
    # engine, which may be slow to start.
    own: dict[str, Any] = {"project": settings.own_project, "engine": "duckdb", "state_uri": None}
    own |= {"catalog_uri": None, "catalog_warehouse": None}
    with TemporaryDirectory() as home, open_context(settings.for_home(Path(home)).model_copy(update=own)) as context:
        manifest = build_models(context, settings)
    _keep(_path(settings), manifest)
    return manifest


def kept_models(settings: Settings) -> dict[str, ModelInfo] | None:
    """The models of the project as it is now, if it has been read before."""
    path = _path(settings)
    return _from_json(path.read_text()) if path.is_file() else None


def _path(settings: Settings) -> Path:
    return settings.root / f"manifest-{project_fingerprint(settings)}.json"


def build_models(context: "Context", settings: Settings) -> dict[str, ModelInfo]:
    """Read the models from a loaded SQLMesh context."""
    models = context.models
    manifest = {
        table_name(fqn): _info(context, models[fqn], settings)
        for fqn in context.dag.sorted
        if fqn in models and models[fqn].kind.name != "EXTERNAL"
    }
    _refuse_local_days(manifest, settings)
    _refuse_views_elsewhere(manifest)
    return manifest


def project_fingerprint(settings: Settings) -> str:
    """Changes whenever a model, a contract or the code that runs them does."""
    digest = hashlib.sha256()
    for folder in (settings.models_dir, settings.contracts_dir, ENGINE_CODE):
        for path in sorted(path for path in folder.rglob("*") if path.suffix in (".sql", ".yaml", ".py")):
            digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def sources(models: Mapping[str, ModelInfo], model: ModelInfo) -> set[str]:
    """The tables outside the project's models that a model is made from, through any number of models."""
    found: set[str] = set()
    for name in model.depends_on:
        found |= sources(models, models[name]) if name in models else {name}
    return found


def calendar_of(models: Mapping[str, ModelInfo], model: ModelInfo) -> Granularity | None:
    """What a model's runs are of: its days or its hours, or else those of what it is made from; None without any."""
    if model.granularity:
        return model.granularity
    upstream = {calendar_of(models, models[name]) for name in model.depends_on if name in models}
    return "day" if "day" in upstream else "hour" if "hour" in upstream else None


def table_name(fqn: str) -> str:
    """The table identifier in a fully qualified, quoted model name."""
    from sqlglot import exp

    table = exp.to_table(fqn)
    return f"{table.db}.{table.name}"


def _info(context: "Context", model: Any, settings: Settings) -> ModelInfo:
    kind = getattr(model.kind, "materialization", None) or model.kind.name.lower()
    path = str(Path(model._path).relative_to(settings.models_dir.parent))  # noqa: SLF001 - there is no public way.
    return ModelInfo(
        name=table_name(model.fqn),
        layer=table_name(model.fqn).partition(".")[0],
        description=model.description or "",
        owner=model.owner or "unowned",
        kind=kind,
        partition_column=model.time_column.column.name if model.time_column else None,
        columns={name: kind.sql("duckdb") for name, kind in model.columns_to_types_or_raise.items()},
        column_descriptions=dict(model.column_descriptions),
        depends_on=tuple(sorted(table_name(name) for name in model.depends_on)),
        column_lineage=_lineage(context, model, path),
        audits=tuple(AuditInfo(audit.name, _blocking(audit, arguments)) for audit, arguments in model.audits_with_args),
        code_version=model.data_hash,
        metadata_version=model.metadata_hash,
        path=path,
        tags=tuple(model.tags),
        period=_period(model),
        grain=tuple(column.name for grain in model.grains[:1] for column in grain.expressions or [grain.unnest()]),
        sql=context.render(model.fqn).sql("duckdb", pretty=True) if kind == VIEW_KIND else "",
    )


def _period(model: Any) -> Period:
    unit, window = model.interval_unit.value if model.time_column else "day", getattr(model.kind, "window", 1)
    if not getattr(model.kind, "hourly", False):
        whole: dict[str, Unit] = {"month": "month", "year": "year"}
        return Period(whole.get(unit, "day"), window)
    column = model.time_column.column.name
    kind = model.columns_to_types_or_raise[column].sql("duckdb")
    if unit != "hour" or kind != "TIMESTAMPTZ":
        raise TransformError(
            table_name(model.fqn),
            f"has an hour_column of type {kind}, and its cron is {model.cron!r}.",
            remedy=f"Write `cron '@hourly'`, and `DATE_TRUNC('HOUR', ...)::TIMESTAMPTZ AS {column}`.",
        )
    return Period("hour", window)


def _refuse_local_days(models: Mapping[str, ModelInfo], settings: Settings) -> None:
    """Refuse hours of a stream with days of its own: nothing would tell which of those days an hour belongs to.

    Raises:
        TransformError: a model in hours is made from such a stream.
    """
    hourly = [model for model in models.values() if model.granularity == "hour"]
    for contract in load_contracts(settings.contracts_dir).values() if hourly else ():
        if contract.stream is None or contract.stream.derives_event_date:
            continue
        for model in hourly:
            if contract.table in sources(models, model):
                raise TransformError(
                    model.name,
                    f"has hours, but the contract {contract.name} has days of its own (eventDateField), whose hours "
                    "are not those of the UTC day.",
                    remedy="Drop eventDateField from the contract, or give the model days.",
                )


def _refuse_views_elsewhere(models: Mapping[str, ModelInfo]) -> None:
    """Refuse what would be half a view and half a table.

    Raises:
        TransformError: a model is a view outside the schema of views, or a table inside, or reads a view and is none.
    """
    for model in models.values():
        if model.view != (model.kind == VIEW_KIND):
            raise TransformError(
                model.name,
                f"is of kind {model.kind} in the schema {model.layer}.",
                remedy=f"Give the schema {SERVING} models of `kind EMBEDDED`, and no other schema any.",
            )
        if not model.view and (read := [name for name in model.depends_on if name in models and models[name].view]):
            raise TransformError(
                model.name,
                f"reads the serving view {read[0]}, whose news nobody could follow.",
                remedy="Read the tables that the view reads.",
            )


def _blocking(audit: Any, arguments: dict[str, Any]) -> bool:
    given = arguments.get("blocking")
    return bool(audit.blocking if given is None else given.this)


def _lineage(context: "Context", model: Any, path: str) -> dict[str, tuple[tuple[str, str], ...]]:
    from sqlglot.errors import SqlglotError
    from sqlmesh.core.lineage import column_dependencies

    try:
        return {
            column: tuple(
                sorted(
                    (table_name(table), source)
                    for table, sources in column_dependencies(context, model.fqn, column).items()
                    for source in sources
                )
            )
            for column in model.columns_to_types_or_raise
        }
    except SqlglotError as error:
        raise TransformError(
            table_name(model.fqn),
            f"reads what is not there: {error}.",
            remedy=f"Correct {path}, or the model that it reads.",
        ) from error


def _keep(path: Path, manifest: dict[str, ModelInfo]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Those of an environment's models and of production's are both in use.
    kept = sorted(path.parent.glob("manifest-*.json"), key=lambda file: file.stat().st_mtime)[-MANIFESTS_KEPT:]
    for stale in set(path.parent.glob("manifest-*.json")) - set(kept):
        stale.unlink(missing_ok=True)
    replace_file(path, json.dumps([asdict(info) for info in manifest.values()]))


def _from_json(text: str) -> dict[str, ModelInfo]:
    manifest = {}
    for item in json.loads(text):
        item["audits"] = tuple(AuditInfo(**audit) for audit in item["audits"])
        for name in ("depends_on", "tags", "grain"):
            item[name] = tuple(item[name])
        item["column_lineage"] = {
            column: tuple((table, source) for table, source in sources)
            for column, sources in item["column_lineage"].items()
        }
        item["period"] = Period(**item["period"])
        manifest[item["name"]] = ModelInfo(**item)
    return manifest
