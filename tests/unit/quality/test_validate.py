"""Every type of rule, passing and failing, on real rows and on both engines."""

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest
from open_data_contract_standard.model import DataQuality

from freshdata.contracts import Contract, load_contracts
from freshdata.errors import RuleError
from freshdata.quality import ArrowRows, QualityReport, contract_suite, validate
from freshdata.quality import rows as quality_rows
from freshdata.settings import load_settings

DAY = date(2013, 1, 1)
NOON = datetime(2013, 1, 1, 17, tzinfo=UTC)


@pytest.fixture(scope="module")
def flights() -> Contract:
    return load_contracts(load_settings().contracts_dir)["flight_events"]


@pytest.fixture(params=["pandas", "duckdb", "duckdb in place"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """All ways the expectations run; the number of rows chooses between them."""
    monkeypatch.setattr(quality_rows, "PANDAS_ROWS", 10_000 if request.param == "pandas" else 0)
    monkeypatch.setattr(quality_rows, "COPIED_ROWS", 0 if request.param == "duckdb in place" else 10_000)
    return str(request.param)


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "event_id": f"event-{number:05d}", "event_type": "departed", "tenant_id": "UA", "event_time": NOON,
        "flight_date": DAY, "flight": 100, "sched_dep_time": 1200, "scheduled_departure": NOON, "tailnum": "N123",
        "origin": "EWR", "dest": "ORD", "dep_delay": 3, "arr_delay": None, "air_time": None, "distance": 719,
    } | changes  # fmt: skip


def check(contract: Contract, rows: list[dict[str, Any]], days: tuple[date, ...] = (DAY,)) -> QualityReport:
    report = validate(
        ArrowRows(pa.Table.from_pylist(rows, schema=contract.arrow_schema)), contract_suite(contract), days=days
    )
    json.dumps([dataclasses.asdict(result) for result in report.results], allow_nan=False)
    return report


def broken(report: QualityReport) -> dict[str, int | None]:
    assert not report.errored, report.errored
    return {result.rule: result.bad for result in report.failed}


@pytest.mark.usefixtures("engine")
def test_good_rows_keep_every_rule(flights: Contract) -> None:
    report = check(flights, [row(number) for number in range(50)])
    assert report.passed, report.summary()
    assert not report.blocks
    assert report.rows == 50


@pytest.mark.usefixtures("engine")
def test_each_rule_fails_on_the_rows_that_break_it(flights: Contract) -> None:
    rows = [row(number) for number in range(50)]
    rows[3] = row(3, flight=20_000)
    rows[4] = row(4, event_type="exploded")
    rows[5] = row(1)
    rows[6] = row(6, origin=None)
    rows[7] = row(7, dest="EWR")
    rows[8] = row(8, dep_delay=None)
    rows[9] = row(9, tenant_id="UA\n")
    rows[10] = row(10, event_id="short")
    for number in range(20, 40):
        rows[number] = row(number, tailnum=None)
    report = check(flights, rows)
    assert broken(report) == {
        "flight.range": 1,
        "event_type.enum": 1,
        "event_id.unique": 2,
        "one_row_a_event": 2,
        "origin.required": 1,
        "origin_not_dest": 1,
        "departed_has_delay": 1,
        "tenant_id.pattern": 1,
        "event_id.length": 1,
        "tailnum.tailnum_nulls": 20,
    }
    assert report.blocks
    results = {result.rule: result for result in report.results}
    assert results["flight.range"].sample[0]["event_id"] == "event-00003"
    assert results["tenant_id.pattern"].sample == ({"event_id": "event-00009", "tenant_id": "UA\n"},)
    assert results["departed_has_delay"].sample == ({"event_id": "event-00008"},)
    assert results["tailnum.tailnum_nulls"].severity == "warning"
    assert report.summary().index("flight.range") < report.summary().index("tailnum.tailnum_nulls (warning)")


@pytest.mark.usefixtures("engine")
def test_a_share_of_bad_rows_is_a_strict_bound(flights: Contract) -> None:
    def share(bad: int) -> QualityReport:
        return check(flights, [row(number, tailnum=None if number < bad else "N123") for number in range(100)])

    assert share(19).passed
    assert broken(share(20)) == {"tailnum.tailnum_nulls": 20}  # mustBeLessThan: 20 percent.


def test_a_warning_does_not_block(flights: Contract) -> None:
    report = check(flights, [row(number, tailnum=None) for number in range(10)])
    assert not report.passed
    assert not report.blocks


def test_a_day_without_rows_is_named(flights: Contract) -> None:
    report = check(flights, [row(1)], days=(DAY, date(2013, 1, 2)))
    assert broken(report) == {"rows_present": 1}
    result = report.failed[0]
    assert (result.rows, result.sample) == (2, ({"flight_date": "2013-01-02", "rows": 0},))


def test_no_rows_and_no_day_to_judge_pass(flights: Contract) -> None:
    assert check(flights, [], days=()).passed


def test_a_rule_on_a_column_the_table_lacks_says_so(flights: Contract) -> None:
    table = pa.Table.from_pylist([row(1)], schema=flights.arrow_schema).drop_columns(["distance"])
    with pytest.raises(RuleError, match=r"distance.* needs the column distance, which the table lacks"):
        validate(ArrowRows(table), contract_suite(flights))


@pytest.fixture
def spelled(flights: Contract) -> Callable[..., Contract]:
    def build(column: str | None, **rule: Any) -> Contract:
        odcs = flights.odcs.model_copy(deep=True)
        schema = odcs.schema_[0]
        schema.quality = []
        target = next((item for item in schema.properties if item.name == column), schema)
        target.quality = [DataQuality(id="under_test", **rule)]
        return dataclasses.replace(flights, odcs=odcs)

    return build


LIBRARY = {"type": "library", "mustBe": 0}


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("column", "rule", "bad_row", "bad"),
    [
        ("tailnum", LIBRARY | {"metric": "missingValues", "arguments": {"missingValues": ["N999"]}},
         {"tailnum": "N999"}, {"tailnum.under_test_2": 1}),
        ("tailnum", LIBRARY | {"metric": "missingValues"}, {"tailnum": None}, {"tailnum.under_test": 1}),
        ("origin", LIBRARY | {"metric": "invalidValues", "arguments": {"validValues": ["EWR", "JFK"]}},
         {"origin": "BOS"}, {"origin.under_test": 1}),
        ("tailnum", LIBRARY | {"metric": "invalidValues", "arguments": {"pattern": "^N1"}},
         {"tailnum": "N999"}, {"tailnum.under_test": 1}),
        ("flight", LIBRARY | {"metric": "duplicateValues"}, {}, {"flight.under_test": 2}),
        ("dep_delay", {"type": "sql", "query": "SELECT max(${column}) FROM ${object};", "mustBeLessThan": 60},
         {"dep_delay": 61}, {"dep_delay.under_test": None}),
        ("dep_delay", {"type": "sql", "query": "SELECT avg(dep_delay) FROM {object}", "mustBeBetween": [3, 4]},
         {"dep_delay": 6}, {"dep_delay.under_test": None}),
        ("dep_delay", {"type": "custom", "engine": "great-expectations", "implementation": {
            "type": "expect_column_max_to_be_between", "kwargs": {"max_value": 60}}},
         {"dep_delay": 61}, {"dep_delay.under_test": None}),
    ],
)  # fmt: skip
def test_spelled_rules_pass_and_fail(
    spelled: Callable[..., Contract],
    column: str,
    rule: dict[str, Any],
    bad_row: dict[str, Any],
    bad: dict[str, int | None],
) -> None:
    contract = spelled(column, **rule)
    assert broken(check(contract, [row(1, flight=1)])) == {}
    assert broken(check(contract, [row(1, flight=100), row(2, **bad_row)])) == bad


def test_a_rule_that_cannot_be_evaluated_is_told_from_bad_data_and_blocks(spelled: Callable[..., Contract]) -> None:
    query = "SELECT count(*) FROM ${object} WHERE no_such_column"
    report = check(spelled(None, type="sql", query=query, mustBe=0, severity="warning"), [row(1)])
    assert not report.failed
    assert [result.rule for result in report.errored] == ["under_test"]
    assert "no_such_column" in report.summary()
    assert report.blocks


@pytest.mark.parametrize("query", ["SELECT 1, 2", "SELECT 'x'", "SELECT 1 FROM rows WHERE false"])
def test_a_query_that_returns_no_number_is_an_error_of_the_rule(spelled: Callable[..., Contract], query: str) -> None:
    report = check(spelled(None, type="sql", query=query, mustBe=0), [row(1)])
    assert [result.error for result in report.errored] == ["the query must return exactly one number"]


def test_a_rules_query_cannot_read_files(spelled: Callable[..., Contract]) -> None:
    query = "SELECT count(*) FROM read_text('/etc/hostname')"
    assert check(spelled(None, type="sql", query=query, mustBe=0), [row(1)]).errored


def test_the_day_is_read_though_it_is_no_field_of_the_contract(flights: Contract) -> None:
    derived = dataclasses.replace(flights.rules, event_date_field="event_date", derives_event_date=True)
    suite = contract_suite(dataclasses.replace(flights, stream=derived))
    assert suite.columns(["event_date", "flight", "surplus"]) == ("event_date", "flight")
