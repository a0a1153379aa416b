"""Serving views: the SELECTs over Gold that analysts and applications read. Nothing of them is stored.

Whoever asks gets them as part of the question, so each is as fresh as Gold, and is as the models say that production
follows.
"""

from collections.abc import Iterator
from contextlib import suppress

from freshdata.environments.catalog import SEPARATOR
from freshdata.environments.records import environment_settings, read_environments
from freshdata.errors import QueryError, TransformError
from freshdata.lake.catalog import CATALOG_NAME
from freshdata.settings import Settings
from freshdata.transform.manifest import SERVING, ModelInfo, kept_models, load_models
from freshdata.transform.versions import version_dir


def serving_views(settings: Settings, asked: str = "") -> dict[str, str]:
    """Each serving view's SELECT in DuckDB's dialect, by name: ``serving.x``, and an environment's ``ann__serving.x``.

    Args:
        settings: The instance.
        asked: What will be asked. Views that it names are there for certain: models that nobody has read since their
            files changed are read for them, which takes seconds. Others are left out then.

    Raises:
        TransformError: models that are to be read cannot be loaded.
    """
    asked = asked.casefold()
    views = {model.name: model.sql for model in _views(settings, load=SERVING in asked)}
    for environment in read_environments(settings):
        prefix, own = environment.name + SEPARATOR, environment_settings(settings, environment.name)
        own = own.for_models(version_dir(own, environment.fingerprint))
        built = [name for name, kind in environment.changes.items() if kind in ("added", "changed", "downstream")]
        for model in _views(own, load=prefix + SERVING in asked):
            if model.name in environment.changes:
                views[prefix + model.name] = _reading(model.sql, prefix, built)
    return views


def select_of(settings: Settings, name: str, dialect: str) -> str:
    """A serving view's SELECT for an engine, which can keep it as a view of its own.

    Args:
        settings: The instance.
        name: The view.
        dialect: The engine's SQL, as sqlglot calls it: ``duckdb``, ``spark``, ``trino``, …

    Raises:
        TransformError: there is no such view, or the models cannot be loaded.
        QueryError: there is no such dialect.
    """
    from sqlglot import transpile

    views = serving_views(settings, name if SERVING in name else SERVING)
    if name not in views:
        raise TransformError(name, "is no serving view.", remedy=f"Use one of {', '.join(sorted(views))}.")
    try:
        (select,) = transpile(views[name], "duckdb", dialect, pretty=True)
    except ValueError as error:
        remedy = "Name one that sqlglot knows: duckdb, spark, trino, …"
        raise QueryError(f"{str(error).rstrip('.')}.", remedy=remedy) from error
    return str(select)


def _views(settings: Settings, *, load: bool) -> Iterator[ModelInfo]:
    followed = settings.for_models(settings.models_dir)
    models = None
    if load:
        models = load_models(followed)
    else:
        with suppress(FileNotFoundError):  # Its files are just being replaced: nobody has read them yet.
            models = kept_models(followed)
    return (model for model in (models or {}).values() if model.view)


def _reading(sql: str, prefix: str, tables: list[str]) -> str:
    """A view's SELECT over an environment's own tables in place of production's."""
    for schema, _, table in (name.partition(".") for name in tables):
        sql = sql.replace(f'"{CATALOG_NAME}"."{schema}"."{table}"', f'"{CATALOG_NAME}"."{prefix}{schema}"."{table}"')
    return sql
