"""Reading contracts: what follows from one, and how a wrong one is refused."""

from datetime import timedelta

import pyarrow as pa
import pytest

from freshdata.contracts import load_contract, load_contracts
from freshdata.contracts.model import AnomalyRules, CommitPolicy, Heartbeat, Operations
from freshdata.errors import ContractError
from freshdata.settings import PROJECT

FLIGHTS = (PROJECT / "contracts" / "flight_events.odcs.yaml").read_text()


TENANTS = "{property: tenantPartition, value: tenant}"


def operations(value):
    return f"{{property: operations, value: {{{value}}}}}"


def edited(tmp_path, old, new):
    assert old in FLIGHTS
    path = tmp_path / "edited.odcs.yaml"
    path.write_text(FLIGHTS.replace(old, new, 1))
    return path


def test_everything_is_derived_from_the_contract(contracts):
    flights = contracts["flight_events"]
    assert (flights.table, flights.quarantine_table) == ("bronze.flight_events", "quarantine.flight_events")
    assert flights.owner == "flight-ops"
    assert flights.rules.dedupe_key == ("event_id",)
    assert flights.rules.dedupe_window == timedelta(days=14)
    assert flights.rules.freshness == timedelta(hours=48)
    assert flights.arrow_schema.field("event_time") == pa.field("event_time", pa.timestamp("us", "UTC"), nullable=False)
    assert flights.arrow_schema.field("dep_delay").nullable
    assert contracts["airlines"].table == "lookup.airlines"
    assert contracts["airlines"].stream is None


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("name: flight_events\n    physicalName", "name: Flight-Events\n    physicalName", "not a valid name"),
        ("physicalType: timestamptz", "physicalType: moment", "is not supported"),
        ("value: [event_id]}", "value: [tenant_id]}", "the dedupe key must be one field and the Kafka message key"),
        ("{property: messageKey, value: event_id}", "{property: messageKey, value: flight}", "Kafka message key"),
        ("eventTimeField, value: event_time}", "eventTimeField, value: when}", "names the field when"),
        ("eventTimeField, value: event_time}", "eventTimeField, value: flight}", "timestamptz"),
        ("value: P14D}", "value: two weeks}", "ISO 8601"),
        ("value: quarantine}", "value: shrug}", "unknown value"),
        ("{property: tenantPartition, value: tenant}", "{property: tenantPartition, value: random}", "bucket(N)"),
        (TENANTS, "{property: tenantPartition, value: bucket(0)}", "bucket(N)"),
        (TENANTS, "{property: clusteringOrder, value: hilbert}", "clusteringOrder is 'hilbert'"),
        ("{property: clusteringColumns, value: [tailnum]}", "{property: clusteringOrder, value: zorder}", "beside"),
        ("name: air_time", "name: ingestion_date", "which Bronze adds"),
        (TENANTS, "{property: commitPolicy, value: {rows: 5}}", "Use only maxRows, maxBytes"),
        (TENANTS, "{property: commitPolicy, value: often}", "commitPolicy is 'often'"),
        (TENANTS, "{property: commitPolicy, value: {maxRows: 0}}", "above 0"),
        (TENANTS, "{property: commitPolicy, value: {maxRows: true}}", "above 0"),
        (TENANTS, "{property: commitPolicy, value: {maxBytes: 1.5}}", "above 0"),
        (TENANTS, "{property: commitPolicy, value: {maxAge: 2 seconds}}", "ISO 8601"),
        (TENANTS, "{property: commitPolicy, value: {maxAge: PT0S}}", "above zero"),
        (TENANTS, "{property: commitPolicy, value: {maxAge: PT5S, maxIdleAge: PT1S}}", "at most maxIdleAge"),
        (TENANTS, "{property: partitionIdleAfter, value: soon}", "ISO 8601"),
        (TENANTS, "{property: operations, value: [cancelled]}", "Write {field: FIELD"),
        (TENANTS, operations("field: event_type, delete: cancelled"), "Quote its values"),
        (TENANTS, operations("field: event_type, delete: [1]"), "Quote its values"),
        (TENANTS, operations("field: op, delete: [cancelled]"), "no required string"),
        (TENANTS, operations("field: tailnum, delete: [cancelled]"), "no required string"),
        (TENANTS, operations("field: event_type, delete: [cancelled], deleteMode: both"), "Use hard or soft"),
        (TENANTS, operations("field: event_type, insert: [departed], delete: [cancelled]"), "List each value"),
        (TENANTS, operations("field: event_type, update: [cancelled, arrived, departed], delete: []"), "List each"),
        (TENANTS, "{property: heartbeat, value: often}", "heartbeat is 'often'"),
        (TENANTS, "{property: heartbeat, value: PT0S}", "above zero"),
        (TENANTS, "{property: heartbeat, value: P3D}", "Raise tenantIdleAfter"),
        (TENANTS, "{property: heartbeat, value: {every: PT1H}}", "Write a duration such as PT6H, or {default"),
        (TENANTS, "{property: heartbeat, value: {tenants: [OO]}}", "Write a duration such as PT6H, or {default"),
        (TENANTS, "{property: heartbeat, value: {tenants: {OO: weekly}}}", "heartbeat of OO is 'weekly'"),
        (TENANTS, "{property: heartbeat, value: {tenants: {OO: P7D}}}", "heartbeat of OO leaves no time"),
        (TENANTS, "{property: heartbeat, value: {tenants: {NO: P2D}}}", "Quote its name"),
        (TENANTS, "{property: anomalies, value: 5}", "anomalies is 5"),
        (TENANTS, "{property: anomalies, value: {rows: 5}}", "Write {volume: NUMBER"),
        (TENANTS, "{property: anomalies, value: {volume: 0}}", "a number above 0"),
        (TENANTS, "{property: anomalies, value: {nullShare: true}}", "a number above 0"),
        (TENANTS, "{property: anomalies, value: {distribution: .inf}}", "a number above 0"),
        (TENANTS, "{property: anomalies, value: {ignore: [colour]}}", "List columns of the stream: air_time"),
        (TENANTS, "{property: anomalies, value: {ignore: tailnum}}", "List columns of the stream"),
        ("property: freshness, value: 48, unit: h", "property: freshness, value: 48, unit: moons", "unit"),
        ("primaryKey: true", "primaryKey: false", "primary key"),
        ("schema:", "schemas:", "cannot be read"),
        ("schema:\n", "schema: []\nrest:\n", "cannot be read"),
        ("apiVersion: v3.2.0", "apiVersion: [", "cannot be read"),
    ],
)
def test_a_wrong_contract_is_refused_with_file_reason_and_remedy(tmp_path, old, new, complaint):
    with pytest.raises(ContractError) as error:
        load_contract(edited(tmp_path, old, new))
    assert "edited.odcs.yaml" in str(error.value)
    assert complaint in str(error.value)
    assert error.value.remedy


def test_two_contracts_of_one_name_are_refused(tmp_path):
    (tmp_path / "a.odcs.yaml").write_text(FLIGHTS)
    (tmp_path / "b.odcs.yaml").write_text(FLIGHTS)
    with pytest.raises(ContractError, match="taken"):
        load_contracts(tmp_path)


def test_two_streams_of_one_topic_are_refused(tmp_path):
    (tmp_path / "a.odcs.yaml").write_text(FLIGHTS)
    (tmp_path / "b.odcs.yaml").write_text(FLIGHTS.replace("name: flight_events\n", "name: departures\n"))
    with pytest.raises(ContractError, match=r"reads the topic flights.flight_events.v1, as flight_events does"):
        load_contracts(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ContractError, match="no contract"):
        load_contracts(tmp_path)


def test_a_stream_without_a_date_field_gets_the_date_of_its_event_time(tmp_path):
    contract = load_contract(edited(tmp_path, "      - {property: eventDateField, value: flight_date}\n", ""))
    assert contract.rules.derives_event_date
    assert contract.rules.event_date_field == "event_date"


def test_a_stream_says_how_long_its_tenants_may_be_silent(tmp_path):
    def heartbeat(value):
        return load_contract(edited(tmp_path, TENANTS, f"{{property: heartbeat, value: {value}}}")).rules.heartbeat

    assert heartbeat("PT6H") == Heartbeat(timedelta(hours=6))
    stated = heartbeat("{default: PT6H, tenants: {OO: PT60H}}")
    assert (stated.of("UA"), stated.of("OO")) == (timedelta(hours=6), timedelta(hours=60))
    # What is not said is the SLA.
    assert heartbeat("{tenants: {OO: PT60H}}").of("UA") == timedelta(hours=48)
    assert load_contract(PROJECT / "contracts" / "flight_events.odcs.yaml").rules.heartbeat is None


def test_a_stream_says_when_its_worker_commits_and_the_rest_has_defaults(tmp_path):
    given = "{maxRows: 9, maxBytes: 8, maxOpenPartitions: 7, minFileRows: 6, maxAge: PT5S, maxIdleAge: PT1M}"
    rules = load_contract(edited(tmp_path, TENANTS, f"{{property: commitPolicy, value: {given}}}")).rules
    assert rules.commit == CommitPolicy(9, 8, 7, timedelta(seconds=5), 6, timedelta(minutes=1))
    assert rules.partition_idle_after == timedelta(minutes=1)
    rules = load_contract(edited(tmp_path, TENANTS, "{property: commitPolicy, value: {maxRows: 9}}")).rules
    assert rules.commit == CommitPolicy(max_rows=9)


def test_a_long_age_is_the_age_of_small_commits_too(tmp_path):
    rules = load_contract(edited(tmp_path, TENANTS, "{property: commitPolicy, value: {maxAge: PT1M}}")).rules
    assert rules.commit.max_idle_age == timedelta(minutes=1)


def test_a_stream_says_which_events_insert_update_and_delete(tmp_path):
    given = operations("field: event_type, insert: [departed], update: [arrived], delete: [cancelled]")
    rules = load_contract(edited(tmp_path, TENANTS, given)).rules
    assert rules.operations == Operations("event_type", ("departed",), ("arrived",), ("cancelled",), "hard")
    given = operations("field: event_type, update: [departed, arrived], delete: [cancelled], deleteMode: soft")
    rules = load_contract(edited(tmp_path, TENANTS, given)).rules
    assert rules.operations == Operations("event_type", (), ("departed", "arrived"), ("cancelled",), "soft")


def test_a_stream_says_how_unusual_a_day_may_be(contracts, tmp_path):
    assert contracts["flight_events"].rules.anomalies == AnomalyRules()
    given = "{volume: 8, nullShare: 2.5, ignore: [tailnum, carrier_name]}"
    rules = load_contract(edited(tmp_path, TENANTS, f"{{property: anomalies, value: {given}}}")).rules
    assert rules.anomalies == AnomalyRules(volume=8, nulls=2.5, ignored=("tailnum", "carrier_name"))
    assert rules.anomalies.distribution == AnomalyRules().distribution
