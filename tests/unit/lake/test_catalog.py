"""Tables from contracts."""

from dataclasses import replace

from freshdata.lake.catalog import ensure_stream_tables, open_catalog


def test_bronze_follows_the_contract(instance, contracts):
    bronze, quarantine = ensure_stream_tables(open_catalog(instance), contracts["flight_events"], contracts)
    names = bronze.schema().column_names
    assert names[:3] == ["event_id", "event_type", "tenant_id"]
    assert names[-6:] == ["carrier_name", "_kafka_partition", "_offset", "_ingested_at", "_late", "ingestion_date"]
    assert bronze.schema().find_field("event_time").required
    order = [bronze.schema().find_column_name(field.source_id) for field in bronze.sort_order().fields]
    assert order == ["tailnum", "event_time"]
    assert bronze.properties["commit.retry.num-retries"] == "0"
    assert [field.name for field in quarantine.spec().fields] == ["ingestion_date"]


def test_many_tenants_may_share_buckets(instance, contracts):
    contract = replace(contracts["weather"], stream=replace(contracts["weather"].rules, tenant_buckets=16))
    bronze, _ = ensure_stream_tables(open_catalog(instance), contract, contracts)
    assert [field.name for field in bronze.spec().fields] == ["ingestion_date", "tenant_id_bucket"]


def test_hourly_streams_are_partitioned_by_the_hour(instance, contracts):
    contract = replace(contracts["weather"], stream=replace(contracts["weather"].rules, granularity="hour"))
    bronze, _ = ensure_stream_tables(open_catalog(instance), contract, contracts)
    assert [field.name for field in bronze.spec().fields] == ["ingestion_hour", "tenant_id"]
