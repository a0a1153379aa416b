"""The gateway goes by the contract that its stream's worker goes by."""

import shutil

from freshdata.contracts import load_contracts
from freshdata.lake.catalog import ensure_stream_tables, open_catalog
from freshdata.lake.publication import CONTRACT_PROPERTY, ID_PROPERTY
from freshdata.settings import PROJECT
from tests.captures import captured_project
from tests.streams import flight_event

UA = flight_event(0)


def test_a_published_contract_counts_without_a_restart(door, tmp_path, contracts):
    def look():
        door.runner.run(door.gateway.streams.look())

    folder = tmp_path / "contracts"
    shutil.copytree(PROJECT / "contracts", folder)
    path = folder / "flight_events.odcs.yaml"
    gate = "      - {name: gate, logicalType: string, physicalType: string}\n"
    path.write_text(
        path.read_text()
        .replace("version: 1.0.0", "version: 1.1.0", 1)
        .replace("      - name: event_type\n", gate + "      - name: event_type\n")
    )
    published = load_contracts(folder)
    catalog = open_catalog(door.settings)
    look()
    assert door.post(UA | {"gate": "C7"}).status_code == 422
    ensure_stream_tables(catalog, published["flight_events"], published)
    assert door.post(UA | {"gate": "C7"}).status_code == 422
    look()
    assert door.post(UA | {"gate": "C7"}).status_code == 202
    assert "gate" in door.get("/openapi.json").json()["components"]["schemas"]["flight_events"]["properties"]
    followed = door.gateway.streams.contracts["flight_events"]
    look()
    assert door.gateway.streams.contracts["flight_events"] is followed
    # Without its lake it goes on by what it knows.
    (door.settings.home / "catalog.db").write_text("no database")
    look()
    assert door.post(UA | {"gate": "C7"}).status_code == 202


def test_a_contract_that_cannot_be_read_keeps_no_other_from_being_followed(door, tmp_path):
    folder = tmp_path / "contracts"
    shutil.copytree(PROJECT / "contracts", folder)
    path = folder / "weather.odcs.yaml"
    path.write_text(path.read_text().replace("version: 1.0.0", "version: 1.1.0", 1))
    published = load_contracts(folder)
    catalog = open_catalog(door.settings)
    first, *_ = door.gateway.streams.contracts
    for name in (first, "weather"):
        ensure_stream_tables(catalog, published[name], published)
    with catalog.load_table(published[first].table).transaction() as transaction:
        transaction.set_properties({CONTRACT_PROPERTY: "of a later version", ID_PROPERTY: "another"})
    door.runner.run(door.gateway.streams.look())
    assert (first, door.gateway.streams.contracts["weather"].version) == ("flight_events", "1.1.0")


def test_nobody_writes_changes_of_a_database_but_the_database(doors, tmp_path, contracts):
    captured = load_contracts(captured_project(tmp_path / "project", {}).contracts_dir)
    door = doors(contracts | captured)
    assert door.post({"op": "d"}, path="/v1/streams/customers/events").status_code == 404
    assert "customers" not in door.get("/docs").text
