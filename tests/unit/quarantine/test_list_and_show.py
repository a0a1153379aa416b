"""``freshdata quarantine list`` and ``show`` on a real lake."""

import json
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from freshdata.cli.main import app
from freshdata.errors import ContractError, QuarantineError
from freshdata.lake.catalog import QUARANTINE_SCHEMA, ensure_stream_tables, open_catalog
from freshdata.quarantine.records import REPLAYS_SCHEMA, record_replays

BEGIN = datetime(2013, 1, 1, 12, tzinfo=UTC)


def row(number, reason, payload=b"{}", **changes):
    at = BEGIN + timedelta(hours=number)
    return {
        "topic": "t", "partition": number % 2, "offset": number, "key": b"k", "payload": payload, "reason": reason,
        "contract_version": "1.0.0", "ingested_at": at, "ingestion_date": at.date(),
    } | changes  # fmt: skip


ROWS = [
    row(0, "JSON is malformed: invalid character (byte 7)", b"first"),
    row(1, "JSON is malformed: invalid character (byte 9)", b"second"),
    row(2, "Expected `int`, got `str` - at `$.flight`", b'{"flight": "9"}'),
    row(30, "JSON is malformed: invalid character (byte 0)", b"\xff[red]", key=None),
]


@pytest.fixture
def lake(instance, contracts, monkeypatch):
    """A catalog in which four flight events were rejected, on two days."""
    monkeypatch.setenv("FRESHDATA_HOME", str(instance.home))
    monkeypatch.setenv("COLUMNS", "200")
    catalog = open_catalog(instance)
    _, quarantine = ensure_stream_tables(catalog, contracts["flight_events"], contracts)
    for rows in (ROWS[:2], ROWS[2:]):
        quarantine.append(pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA))
    return catalog


def run(*arguments):
    result = CliRunner().invoke(app, ["quarantine", *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def lines(*arguments):
    return [json.loads(line) for line in run("show", "flight_events", *arguments, "--json").stdout.splitlines()]


def sent_again(catalog, contracts, number, *, corrected=False):
    """Note that an event was sent again."""
    of = next(row for row in ROWS if row["offset"] == number)
    note = {name: of[name] for name in ("partition", "offset", "ingested_at")}
    note |= {"replayed_at": BEGIN + timedelta(days=2), "to_partition": 1, "to_offset": 99, "corrected": corrected}
    record_replays(catalog, contracts["flight_events"], pa.Table.from_pylist([note], schema=REPLAYS_SCHEMA))


def test_events_are_counted_by_reason(lake, contracts):
    sent_again(lake, contracts, 1)
    sent_again(lake, contracts, 1)
    malformed, wrong_type = json.loads(run("list", "flight_events", "--json").stdout)
    assert malformed == {
        "stream": "flight_events",
        "reason": "JSON is malformed: invalid character",
        "events": 3,
        "waiting": 2,
        "first": "2013-01-01T12:00:00+00:00",
        "newest": "2013-01-02T18:00:00+00:00",
        "example": "0:30",
    }
    assert (wrong_type["reason"], wrong_type["events"]) == ("Expected `int`, got `str` - at `$.flight`", 1)


def test_a_stream_without_rejects_is_one_calm_line(lake):
    shown = run("list").stdout
    assert "JSON is malformed: invalid" in shown
    assert "weather: no event was rejected." in shown
    assert run("show", "weather").stdout == "weather: no event was rejected.\n"
    assert json.loads(run("list", "weather", "--json").stdout) == []
    assert run("show", "weather", "--json").stdout == ""


def test_the_newest_are_shown_first(lake):
    shown = run("show", "flight_events", "--limit", "2").stdout
    assert shown.index("0:30") < shown.index("0:2 ")
    assert "\\xff[red]" in shown
    assert '"flight": "9"' in shown
    assert "2 older ones" in shown
    assert "first" not in shown


def test_they_are_chosen_by_place_and_by_reason(lake):
    assert [line["at"] for line in lines()] == ["0:30", "0:2", "1:1", "0:0"]
    assert [line["at"] for line in lines("0:0", "1:1")] == ["1:1", "0:0"]
    assert [line["at"] for line in lines("--reason", "$.FLIGHT")] == ["0:2"]
    # As the list writes it, and as the event has it.
    assert len(lines("--reason", "malformed: invalid character")) == 3
    assert [line["at"] for line in lines("--reason", "(byte 9)")] == ["1:1"]


def test_what_was_sent_again_says_so(lake, contracts):
    sent_again(lake, contracts, 2, corrected=True)
    [line] = lines("0:2")
    assert (line["sent_again_at"], line["sent_again_as"]) == ("2013-01-03T12:00:00+00:00", "1:99")
    assert "sent again corrected, 2013-01-03 12:00:00, as 1:99" in run("show", "flight_events", "0:2").stdout
    assert lines("0:0")[0]["sent_again_at"] is None


def test_a_re_created_topic_s_event_at_the_same_place_is_another_one(lake, contracts):
    sent_again(lake, contracts, 0)
    again = row(0, "the message is empty", b"", ingested_at=BEGIN + timedelta(days=9))
    lake.load_table("quarantine.flight_events").append(pa.Table.from_pylist([again], schema=QUARANTINE_SCHEMA))
    assert [(line["payload"], line["sent_again_as"]) for line in lines("0:0")] == [("", None), ("first", "1:99")]


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (("list", "nothing"), ContractError, "no stream contract"),
        (("show", "airlines"), ContractError, "no stream contract"),
        (("show", "flight_events", "0:5", "0:0", "9:9"), QuarantineError, "no rejected event is at 0:5, 9:9."),
        (("show", "flight_events", "five"), QuarantineError, "'five' is no event's place."),
        (("show", "flight_events", "--reason", "gate"), QuarantineError, "with 'gate' in it"),
        (("replay", "flight_events", "--from", "no/file"), QuarantineError, "no/file cannot be read"),
    ],
)
def test_what_does_not_exist_is_an_error_with_a_remedy(lake, arguments, error, said):
    with pytest.raises(error) as raised:
        run(*arguments)
    assert said in raised.value.message
    assert raised.value.remedy


@pytest.mark.parametrize("options", [(), ("--all", "0:1"), ("--all", "--from", "-"), ("--all", "--again")])
def test_a_replay_needs_one_clear_choice(lake, options):
    assert run("replay", "flight_events", *options).exit_code == 2


def test_maintenance_keeps_what_was_sent_again(lake, contracts):
    for _ in range(11):
        sent_again(lake, contracts, 2)
    done = json.loads(CliRunner().invoke(app, ["maintain", "--json"]).stdout)
    [beside] = [one for one in done if one["table"] == "quarantine.flight_events__replays"]
    assert beside["compaction"]["files_after"] == 1
    assert lines("0:2")[0]["sent_again_as"] == "1:99"
