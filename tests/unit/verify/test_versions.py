"""What an earlier version took is right still, where the contract's mode lets a later one refuse it."""

import pytest

from freshdata.contracts import load_contract
from freshdata.lake.catalog import ensure_stream_tables, open_catalog
from freshdata.verify import ingest, topic
from stream_workers.batch import Batch
from stream_workers.bronze import BronzeWriter
from tests.unit.workers.test_bronze import Event

NARROWED = "minimum: 1, maximum: 9999"
TAIL = "      - name: tailnum\n"


@pytest.fixture
def version(instance, tmp_path):
    """Reads the flight contract, with edits, under a version, in the mode that allows most."""

    def read(number, *edits):
        text = (instance.contracts_dir / "flight_events.odcs.yaml").read_text()
        mode = "      - {property: compatibility, value: NONE}\n      - {property: maxFuture"
        for old, new in [("version: 1.0.0", f"version: {number}"), ("      - {property: maxFuture", mode), *edits]:
            assert old in text
            text = text.replace(old, new, 1)
        path = tmp_path / "flight_events.odcs.yaml"
        path.write_text(text)
        return load_contract(path)

    return read


@pytest.fixture
def verified(instance, monkeypatch):
    """The checks that fail over these records, which stand for the topic."""

    def verify(contract, records):
        monkeypatch.setattr(topic, "read_messages", lambda *_: iter([records]))
        findings, _ = ingest.verify_ingest(instance, open_catalog(instance), contract)
        return [finding.check for finding in findings if not finding.ok]

    return verify


def test_what_was_right_when_it_came_is_verified_as_such(instance, contracts, version, verified):
    first = version("1.0.0")
    writer = BronzeWriter(open_catalog(instance), first, contracts, "cluster")
    state = {0: writer.new_state(0)}

    def take(*events):
        batch = Batch()
        writer.processor(events, state, batch)
        writer.commit(batch)
        writer.follow(refresh=True)

    records = [Event(0, flight=5000), Event(1, flight=7), Event(2, flight=0)]
    take(*records)
    narrow = version("2.0.0", (NARROWED, "minimum: 1, maximum: 99"), (TAIL, TAIL + "        id: tail\n"))
    # Another id is another field, whatever the mode.
    with pytest.raises(Exception, match="another field needs another name"):
        ensure_stream_tables(open_catalog(instance), narrow, contracts)
    narrow = version("2.0.0", (NARROWED, "minimum: 1, maximum: 99"))
    ensure_stream_tables(open_catalog(instance), narrow, contracts)
    writer.follow(refresh=True)
    later = [Event(3, flight=8), Event(4, flight=5000)]
    take(*later)
    records += later
    assert verified(narrow, records) == []
    # And it still finds what is missing, whichever version would have taken it.
    missing = "every valid record is stored, or its key was stored before it"
    for lost in (Event(5, flight=9), Event(5, flight=5000)):
        assert missing in verified(narrow, [*records, lost])
