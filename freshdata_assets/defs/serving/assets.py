"""Serving views as virtual assets: nothing makes them, and each is as fresh as what it reads."""

import warnings

import dagster as dg

from freshdata.transform.manifest import ModelInfo
from freshdata_assets.platform import asset_key, current_platform, owners
from freshdata_assets.schemas import column_lineage, model_columns


def view_spec(view: ModelInfo) -> dg.AssetSpec:
    """A serving view."""
    with warnings.catch_warnings():
        # In preview, and needed: any other asset that never runs is called missing.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetSpec(
            asset_key(view.name),
            deps=[asset_key(upstream) for upstream in view.depends_on],
            description=view.description,
            group_name=view.layer,
            kinds={"sql", "view"},
            owners=owners(view.owner),
            tags=dict.fromkeys(view.tags, ""),
            code_version=view.code_version,
            is_virtual=True,
            metadata={
                "dagster/table_name": view.name,
                "dagster/column_schema": model_columns(view),
                "dagster/column_lineage": column_lineage(view.column_lineage),
                "freshdata/model": dg.MetadataValue.path(view.path),
                "freshdata/sql": dg.MetadataValue.md(f"```sql\n{view.sql}\n```"),
            },
        )


@dg.definitions
def defs() -> dg.Definitions:
    """The serving views."""
    return dg.Definitions(assets=[view_spec(view) for view in current_platform().views.values()])
