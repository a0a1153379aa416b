"""Erasing a person from the tables that a worker writes: rows, bytes, bounds, snapshots, tags and files."""

import fastavro
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr
from pyiceberg.expressions import EqualTo

from freshdata import forget
from freshdata.contracts import load_contracts
from freshdata.errors import ConfigError, ContractError, ForgottenError, LakeError
from freshdata.forgotten import Person
from freshdata.lake.catalog import open_catalog
from freshdata.lake.progress import read_progress
from freshdata.lake.tags import create_tag
from freshdata.privacy import Secret
from freshdata.settings import Settings
from stream_workers.batch import Batch
from stream_workers.bronze import BronzeWriter
from tests.people import CONTRACT, SECRET, encoded, visit
from tests.unit.workers.test_privacy import Record, ingest

PERSON = Person("lyon", "900004711")


@pytest.fixture
def lake(tmp_path, monkeypatch):
    """An instance with 90 visits in three commits, six of them the person's, and rejected ones."""
    (tmp_path / "contracts").mkdir()
    (tmp_path / "contracts" / "visits.odcs.yaml").write_text(CONTRACT)
    monkeypatch.setattr(forget.Forget, "manifest", {})
    secret = {"privacy_secret": SecretStr(SECRET)}
    settings = Settings().model_copy(update={"project": tmp_path, "home_override": tmp_path / "home", **secret})
    broken = [encoded(visit(0, email="none")), encoded(visit(0))[:-1], encoded(visit(1, email="none"))]
    for first in (0, 30, 60):
        ingest(settings, contract(settings), [*(visit(first + n) for n in range(30)), *(broken if not first else [])])
    return settings


def contract(settings):
    return load_contracts(settings.contracts_dir)["visits"]


def traces(settings):
    """Files that hold the person's hash, wherever it stands; bounds have its first half."""
    hashed, found = Secret(SECRET.encode()).hashed(PERSON.key), []
    for path in (settings.home / "warehouse").rglob("*"):
        if path.suffix == ".parquet":
            rows = pq.read_table(path).to_pylist()
            if any(row.get("customer") == hashed and row.get("shop") == PERSON.tenant for row in rows):
                found.append(path.name)
        elif path.suffix == ".avro":
            with path.open("rb") as file:
                entries = [entry["data_file"] for entry in fastavro.reader(file) if "data_file" in entry]
            gone = [
                each for each in entries if not (settings.home / each["file_path"].removeprefix("file://")).exists()
            ]
            if any(
                hashed[:16].encode() == bound["value"][:16] for each in gone for bound in each["lower_bounds"] or ()
            ):
                found.append(path.name)
    return found


def test_nothing_is_left_and_others_are_untouched(lake):
    catalog = open_catalog(lake)
    create_tag(catalog.load_table("bronze.visits"), "KEPT")
    erasing = forget.Forget(lake, PERSON)
    assert {found.table: found.rows for found in erasing.plan()} == {"bronze.visits": 6, "quarantine.visits": 2}
    assert traces(lake)
    outcome = erasing.run()
    assert traces(lake) == []
    assert outcome.rows == {"bronze.visits": 6, "quarantine.visits": 2}
    assert outcome.tags == ["bronze.visits@KEPT"]
    table = catalog.load_table("bronze.visits")
    rows = table.scan().to_arrow()
    assert rows.num_rows == 84
    hashed = Secret(SECRET.encode()).hashed(PERSON.key)
    assert {r["shop"] for r in rows.to_pylist() if r["customer"] == hashed} == {"turin", "gent"}
    done = read_progress(table).total()
    assert (done.consumed, done.accepted, done.duplicates, done.rejected) == (93, 84, 6, 3)
    payloads = catalog.load_table("quarantine.visits").scan().to_arrow().sort_by("offset")["payload"].to_pylist()
    assert [payload is None for payload in payloads] == [True, True, False]


def test_events_that_come_again_stay_away(lake):
    forget.Forget(lake, PERSON).run()
    writer = ingest(lake, contract(lake), [visit(300), visit(301), encoded(visit(315, email="none"))])
    assert writer.bronze.scan().to_arrow().num_rows == 85
    rejected = writer.quarantine.scan().to_arrow().to_pylist()
    assert [row["payload"] for row in rejected if row["offset"] >= 93] == [None]
    assert traces(lake) == []


def test_a_batch_that_was_made_before_is_not_committed_after(lake):
    of_worker = contract(lake)
    secret = Secret(SECRET.encode())
    writer = BronzeWriter(open_catalog(lake), of_worker, {"visits": of_worker}, "cluster", secret=secret)
    state, batch = writer.restore(0), Batch()
    record = Record(state.offset, encoded(visit(330)), b"v330")
    writer.processor([record], {0: state}, batch)
    forget.Forget(lake, PERSON).run()
    with pytest.raises(ForgottenError):
        writer.commit(batch)
    assert writer.follow(refresh=True)
    state, batch = writer.restore(0), Batch()
    writer.processor([record], {0: state}, batch)
    writer.commit(batch)
    assert writer.bronze.scan().to_arrow().num_rows == 84


def test_rows_that_only_an_older_snapshot_has_go_too(lake):
    table = open_catalog(lake).load_table("bronze.visits")
    table.delete(EqualTo("visit_id", "v0"))
    forget.Forget(lake, PERSON).run()
    assert traces(lake) == []


@pytest.mark.parametrize(("function", "calls"), [("erase", 1), ("begin_anew", 3), ("purge", 1), ("remove_files", 1)])
def test_after_an_interruption_it_goes_on(lake, monkeypatch, function, calls):
    plain, left = getattr(forget, function), [calls]

    def interrupted(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr(forget, function, interrupted)
    with pytest.raises(KeyboardInterrupt):
        forget.Forget(lake, PERSON).run()
    monkeypatch.setattr(forget, function, plain)
    outcome = forget.Forget(lake, PERSON).run()
    assert outcome.found == traces(lake) == []
    assert not list((lake.home / "forget").iterdir())


def test_it_fails_when_a_file_still_holds_a_trace(lake, monkeypatch):
    monkeypatch.setattr(forget, "purge", lambda *_: ([], 0, set()))
    with pytest.raises(LakeError, match="still hold a trace"):
        forget.Forget(lake, PERSON).run()


def test_what_cannot_be_is_refused(lake):
    with pytest.raises(ConfigError, match="there is no secret"):
        forget.Forget(lake.model_copy(update={"privacy_secret": None}), PERSON)
    path = lake.contracts_dir / "visits.odcs.yaml"
    path.write_text(CONTRACT.replace("{property: subjectField, value: customer}", "{property: maxFuture, value: PT1H}"))
    with pytest.raises(ContractError, match="no contract says whom"):
        forget.Forget(lake.model_copy(update={"home_override": lake.project / "empty"}), PERSON)
