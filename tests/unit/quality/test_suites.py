"""Suites of one's own beside a contract's rules: which are taken, which are refused, and what they find."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from freshdata.contracts import Contract
from freshdata.errors import SuiteError
from freshdata.quality import ArrowRows, QualityReport, Suite, contract_suite, validate
from freshdata.quality import rows as quality_rows
from freshdata.quality.suites import own_suites, read_suite

DAY = date(2013, 1, 1)
NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)
SCHEMA = pa.schema(
    [("id", pa.int64()), ("name", pa.string()), ("amount", pa.float64()), ("day", pa.date32()),
     ("at", pa.timestamp("us", "UTC"))]
)  # fmt: skip
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file of expectations."""

    def write(*expectations: dict[str, Any], name: str = "gold.sums.json") -> Path:
        path = tmp_path / "expectations" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"name": "any", "expectations": list(expectations), "meta": {}}))
        return path

    return write


@pytest.fixture(params=["pandas", "duckdb"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(quality_rows, "PANDAS_ROWS", 10_000 if request.param == "pandas" else 0)
    return str(request.param)


def expectation(kind: str, **kwargs: Any) -> dict[str, Any]:
    return {"type": kind, "kwargs": kwargs}


def judge(path: Path, *rows: dict[str, Any]) -> QualityReport:
    whole = [
        {"id": number, "name": "a", "amount": 1.0, "day": DAY, "at": NOON} | row for number, row in enumerate(rows)
    ]
    return validate(
        ArrowRows(pa.Table.from_pylist(whole, schema=SCHEMA)), Suite("gold.sums", read_suite(path), ("id",))
    )


def test_a_suite_that_great_expectations_saved_joins_the_contracts_rules(
    contracts: dict[str, Contract], tmp_path: Path
) -> None:
    import great_expectations.expectations as gxe
    from great_expectations import ExpectationSuite

    path = tmp_path / "flight_events.json"
    suite = ExpectationSuite(
        "flights", [gxe.ExpectColumnMaxToBeBetween(column="distance", max_value=5000, severity="info")]
    )
    path.write_text(json.dumps(suite.to_json_dict()))
    joined = contract_suite(contracts["flight_events"], path)
    assert joined.rules[:-1] == contract_suite(contracts["flight_events"]).rules
    rule = joined.rules[-1]
    assert (rule.id, rule.severity, rule.columns) == ("distance.max_to_be_between", "info", ("distance",))
    assert rule.file == f"{tmp_path.name}/flight_events.json"
    assert str(rule.check) == "expect_column_max_to_be_between(column='distance', max_value=5000.0)"
    # It may name columns that the contract does not know, as those of lookups.
    assert joined.columns(["distance", "carrier_name"]) == ("distance", "carrier_name")


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("kind", "kwargs", "bad_row", "bad"),
    [
        ("expect_column_values_to_be_between", {"column": "amount", "min_value": 0}, {"amount": -1.0}, 1),
        # Great Expectations has no patterns on DuckDB, and no queries on pandas.
        ("expect_column_values_to_match_regex", {"column": "name", "regex": "^[a-c]+$"}, {"name": "xyz"}, 1),
        ("unexpected_rows_expectation", {"unexpected_rows_query": "SELECT * FROM {batch} WHERE amount > 9"},
         {"amount": 10.0}, None),
        ("expect_column_mean_to_be_between", {"column": "amount", "max_value": 3}, {"amount": 99.0}, None),
        ("expect_column_values_to_be_between", {"column": "day", "max_value": "2013-06-01"},
         {"day": date(2014, 1, 1)}, 1),
        ("expect_column_values_to_be_between", {"column": "at", "max_value": "2013-06-01T00:00:00+00:00"},
         {"at": datetime(2014, 1, 1, tzinfo=UTC)}, 1),
        ("expect_table_columns_to_match_set", {"column_set": ["id", "name", "amount", "day", "at"]}, None, None),
    ],
)  # fmt: skip
def test_expectations_pass_and_fail(
    write: Write, kind: str, kwargs: dict[str, Any], bad_row: dict[str, Any] | None, bad: int | None
) -> None:
    path = write(expectation(kind, **kwargs))
    good = judge(path, {}, {})
    assert good.passed, good.summary()
    if bad_row is not None:
        report = judge(path, {}, bad_row)
        assert not report.errored, report.summary()
        assert [(result.bad, result.severity) for result in report.failed] == [(bad, "error")]
        if bad:
            assert report.failed[0].sample[0]["id"] == 1


@pytest.mark.usefixtures("engine")
def test_no_rows_break_nothing_but_a_rule_on_their_number(write: Write) -> None:
    mean = expectation("expect_column_mean_to_be_between", column="amount", min_value=3)
    assert judge(write(mean, expectation("expect_column_values_to_be_unique", column="id"))).passed
    assert judge(write(expectation("expect_table_row_count_to_be_between", min_value=1))).blocks


def test_severity_is_what_meta_or_the_file_says(write: Write) -> None:
    unique = expectation("expect_column_values_to_be_unique", column="id")
    said = [
        {},
        {"severity": "critical"},
        {"severity": "warning"},
        {"severity": "critical", "meta": {"severity": "info"}},
    ]
    rules = read_suite(write(*(unique | each for each in said)))
    assert [rule.severity for rule in rules] == ["error", "error", "warning", "info"]
    assert [rule.id for rule in rules][:2] == ["id.values_to_be_unique", "id.values_to_be_unique_2"]


def test_yaml_is_read_as_well(tmp_path: Path) -> None:
    path = tmp_path / "gold.sums.yaml"
    path.write_text(
        "expectations:\n"
        "  - type: expect_column_values_to_be_between\n"
        "    kwargs: {column: day, min_value: 2013-01-02}\n"
        "    meta: {id: no_past, severity: warning}\n"
    )
    report = judge(path, {})
    assert [(result.rule, result.severity) for result in report.failed] == [("no_past", "warning")]
    assert not report.blocks


UNIQUE = "expect_column_values_to_be_unique"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (expectation(UNIQUE, column="id", mostly=0), "id.values_to_be_unique could never fail: mostly is 0"),
        (expectation("expect_column_mean_to_be_between", column="amount"), "could never fail: it has no limits"),
        (expectation("expect_column_values_to_not_be_in_set", column="id", value_set=[]), "it forbids nothing"),
        (expectation(UNIQUE, column="id") | {"severity": "bad"}, "has the severity 'bad'"),
        ({"expectation_type": UNIQUE}, "is no suite: Object missing required field `type` - at `$.expectations[0]`"),
        (expectation(UNIQUE, column="ids"), "needs the column ids, which the table lacks"),
        (expectation("expect_column_values_to_be_magic", column="id"), "names expect_column_values_to_be_magic, which"),
        (expectation(UNIQUE, column="id", mostly="all"), "has wrong arguments"),
    ],
)
def test_what_is_unusable_is_refused_by_file_with_a_remedy(write: Write, entry: dict[str, Any], message: str) -> None:
    with pytest.raises(SuiteError) as raised:
        judge(write(entry), {})
    assert str(raised.value).startswith("expectations/gold.sums.json ")
    assert message in str(raised.value)
    assert str(raised.value).endswith(f" {raised.value.remedy}")


@pytest.mark.parametrize("text", ["{", '{"expectations": []}', "[]", "null"])
def test_what_is_no_suite_is_refused(write: Write, text: str) -> None:
    path = write()
    path.write_text(text)
    with pytest.raises(SuiteError, match=r"expectations/gold\.sums\.json (cannot be read|is no suite)"):
        read_suite(path)


def test_an_id_of_the_contracts_is_not_taken_twice(contracts: dict[str, Contract], write: Write) -> None:
    path = write(
        expectation(UNIQUE, column="event_id") | {"meta": {"id": "event_id.unique"}}, name="flight_events.json"
    )
    with pytest.raises(SuiteError, match=r"event_id\.unique is called like another rule"):
        contract_suite(contracts["flight_events"], path)


def test_a_file_is_called_like_the_stream_or_model_it_judges(contracts: dict[str, Contract], write: Write) -> None:
    streams = [contract for contract in contracts.values() if contract.kind == "stream"]
    models = ["silver.flight_events", "gold.carrier_day"]
    gold, flights = write(name="gold.carrier_day.yaml"), write(name="flight_events.json")
    folder = gold.parent
    (folder / "README.md").write_text("Ours.")
    assert own_suites(folder, streams, models) == {"gold.carrier_day": gold, "silver.flight_events": flights}
    assert own_suites(folder / "none", streams, models) == {}
    second = write(name="silver.flight_events.json")
    with pytest.raises(
        SuiteError, match=r"silver.flight_events.json is a second suite .* expectations/flight_events.json"
    ):
        own_suites(folder, streams, models)
    second.rename(folder / "flights.json")
    with pytest.raises(SuiteError, match=r"expectations/flights.json is called like no stream .* gold.carrier_day"):
        own_suites(folder, streams, models)
