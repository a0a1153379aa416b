"""The contract in the table: what publishing it changes, what is refused, and publications that race."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from freshdata.cli.contract import app
from freshdata.contracts import load_contract
from freshdata.errors import ContractError, EvolutionError
from freshdata.lake.catalog import ensure_stream_tables, open_catalog
from freshdata.lake.commits import commit_batch
from freshdata.lake.files import write_data_files
from freshdata.lake.progress import PartitionProgress, Progress
from freshdata.lake.publication import followed_contract, published_contract
from tests.bronze import append, flight_event

BRONZE = "bronze.flight_events"
LAST_FIELD = "      - name: distance\n"
GATE = "      - {name: gate, logicalType: string, physicalType: string}\n"


@pytest.fixture
def version(instance, tmp_path):
    """Reads the flight contract, with edits, under a version."""

    def read(number, *edits):
        text = (instance.contracts_dir / "flight_events.odcs.yaml").read_text()
        for old, new in [("version: 1.0.0", f"version: {number}"), *edits]:
            assert old in text
            text = text.replace(old, new, 1)
        path = tmp_path / "flight_events.odcs.yaml"
        path.write_text(text)
        return load_contract(path)

    return read


def test_a_table_says_which_contract_it_goes_by(instance, contracts, version):
    catalog = open_catalog(instance)
    own = contracts["flight_events"]
    bronze, quarantine = ensure_stream_tables(catalog, own, contracts)
    assert published_contract(bronze) == own
    assert followed_contract(bronze, own) is own
    assert published_contract(quarantine) is None
    at = bronze.metadata_location
    again, _ = ensure_stream_tables(catalog, own, contracts)
    assert again.metadata_location == at
    newer = version("1.1.0", (LAST_FIELD, GATE + LAST_FIELD))
    ensure_stream_tables(catalog, newer, contracts)
    # A process that still has the older file neither undoes it nor fails.
    bronze, _ = ensure_stream_tables(catalog, own, contracts)
    assert followed_contract(bronze, own) == newer
    assert followed_contract(bronze, replace(own, name="rebuilt")).table == "bronze.rebuilt"


def test_a_lookup_s_column_that_widens_widens_in_bronze_though_the_stream_s_contract_is_the_same(instance, contracts):
    catalog, own = open_catalog(instance), contracts["flight_events"]
    ensure_stream_tables(catalog, own, contracts)
    [name] = contracts["airlines"].primary_key
    column = next(column for column in contracts["airlines"].columns if column.name != name)

    def with_codes(kind):
        codes = replace(column, name="code", type=kind)
        lookup = replace(contracts["airlines"], columns=(*contracts["airlines"].columns, codes))
        [enrichment] = own.rules.enrichments
        rules = replace(own.rules, enrichments=(replace(enrichment, columns={"code": "carrier_code"}),))
        return replace(own, stream=rules), contracts | {"airlines": lookup}

    catalog.drop_table(BRONZE)
    for kind in (pa.int32(), pa.int64()):
        stream, all_contracts = with_codes(kind)
        bronze, _ = ensure_stream_tables(catalog, stream, all_contracts)
        assert bronze.schema().as_arrow().field("carrier_code").type == kind


def test_columns_are_widened_and_relaxed_and_old_rows_stay(instance, contracts, version):
    catalog = open_catalog(instance)
    append(catalog, "flight_events", [flight_event(date(2013, 1, 5), number) for number in range(3)])
    before = catalog.load_table(BRONZE)
    wider = version(
        "1.1.0",
        ("physicalType: int\n        required: true\n        logicalTypeOptions: {minimum: 1, maximum: 9999}",
         "physicalType: bigint\n        required: true\n        logicalTypeOptions: {minimum: 1}"),
        ("FAA code).\n        logicalType: string\n        physicalType: string\n        required: true",
         "FAA code).\n        logicalType: string\n        physicalType: string\n        required: false"),
        ("value: [tailnum]", "value: [dest, flight]"),
        ("unknownFieldPolicy, value: quarantine", "unknownFieldPolicy, value: keep"),
        (LAST_FIELD, GATE + LAST_FIELD),
    )  # fmt: skip
    after, _ = ensure_stream_tables(catalog, wider, contracts)
    schema = after.schema()
    assert (str(schema.find_type("flight")), schema.find_field("origin").required) == ("long", False)
    assert (str(schema.find_type("gate")), str(schema.find_type("_extra"))) == ("string", "string")
    names = [schema.find_column_name(field.source_id) for field in after.sort_order().fields]
    assert names == ["dest", "flight", "event_time"]
    ids = {field.name: field.field_id for field in schema.fields}
    assert {field.name: field.field_id for field in before.schema().fields}.items() <= ids.items()
    rows = after.scan().to_arrow()
    assert rows["flight"].type == pa.int64()
    assert (rows["flight"].to_pylist(), rows["gate"].null_count) == ([0, 1, 2], 3)
    big = flight_event(
        date(2013, 1, 5), 3, flight=2**40, origin=None, gate="C1", _extra='{"x":1}', _kafka_partition=0, _offset=3
    )
    table = pa.Table.from_pylist([big], schema=after.schema().as_arrow())
    done = Progress("cluster", "flight_events", {0: PartitionProgress(4, accepted=1)})
    commit_batch(after, write_data_files(after, table), {0: 3}, done)
    stored = {row["_offset"]: row for row in catalog.load_table(BRONZE).scan().to_arrow().to_pylist()}
    assert (stored[3]["flight"], stored[3]["origin"], stored[3]["_extra"]) == (2**40, None, '{"x":1}')
    assert stored[0]["origin"] == "EWR"


def test_a_column_that_the_table_has_with_another_type_is_refused(instance, contracts, version):
    catalog = open_catalog(instance)
    bronze, _ = ensure_stream_tables(catalog, contracts["flight_events"], contracts)
    with bronze.update_schema() as update:  # As another program may do.
        update.add_column("gate", bronze.schema().find_type("flight"))
    with pytest.raises(EvolutionError, match="gate: type: the table has int, the contract string"):
        ensure_stream_tables(catalog, version("1.1.0", (LAST_FIELD, GATE + LAST_FIELD)), contracts)
    assert published_contract(catalog.load_table(BRONZE)).version == "1.0.0"


def test_only_streams_are_published(instance, monkeypatch):
    monkeypatch.setenv("FRESHDATA_HOME", str(instance.home))
    for name, complaint in (("airlines", "is a lookup"), ("nothing", "there is no such contract")):
        for command in ("diff", "publish"):
            error = CliRunner().invoke(app, [command, name]).exception
            assert isinstance(error, ContractError)
            assert complaint in str(error)
    before = CliRunner().invoke(app, ["diff", "weather"])
    assert (before.exit_code, before.stdout) == (0, "weather: nothing is published yet.\n")
    outcome = json.loads(CliRunner().invoke(app, ["publish", "weather", "--json"]).stdout)
    versions = {"contract": "weather", "file": "1.0.0", "published": "1.0.0", "before": None}
    assert outcome == versions | {"publishable": True, "schema": None, "changes": []}
    assert CliRunner().invoke(app, ["diff", "weather"]).stdout == "weather: no difference.\n"


PUBLISH = """
import sys, time
from pathlib import Path
from freshdata.contracts import load_contract, load_contracts
from freshdata.errors import EvolutionError
from freshdata.lake.catalog import ensure_stream_tables, open_catalog
from freshdata.settings import load_settings
settings = load_settings()
contracts, catalog = load_contracts(settings.contracts_dir), open_catalog(settings)
contract = load_contract(Path(sys.argv[2]))
while time.time() < float(sys.argv[1]):
    pass
try:
    ensure_stream_tables(catalog, contract, contracts)
    print("published")
except EvolutionError as error:
    print(error)
"""
FIELDS = [("gate", "string"), ("taxi", "int"), ("seats", "bigint"), ("fuel", "double")]


@pytest.mark.parametrize("versions", [("1.1.0",) * 4, ("1.1.0", "1.2.0", "1.3.0", "1.4.0")])
def test_of_publications_that_race_none_is_overwritten(instance, contracts, environment, tmp_path, versions):
    catalog = open_catalog(instance)
    base = (instance.contracts_dir / "flight_events.odcs.yaml").read_text()
    ensure_stream_tables(catalog, contracts["flight_events"], contracts)
    start = str(time.time() + 5)
    racers = []
    for (name, kind), version in zip(FIELDS, versions, strict=True):
        path = tmp_path / f"{name}.odcs.yaml"
        field = f"      - {{name: {name}, physicalType: {kind}}}\n"
        path.write_text(base.replace("version: 1.0.0", f"version: {version}").replace(LAST_FIELD, field + LAST_FIELD))
        racers.append(
            subprocess.Popen(
                [sys.executable, "-c", PUBLISH, start, str(path)],
                env=environment(instance),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    answers = [racer.communicate(timeout=120) for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 4, answers
    table = catalog.load_table(BRONZE)
    published = published_contract(table)
    names = {column.name for column in published.columns}
    assert names <= set(table.schema().column_names)
    followed = [name for (name, _), (out, _) in zip(FIELDS, answers, strict=True) if out == "published\n"]
    # A version older than the published one is not refused: its worker would go by the newer one.
    ahead = [n for n, (name, _) in enumerate(FIELDS) if name in names]
    assert len(ahead) == 1
    winner = FIELDS[ahead[0]][0]
    assert winner in followed
    for (name, _), version, (out, _) in zip(FIELDS, versions, answers, strict=True):
        if name != winner and version >= versions[ahead[0]]:
            assert f"{winner}: removed: is published and not in the file" in out
    ids = [field.field_id for field in table.schema().fields]
    assert len(ids) == len(set(ids))


def test_a_publication_survives_commits_of_rows_and_loses_none(instance, contracts, tmp_path):
    catalog, mine = open_catalog(instance), open_catalog(instance)
    append(catalog, "flight_events", [flight_event(date(2013, 1, 5), number) for number in range(3)])
    table = mine.load_table(BRONZE)
    path = tmp_path / "flight_events.odcs.yaml"
    base = (instance.contracts_dir / "flight_events.odcs.yaml").read_text()
    path.write_text(base.replace("version: 1.0.0", "version: 1.1.0").replace(LAST_FIELD, GATE + LAST_FIELD))
    # Held since before the publication, as by a worker that has written its files by then.
    held = open_catalog(instance).load_table(BRONZE)
    ensure_stream_tables(catalog, load_contract(path), contracts)
    old = table.scan().to_arrow()
    files = write_data_files(held, old)
    commit_batch(held, files, {0: 3}, Progress("cluster", "flight_events", {0: PartitionProgress(6, accepted=3)}))
    rows = open_catalog(instance).load_table(BRONZE).scan().to_arrow()
    assert rows.num_rows == 6
    assert rows["gate"].null_count == 6
    path.write_text(base.replace("version: 1.0.0", "version: 1.2.0").replace(LAST_FIELD, "      - name: miles\n"))
    with pytest.raises(EvolutionError, match="distance: removed"):
        ensure_stream_tables(catalog, load_contract(path), contracts)


def test_publications_and_commits_of_rows_at_once_all_happen(instance, contracts, version):
    ensure_stream_tables(open_catalog(instance), contracts["flight_events"], contracts)
    names = [f"field_{number}" for number in range(6)]

    def write():
        bronze = open_catalog(instance).load_table(BRONZE)
        for number in range(12):
            row = flight_event(date(2013, 1, 5), number, _kafka_partition=0, _offset=number)
            rows = pa.Table.from_pylist([row], schema=bronze.schema().as_arrow())
            done = Progress("cluster", "flight_events", {0: PartitionProgress(number + 1, accepted=1)})
            commit_batch(bronze, write_data_files(bronze, rows), {0: number}, done)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        catalog = open_catalog(instance)
        for number in range(len(names)):
            fields = "".join(f"      - {{name: {name}, physicalType: string}}\n" for name in names[: number + 1])
            ensure_stream_tables(catalog, version(f"1.{number + 1}.0", (LAST_FIELD, fields + LAST_FIELD)), contracts)
        writing.result()
    table = open_catalog(instance).load_table(BRONZE)
    assert published_contract(table).version == "1.6.0"
    assert sorted(table.scan().to_arrow()["_offset"].to_pylist()) == list(range(12))
    assert set(names) <= set(table.schema().column_names)
