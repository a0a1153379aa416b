"""What a request may look like, and what it is answered."""

import asyncio
import gzip
import json

import jsonschema
import pytest

from serving_api.gateway import body
from serving_api.gateway.body import MAX_BODY, MAX_EVENTS
from serving_api.gateway.kafka import Failure
from tests.streams import START, flight_event

UA, AA = flight_event(0), flight_event(1)  # Of these tenants.


def mine(count):
    return [flight_event(3 * number) for number in range(count)]


def lines(events):
    return "\n".join(json.dumps(event) for event in events).encode()


@pytest.mark.parametrize(
    ("events", "headers"),
    [
        (mine(3), {}),
        (json.dumps(mine(3), indent=2).encode(), {"Content_Type": "application/json; charset=utf-8"}),
        (lines(mine(3)), {"Content_Type": "application/x-ndjson"}),
        (b"\n\r\n" + lines(mine(3)).replace(b"\n", b"\r\n\n") + b"\n", {"Content_Type": "application/ndjson"}),
        (gzip.compress(lines(mine(3))), {"Content_Type": "application/x-ndjson", "Content_Encoding": "gzip"}),
    ],
)
def test_events_come_as_an_array_or_as_lines_packed_or_not(door, events, headers):
    answer = door.post(events, **headers)
    assert (answer.status_code, answer.json()) == (202, {"accepted": 3, "rejected": 0, "errors": []})
    assert door.values == mine(3)


def test_an_event_is_written_as_it_came_under_its_key_and_the_present(door, contracts):
    written = b'{ "distance" : 719.0e0 ,' + json.dumps(UA).encode()[1:]
    event = json.dumps(UA).encode().replace(b'"dest": "ORD"', b'"dest"  :"\\u004fRD"')
    assert door.post(b"  " + event + b"\n").status_code == 202
    assert door.writer.written == [
        (contracts["flight_events"].rules.topic, UA["event_id"].encode(), event, int(START.timestamp() * 1000))
    ]
    assert door.post(written).status_code == 422


def test_of_a_batch_the_good_ones_are_written_and_the_answer_says_which_were_not(door):
    events = [UA, UA | {"flight": "7"}, AA, UA | {"surprise": 1}, {}, UA | {"event_time": "2013-02-05T12:00:00Z"}]
    answer = door.post(events)
    assert answer.status_code == 207
    assert door.values == [UA]
    told = answer.json()
    assert (told["accepted"], told["rejected"]) == (1, 5)
    assert [(error["index"], error["code"], error["field"]) for error in told["errors"]] == [
        (1, "contract", "flight"),
        (2, "tenant", "tenant_id"),
        (3, "contract", "surprise"),
        (4, "contract", "event_id"),
        (5, "contract", "event_time"),
    ]
    assert "Expected `int`, got `str`" in told["errors"][0]["reason"]


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"", {}, 400),
        (b"[]", {}, 400),
        (b" \n", {"Content_Type": "application/x-ndjson"}, 400),
        (b"{", {}, 400),
        (b"[{}", {}, 400),
        (b"7", {}, 400),
        (b'"x"', {}, 400),
        ([UA, 5], {}, 400),
        (b"[" * 100_000, {}, 400),
        (b"{}{}", {}, 400),
        (b"\xff", {}, 400),
        ({}, {}, 422),
        ([{}, {}], {}, 422),
        (b"5\n{", {"Content_Type": "application/x-ndjson"}, 422),
        (AA, {}, 403),
        (UA, {"Content_Type": "text/csv"}, 415),
        (UA, {"Content_Type": ""}, 415),
        (UA, {"Content_Encoding": "br"}, 415),
        (UA, {"Content_Encoding": "gzip"}, 400),
        (gzip.compress(json.dumps(UA).encode())[:-9], {"Content_Encoding": "gzip"}, 400),
        (gzip.compress(json.dumps(UA).encode()) * 2, {"Content_Encoding": "gzip"}, 400),
        (gzip.compress(b"") + b"x" * (MAX_BODY + 1), {"Content_Encoding": "gzip", "Content_Length": "9"}, 413),
        (gzip.compress(bytes(MAX_BODY + 1)), {"Content_Encoding": "gzip"}, 413),
        (b" " * (MAX_BODY + 1), {}, 413),
        (b"[" + b"{}," * MAX_EVENTS + b"{}]", {}, 413),
        (b"1\n" * (MAX_EVENTS + 1), {"Content_Type": "application/x-ndjson"}, 413),
        (b"\n" * (2 * MAX_EVENTS + 1), {"Content_Type": "application/x-ndjson"}, 413),
        (UA, {"Authorization": ""}, 401),
        (UA, {"Authorization": "Bearer"}, 401),
        (UA, {"Authorization": "Bearer fdk_0123456789ab_" + "x" * 43}, 401),
        (UA, {"Authorization": b"Bearer \xff\xfe"}, 401),
        (UA, {"Idempotency_Key": ""}, 400),
        (UA, {"Idempotency_Key": "x" * 256}, 400),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong_with_it(door, content, headers, status):
    answer = door.post(content, **headers)
    assert answer.status_code == status, answer.text
    assert door.writer.written == []
    told = answer.json()
    assert told["errors"] if "errors" in told else told["detail"]


@pytest.mark.parametrize("path", ["/v1/streams/nothing/events", "/v1/streams/airlines/events", "/v1/streams/", "/v2"])
def test_what_is_not_there_is_404(door, path):
    assert door.post(UA, path=path).status_code == 404


def test_another_method_is_405(door):
    assert door.get("/v1/streams/flight_events/events").status_code == 405


def test_a_body_that_says_it_is_too_large_is_not_read(door):
    answer = door.post(b"{}", Content_Length=str(MAX_BODY + 1))
    assert answer.status_code == 413
    assert answer.headers["Connection"] == "close"


def test_a_body_that_does_not_come_is_given_up(door, monkeypatch):
    monkeypatch.setattr(body, "READ_SECONDS", 0.05)

    async def slowly():
        yield b"["
        await asyncio.sleep(60)

    answer = door.post(slowly())
    assert answer.status_code == 408
    assert answer.headers["Connection"] == "close"


def test_without_kafka_nothing_waits(door):
    door.writer.available = False
    answer = door.post(UA)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert door.get("/readyz").status_code == 503
    assert door.get("/healthz").status_code == 200


def test_what_kafka_may_take_later_makes_the_whole_request_be_sent_again(door):
    door.writer.problem = Failure("timed out", final=False)
    answer = door.post([UA, {}])
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert [error["code"] for error in answer.json()["errors"]] == ["unavailable", "contract"]


def test_what_kafka_never_takes_is_an_error_of_the_event(door):
    door.writer.problem = Failure("Broker: Message size too large", final=True)
    answer = door.post(UA)
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"index": 0, "code": "kafka", "field": None, "reason": "Broker: Message size too large"}
    ]


def test_large_and_small_requests_take_turns(door):
    """A small request that comes while a large one is judged does not wait for all of it."""
    done = []

    async def post(name, content):
        assert (await door.send(content)).status_code == 202
        done.append(name)

    async def both():
        large = [UA | {"event_id": f"UA-{number:06d}"} for number in range(9_000)]
        await asyncio.gather(post("large", large), post("small", UA))

    door.runner.run(both())
    assert done == ["small", "large"]
    assert len(door.writer.written) == 9_001


def test_the_interface_describes_itself_from_the_contracts(door, contracts):
    described = door.get("/openapi.json").json()
    streams = [name for name, contract in contracts.items() if contract.stream]
    assert list(described["paths"]) == [f"/v1/streams/{name}/events" for name in streams]
    for schema in described["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    events = jsonschema.Draft202012Validator(described["components"]["schemas"]["flight_events"])
    assert events.is_valid(UA)
    assert not events.is_valid(UA | {"flight": 10_000})
    outcome = jsonschema.Draft202012Validator(described["components"]["schemas"]["Outcome"])
    outcome.validate(door.post([UA, {}]).json())
    page = door.get("/docs")
    assert all(f"/v1/streams/{name}/events" in page.text for name in streams)
    # It works where there is no Internet.
    assert "src=" not in page.text
    assert "https://" not in page.text
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_metrics_count_requests_and_events(door):
    door.post([UA, AA])
    door.post(UA, Authorization="Bearer x", path="/v1/streams/guessed/events")
    text = door.get("/metrics").text
    for sample in (
        'freshdata_gateway_requests_total{status="207",stream="flight_events"} 1.0',
        'freshdata_gateway_requests_total{status="401",stream=""} 1.0',
        'freshdata_gateway_events_total{outcome="accepted",stream="flight_events",tenant="UA"} 1.0',
        'freshdata_gateway_events_total{outcome="rejected",stream="flight_events",tenant="UA"} 1.0',
        "freshdata_gateway_kafka_up 1.0",
    ):
        assert sample in text
