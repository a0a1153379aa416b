"""Whatever is sent, the gateway answers; and what it takes, the stream's worker takes."""

import gzip
import json

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freshdata.contracts.decode import Decoder
from tests.streams import flight_event

PATHS = ["/v1/streams/flight_events/events", "/v1/streams/weather/events", "/v1/streams/x/events", "/v1/webhooks/a/b"]
TYPES = ["application/json", "application/x-ndjson", "text/plain", ""]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
NEARLY = st.builds(
    lambda number, changes, gone: {k: v for k, v in (flight_event(number) | changes).items() if k != gone},
    st.integers(0, 50),
    st.dictionaries(st.sampled_from([*flight_event(0), "more"]), JSON, max_size=2),
    st.sampled_from(["", *flight_event(0)]),
)
EVENTS = st.one_of(NEARLY, st.builds(lambda number: flight_event(3 * number), st.integers(0, 50)), JSON)


@st.composite
def bodies(draw):
    """Events in some form, perhaps with a few bytes of it changed."""
    events = draw(st.lists(EVENTS, max_size=6))
    form = draw(st.integers(0, 3))
    if form == 0:
        body = draw(st.binary(max_size=200))
    elif form == 1:
        body = b"\n".join(json.dumps(event).encode() for event in events)
    else:
        body = json.dumps(events if form == 2 or not events else events[0]).encode()
    if body and draw(st.booleans()):
        at = draw(st.integers(0, len(body) - 1))
        body = body[:at] + draw(st.binary(max_size=3)) + body[at + draw(st.integers(0, 3)) :]
    return gzip.compress(body) if draw(st.booleans()) else body


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=bodies(),
    path=st.sampled_from(PATHS),
    headers=st.fixed_dictionaries(
        {"Content_Type": st.sampled_from(TYPES), "Content_Encoding": st.sampled_from(["", "gzip", "identity", "x"])},
        optional={"Idempotency_Key": st.binary(max_size=20)},
    ),
)
def test_every_request_is_answered_and_what_is_taken_the_worker_takes(door, contracts, body, path, headers):
    door.writer.written.clear()
    answer = door.post(body, path=path, **headers)
    assert answer.status_code in {202, 207, 400, 403, 404, 415, 422}, answer.text
    told = answer.json()
    written = door.writer.written
    if "errors" in told:
        indexes = [error["index"] for error in told["errors"]]
        assert indexes == sorted(set(indexes))
        assert told["rejected"] == len(indexes)
        if "Idempotent-Replayed" not in answer.headers:
            assert told["accepted"] == len(written)
    else:
        assert written == []
    if written:
        contract = contracts["flight_events" if "flight" in path else "weather"]
        decoded = Decoder(contract)(
            [value for _, _, value, _ in written],
            [key for _, key, _, _ in written],
            np.array([at for *_, at in written]),
        )
        assert decoded.rejected == []
        assert set(decoded.rows["tenant_id"].to_pylist()) == {"UA"}
