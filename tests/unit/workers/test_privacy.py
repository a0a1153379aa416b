"""Personal data on its way into Bronze and quarantine: nothing of it is stored in clear."""

import pyarrow.parquet as pq
import pytest

from freshdata.contracts import load_contract
from freshdata.contracts.evolution import compare
from freshdata.errors import ConfigError, ContractError
from freshdata.lake.catalog import open_catalog
from freshdata.privacy import SEALED, Protector, Secret, load_secret
from freshdata.quarantine.events import Quarantine
from freshdata.quarantine.payload import readable
from freshdata.settings import Settings
from stream_workers.batch import BEGINNING_OF_TIME, Batch, PartitionState
from stream_workers.bronze import BronzeWriter
from tests.people import CONTRACT, SECRET, START, encoded, visit


class Record:
    """A message of partition 0."""

    def __init__(self, offset, value, key=None):
        self._offset, self._value, self._key = offset, value, key

    def key(self):
        return self._key

    def value(self):
        return self._value

    def partition(self):
        return 0

    def offset(self):
        return self._offset

    def timestamp(self):
        return 1, int(START.timestamp() * 1000) + 30 * 86_400_000


@pytest.fixture
def contract(tmp_path):
    return written(tmp_path, CONTRACT)


def written(folder, text):
    path = folder / "visits.odcs.yaml"
    path.write_text(text)
    return load_contract(path)


def ingest(instance, contract, events, secret=SECRET):
    writer = BronzeWriter(
        open_catalog(instance),
        contract,
        {contract.name: contract},
        "cluster",
        secret=secret and Secret(secret.encode()),
    )
    batch, state = Batch(), writer.restore(0) or PartitionState(0, BEGINNING_OF_TIME, writer.empty_index())
    key = contract.rules.dedupe_key[0]
    records = [
        Record(state.offset + number, event, None)
        if isinstance(event, bytes)
        else Record(state.offset + number, encoded(event), str(event[key]).encode())
        for number, event in enumerate(events)
    ]
    writer.processor(records, {0: state}, batch)
    writer.commit(batch)
    return writer


def test_each_field_is_stored_as_the_contract_says(instance, contract):
    writer = ingest(instance, contract, [visit(0), visit(5), visit(1, email=None)])
    rows = writer.bronze.scan().to_arrow().sort_by("_offset").to_pylist()
    assert "note" not in rows[0]
    assert rows[0]["customer"] == rows[1]["customer"] != rows[2]["customer"]
    assert len(rows[0]["customer"]) == 32
    assert Secret(SECRET.encode()).text(rows[0]["email"]) == "person900004711@example.org"
    assert Secret(b"another secret of thirty-two bytes").text(rows[0]["email"]) is None
    assert rows[0]["email"] == rows[1]["email"]
    assert rows[2]["email"] is None
    assert rows[0]["spent"] is not None


def test_no_file_holds_anything_in_clear(instance, contract):
    broken = encoded(visit(1, email="no address of person900004712"))
    ingest(instance, contract, [visit(0), broken, b"person900004713@example.org {"])
    for path in instance.home.rglob("*"):
        if path.is_file():
            # What Parquet has compressed is looked at as it is read.
            parquet = path.suffix == ".parquet"
            content = str(pq.read_table(path).to_pylist()).encode() if parquet else path.read_bytes()
            assert not any(text in content for text in (b"person9000047", b"secret of", b"900004711")), path


def test_a_rejected_event_is_sealed_and_opened_by_the_secret_alone(instance, contract):
    value = encoded(visit(1, email="person900004712"))
    ingest(instance, contract, [value])
    catalog = open_catalog(instance)
    stored = catalog.load_table("quarantine.visits").scan().to_arrow().to_pylist()
    assert stored[0]["payload"].startswith(SEALED)
    assert "person" not in stored[0]["reason"]
    assert "sealed" in readable(stored[0]["payload"])
    opened = Quarantine(catalog, contract, Secret(SECRET.encode()))
    assert [event.payload for event in opened.events(opened.select())] == [value]
    wrong = Quarantine(catalog, contract, Secret(b"x" * 32))
    with pytest.raises(ConfigError, match="another secret"):
        list(wrong.events(wrong.select()))


def test_a_replay_writes_the_very_same_rows(tmp_path, contract):
    tables = []
    for name in ("one", "two"):
        writer = ingest(Settings().for_home(tmp_path / name), contract, [visit(0), visit(1), b"{broken"])
        bronze = writer.bronze.scan().to_arrow().sort_by("_offset")
        tables.append((bronze, writer.quarantine.scan().to_arrow()))
    assert tables[0] == tables[1]


def test_repeats_are_found_by_a_key_that_is_hashed(instance, tmp_path):
    text = CONTRACT.replace(
        "primaryKey: true}",
        "primaryKey: true, classification: personal, customProperties: [{property: protection, value: hash}]}",
    )
    contract = written(tmp_path, text)
    ingest(instance, contract, [visit(0), visit(0), visit(1)])
    # Another worker, which knows the stored keys only.
    writer = ingest(instance, contract, [visit(1), visit(2)])
    assert writer.bronze.scan().to_arrow().num_rows == 3


def test_unknown_fields_that_are_kept_are_tokens(instance, tmp_path):
    kept = CONTRACT.replace(
        "- {property: tenantField", "- {property: unknownFieldPolicy, value: keep}\n      - {property: tenantField"
    )
    writer = ingest(instance, written(tmp_path, kept), [visit(0, phone="0123")])
    [extra] = writer.bronze.scan().to_arrow()["_extra"].to_pylist()
    assert "0123" not in extra
    assert Secret(SECRET.encode()).text(extra) == '{"phone":"0123"}'


def test_without_a_secret_nothing_begins(instance, contract):
    with pytest.raises(ConfigError, match="protects customer, email, note") as refused:
        ingest(instance, contract, [], secret=None)
    assert "FRESHDATA_PRIVACY_SECRET_FILE" in refused.value.remedy
    assert not open_catalog(instance).list_namespaces()


def test_another_secret_is_refused(instance, contract):
    ingest(instance, contract, [visit(0)])
    with pytest.raises(ConfigError, match="made with another privacy secret") as refused:
        ingest(instance, contract, [visit(1)], secret="another secret of thirty-two bytes")  # noqa: S106 - of a test.
    assert "freshdata replay visits" in refused.value.remedy


def test_a_secret_is_long_enough(instance, tmp_path):
    path = tmp_path / "secret"
    path.write_text("short\n")
    with pytest.raises(ConfigError, match="has 5 bytes"):
        load_secret(instance.model_copy(update={"privacy_secret_file": path}))
    path.write_text(SECRET + "\n")
    read = load_secret(instance.model_copy(update={"privacy_secret_file": path}))
    assert read.hashed("a") == Secret(SECRET.encode()).hashed("a")


HASHED = "classification: personal, customProperties: [{property: protection, value: hash}]}"


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("value: hash", "value: encrypt", "protection is 'encrypt'"),
        ("classification: personal\n        customProperties", "customProperties", "not classified"),
        ("shop, logicalType: string, ", f"shop, logicalType: string, {HASHED[:-1]}, ", "the tenant"),
        ('"decimal(10,2)"}', f'"decimal(10,2)", {HASHED}', "cannot be protected by hash"),
        ("subjectField, value: customer", "subjectField, value: spent", "subjectField"),
        ("subjectField, value: customer", "subjectField, value: note", "needed in Bronze"),
    ],
)
def test_a_protection_that_cannot_be_is_refused(tmp_path, before, after, message):
    with pytest.raises(ContractError, match=message):
        written(tmp_path, CONTRACT.replace(before, after, 1))


def test_a_published_protection_stays(tmp_path, contract):
    changed = written(tmp_path, CONTRACT.replace("value: tokenize", "value: hash").replace("1.0.0", "1.1.0"))
    assert [change.field for change in compare(contract, changed) if not change.compatible] == ["email"]


@pytest.mark.parametrize(
    ("reason", "wanted"),
    [
        ("Invalid enum value 'Ann O'Hara' - at `$.kind`", "Invalid enum value '…' - at `$.kind`"),
        ("Invalid enum value 'Ann " + "a" * 480, "Invalid enum value '…'"),
        ("Could not convert \"Ann O'Hara\"\n'and' with type str - at `$.kind`", "Could not convert '…'"),
        ("the message key is not the event's kind", "the message key is not the event's kind"),
    ],
)
def test_a_reason_quotes_nothing_of_the_event(reason, wanted):
    assert "Ann" not in Protector.reason(reason)
    assert Protector.reason(reason).startswith(wanted)
