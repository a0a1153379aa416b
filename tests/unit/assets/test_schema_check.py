"""Which columns a table should have, and what is said when it has others."""

from dataclasses import replace

import dagster as dg
import pyarrow as pa
import pytest
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table
from pyiceberg.types import StringType

from freshdata.contracts import Contract
from freshdata.contracts.loader import contract_text, parse_contract
from freshdata.lake.catalog import bronze_schema, ensure_stream_tables, ensure_table
from freshdata.lake.duck import column_schema
from freshdata.lake.publication import publish
from freshdata_assets.platform import Platform, asset_key
from freshdata_assets.schema_check import SCHEMA_CHECK, SchemaVerdict, landing_verdict, model_verdict

SILVER = "silver.weather"


def bronze(platform: Platform, name: str = "weather") -> Table:
    return ensure_stream_tables(platform.catalog(), platform.contracts[name], platform.contracts)[0]


def silver(platform: Platform, **changed: str) -> None:
    columns = platform.models[SILVER].columns | changed
    ensure_table(platform.catalog(), SILVER, column_schema(columns))


def told(verdict: SchemaVerdict) -> tuple[bool, dg.AssetCheckSeverity, str | None]:
    result = verdict.result(dg.AssetCheckKey(asset_key(SILVER), SCHEMA_CHECK))
    return bool(result.passed), result.severity, result.description


def newer(contract: Contract, old: str, new: str, version: str = "1.1.0") -> Contract:
    text = contract_text(contract)
    assert old in text
    return parse_contract("test", text.replace(old, new).replace(f'"{contract.version}"', f'"{version}"'))


def test_bronze_is_judged_by_the_contract_that_is_published(platform: Platform) -> None:
    table, own = bronze(platform), platform.contracts["weather"]
    wider = newer(own, '"physicalType":"int"', '"physicalType":"bigint"')
    assert told(landing_verdict(platform, wider, table))[0]  # A file that nobody has published says nothing.
    publish(table, wider, bronze_schema(wider, platform.contracts))
    assert told(landing_verdict(platform, own, table))[0]


def test_what_was_kept_of_unknown_fields_once_is_nothing_unexpected(platform: Platform) -> None:
    own = platform.contracts["weather"]
    keeping = newer(own, '"value":"ignore"', '"value":"keep"')
    table, _ = ensure_stream_tables(platform.catalog(), keeping, platform.contracts)
    assert "_extra" in table.schema().column_names
    ignoring = newer(keeping, '"value":"keep"', '"value":"ignore"', "1.2.0")
    publish(table, ignoring, bronze_schema(ignoring, platform.contracts))
    assert told(landing_verdict(platform, own, table))[0]


def test_a_lookup_that_no_file_declares_is_told_and_does_not_stop_the_sensor(platform: Platform) -> None:
    table, own = bronze(platform, "flight_events"), platform.contracts["flight_events"]
    elsewhere = Platform(platform.settings, {own.name: own}, platform.models)
    passed, severity, description = told(landing_verdict(elsewhere, own, table))
    assert (passed, severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "takes 'airlines' from a lookup, and no file here declares it. Put" in str(description)


def test_a_silver_table_has_its_models_columns_with_their_types(platform: Platform) -> None:
    silver(platform)
    assert told(model_verdict(platform, platform.models[SILVER]))[0]
    with platform.catalog().load_table(SILVER).update_schema() as change:
        change.delete_column("temp")
        change.add_column("temp", StringType())
        change.delete_column("humid")
    passed, severity, description = told(model_verdict(platform, platform.models[SILVER]))
    assert (passed, severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert str(description).split("; ") == [
        "temp: expected double, optional, found string, optional",
        "humid: expected double, optional, found no such column",
    ]


def test_a_model_that_narrows_a_contracts_column_is_warned_of(platform: Platform) -> None:
    bronze(platform)
    model = platform.models[SILVER]
    narrowing = replace(model, columns=model.columns | {"temp": "INT", "wind_dir": "BIGINT"})
    other = Platform(platform.settings, platform.contracts, {SILVER: narrowing})
    silver(other)
    assert told(model_verdict(other, narrowing)) == (
        False, dg.AssetCheckSeverity.WARN, "temp: expected double, found int",
    )  # fmt: skip


def test_a_model_without_a_table_is_not_judged(platform: Platform) -> None:
    with pytest.raises(NoSuchTableError):
        model_verdict(platform, platform.models[SILVER])


def test_an_evaluation_outside_of_runs_says_the_same(platform: Platform) -> None:
    table = ensure_table(platform.catalog(), "lookup.airlines", pa.schema([("carrier", pa.string())]))
    check = dg.AssetCheckKey(asset_key("lookup.airlines"), SCHEMA_CHECK)
    verdict = landing_verdict(platform, platform.contracts["airlines"], table)
    result, evaluation = verdict.result(check), verdict.evaluation(check)
    assert (evaluation.passed, evaluation.severity, evaluation.description) == (
        result.passed, result.severity, result.description,
    )  # fmt: skip
    assert evaluation.asset_check_key == check
