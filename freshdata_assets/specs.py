"""What Dagster shows of a model, be it a table or a view."""

from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from freshdata.transform.manifest import ModelInfo
from freshdata_assets.platform import asset_key, owners
from freshdata_assets.schemas import column_lineage, model_columns


def model_spec(
    model: ModelInfo,
    deps: Iterable[dg.AssetDep | dg.AssetKey],
    kinds: set[str],
    metadata: Mapping[str, Any],
    **more: Any,
) -> dg.AssetSpec:
    """The asset of a model.

    Args:
        model: The model.
        deps: What it reads.
        kinds: What it is, for the icons.
        metadata: What is told beside its name, columns, lineage and file.
        more: Further arguments of the spec.
    """
    return dg.AssetSpec(
        asset_key(model.name),
        deps=deps,
        description=model.description,
        group_name=model.layer,
        kinds=kinds,
        owners=owners(model.owner),
        tags=dict.fromkeys(model.tags, ""),
        code_version=model.code_version,
        metadata={
            "dagster/table_name": model.name,
            "dagster/column_schema": model_columns(model),
            "dagster/column_lineage": column_lineage(model.column_lineage),
            "freshdata/model": dg.MetadataValue.path(model.path),
            **metadata,
        },
        **more,
    )
