"""Serving views as virtual assets: nothing makes them, and each is as fresh as what it reads."""

import warnings

import dagster as dg

from freshdata.transform.manifest import ModelInfo
from freshdata_assets.platform import asset_key, current_platform
from freshdata_assets.specs import model_spec


def view_spec(view: ModelInfo) -> dg.AssetSpec:
    """A serving view."""
    with warnings.catch_warnings():
        # In preview, and needed: any other asset that never runs is called missing.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return model_spec(
            view,
            [asset_key(upstream) for upstream in view.depends_on],
            {"sql", "view"},
            {"freshdata/sql": dg.MetadataValue.md(f"```sql\n{view.sql}\n```")},
            is_virtual=True,
        )


@dg.definitions
def defs() -> dg.Definitions:
    """The serving views."""
    return dg.Definitions(assets=[view_spec(view) for view in current_platform().views.values()])
