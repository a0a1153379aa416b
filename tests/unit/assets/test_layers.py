"""How a layer's op deals with failures, on models and a runner made up for the purpose."""

from dataclasses import replace

import dagster as dg
import pyarrow as pa
import pytest

from freshdata.contracts import Contract
from freshdata.errors import TransformError
from freshdata.lake.catalog import ensure_table, open_catalog
from freshdata.settings import Settings
from freshdata.transform.manifest import AuditInfo, ModelInfo
from freshdata.transform.results import AuditResult, ModelRun
from freshdata_assets.defs.quality.checks import quality_checks
from freshdata_assets.defs.resources import Transform
from freshdata_assets.defs.transform.assets import transform_assets
from freshdata_assets.platform import Platform, asset_key
from freshdata_assets.schema_check import SCHEMA_CHECK
from freshdata_assets.scope import Scope


def model(name: str, *depends_on: str, audits: tuple[AuditInfo, ...] = ()) -> ModelInfo:
    return ModelInfo(
        name=name, layer=name.partition(".")[0], description="", owner="team", kind="full", partition_column=None,
        columns={"id": "INT"}, column_descriptions={}, depends_on=depends_on, column_lineage={}, audits=audits,
        code_version="1", metadata_version="1", path="x.sql",
    )  # fmt: skip


class Scripted(Transform):
    """A runner on which some models fail, and some fail an audit."""

    broken: list[str] = []  # noqa: RUF012 - a field of a pydantic model
    refused: list[str] = []  # noqa: RUF012

    def runner(self, run_id: str) -> "Scripted":  # type: ignore[override]  # noqa: ARG002
        return self

    def run_full(self, name: str) -> ModelRun:
        if name in self.broken:
            raise TransformError(name, "is broken.", remedy="Mend it.")
        audits = (AuditResult("sound", 3, blocking=True, passed=False),) if name in self.refused else ()
        return ModelRun(name, "full", {}, 7, audits, "", 1, 0.1)


CHAIN = [
    model("gold.a", audits=(AuditInfo("sound", blocking=True),)),
    model("gold.b", "gold.a"),
    model("gold.c", "gold.b"),
    model("gold.d"),
]


def run(settings: Settings, transform: Scripted) -> dg.ExecuteInProcessResult:
    platform = Platform(settings, {}, {item.name: item for item in CHAIN})
    return dg.materialize(transform_assets(platform), resources={"transform": transform}, raise_on_error=False)


def done(result: dg.ExecuteInProcessResult) -> set[str]:
    return {
        event.step_materialization_data.materialization.asset_key.to_user_string()
        for event in result.all_events
        if event.event_type_value == "ASSET_MATERIALIZATION"
    }


def reason(result: dg.ExecuteInProcessResult) -> str:
    failure = next(event for event in result.all_events if event.event_type_value == "STEP_FAILURE")
    data = failure.step_failure_data.user_failure_data
    return str(data.description if data else failure.step_failure_data.error)


def test_models_downstream_of_a_failure_are_skipped_and_the_others_are_not(instance: Settings) -> None:
    result = run(instance, Scripted(broken=["gold.a"]))
    assert not result.success
    assert done(result) == {"gold/d"}
    assert "gold.a: Model gold.a: is broken. Mend it." in reason(result)
    assert "gold.c: not run, because gold.b failed" in reason(result)


def test_a_blocking_audit_stops_the_models_downstream_of_it(instance: Settings) -> None:
    result = run(instance, Scripted(refused=["gold.a"]))
    assert not result.success
    assert done(result) == {"gold/a", "gold/d"}
    (verdict,) = result.get_asset_check_evaluations()
    assert (verdict.passed, verdict.metadata["freshdata/failing_rows"].value) == (False, 3)
    assert "gold.b: not run, because gold.a failed" in reason(result)


def test_an_audit_used_twice_is_two_checks(instance: Settings) -> None:
    twice = replace(CHAIN[0], audits=(AuditInfo("sound", blocking=True), AuditInfo("sound", blocking=False)))
    (assets,) = transform_assets(Platform(instance, {}, {twice.name: twice}))
    audits = {(spec.name, spec.blocking) for spec in assets.check_specs if spec.name != SCHEMA_CHECK}
    assert {spec.description for spec in assets.check_specs} >= {"No row fails the audit sound of x.sql."}
    assert audits == {("sound", True), ("sound_2", False)}


def test_a_rule_that_cannot_be_checked_fails_the_check_with_its_reason(
    instance: Settings, contracts: dict[str, Contract]
) -> None:
    name = "silver.weather"
    schema = pa.schema([("observation_id", pa.string()), ("weather_date", pa.date32())])
    ensure_table(open_catalog(instance), name, schema)
    platform = Platform(instance, contracts, {name: replace(model(name), partition_column="weather_date")})
    (check,) = quality_checks(platform)
    result = dg.materialize(
        [dg.AssetsDefinition(specs=[dg.AssetSpec(asset_key(name))]), check],
        selection=dg.AssetSelection.all_asset_checks(),
        raise_on_error=False,
    )
    (verdict,) = result.get_asset_check_evaluations()
    assert not verdict.passed
    assert verdict.severity == dg.AssetCheckSeverity.ERROR
    assert "needs the column tenant_id, which the table lacks" in str(verdict.description)


@pytest.mark.parametrize(
    ("tags", "live", "days"),
    [
        ({"dagster/partition": "2013-01-02"}, False, ["2013-01-02"]),
        (
            {
                "freshdata/mode": "live",
                "dagster/asset_partition_range_start": "2013-01-31",
                "dagster/asset_partition_range_end": "2013-02-01",
            },
            True,
            ["2013-01-31", "2013-02-01"],
        ),
        ({}, False, []),
    ],
)
def test_a_runs_tags_say_what_it_is_asked_to_do(tags: dict[str, str], live: bool, days: list[str]) -> None:  # noqa: FBT001
    scope = Scope.of(tags)
    assert (scope.live, [day.isoformat() for day in scope.intervals]) == (live, days)
