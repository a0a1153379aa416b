"""Dagster takes a captured table's changes to Silver, and judges the rows that are there now."""

import dagster as dg
import pytest

from freshdata.cdc.models import write_models
from freshdata.contracts import load_contracts
from freshdata.transform.manifest import load_manifest
from freshdata_assets.automation import live_run_requests
from freshdata_assets.defs.bronze.assets import external_specs
from freshdata_assets.defs.freshness.checks import freshness_checks
from freshdata_assets.defs.quality.checks import quality_checks
from freshdata_assets.defs.resources import Transform
from freshdata_assets.defs.transform.assets import transform_assets
from freshdata_assets.platform import Platform
from tests.bronze import rows
from tests.captures import captured_project, change, land

pytestmark = pytest.mark.integration


def test_the_rules_of_the_contract_are_judged_on_the_present_rows(tmp_path, monkeypatch):
    settings = captured_project(tmp_path, {})
    path = settings.contracts_dir / "customers.odcs.yaml"
    path.write_text(path.read_text().replace("physicalName: City,", "physicalName: City, enum: [{value: Rome}],"))
    monkeypatch.setenv("FRESHDATA_HOME", str(settings.home))
    monkeypatch.setenv("FRESHDATA_PROJECT", str(settings.project))
    write_models(settings, load_contracts(settings.contracts_dir)["customers"])
    instance = dg.DagsterInstance.ephemeral()

    def live() -> dict[str, dg.AssetCheckEvaluation]:
        platform = Platform(settings, load_contracts(settings.contracts_dir), load_manifest(settings))
        assets = [*external_specs(platform), *transform_assets(platform)]
        assets += [*quality_checks(platform), *freshness_checks(platform)]
        (request,) = live_run_requests(platform, platform.catalog())
        result = dg.materialize(
            assets,
            instance=instance,
            resources={"transform": Transform()},
            selection=dg.AssetSelection.assets(*(request.asset_selection or ())),
            tags=dict(request.tags),
            raise_on_error=False,
        )
        return {found.check_name: found for found in result.get_asset_check_evaluations()}

    land(settings, [change("r", 1, 1, City="Rome"), change("r", 1, 2, City="Rome"), change("d", 2, 2)])
    found = live()
    assert {name: verdict.passed for name, verdict in found.items()} == {
        "not_null": True, "unique_combination_of_columns": True, "contract_schema": True, "contract_rules": True,
        "tenant_freshness": False,  # It is long ago.
    }  # fmt: skip
    assert [row["id"] for row in rows(Platform(settings, {}, {}).catalog(), "silver.customers")] == [1]
    # The database has taken it, so Silver has it: whether it should be so is for the check to say.
    land(settings, [change("c", 3, 3, City="Atlantis")])
    found = live()
    assert not found["contract_rules"].passed
    assert found["contract_rules"].metadata["freshdata/rows"].value == 2
