"""Whatever is sent, the gateway answers; and what it takes, the stream's worker takes."""

import gzip
import json

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freshdata.contracts.decode import Decoder
from tests.streams import flight_event

FLIGHTS = "/v1/streams/flight_events/events"
PATHS = ["/v1/streams/weather/events", "/v1/streams/x/events", "/v1/webhooks/flight_events/b"]
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
GOOD = st.builds(lambda number: flight_event(3 * number), st.integers(0, 50))


def sometimes(usual, *others):
    """Mostly the one, sometimes something else."""
    return st.sampled_from([usual] * 6 + list(others))


@st.composite
def requests(draw):
    """A request that is right, but for what is drawn to be wrong with it."""
    events = draw(st.lists(draw(st.sampled_from([GOOD, GOOD, NEARLY, JSON])), min_size=1, max_size=6))
    form = draw(st.sampled_from(["one", "array", "lines"]))
    if form == "lines":
        body = b"\n".join(json.dumps(event).encode() for event in events)
    else:
        body = json.dumps(events if form == "array" else events[0]).encode()
    if draw(sometimes(False, True)):  # noqa: FBT003 - values
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.binary(max_size=3)) + body[at + draw(st.integers(0, 3)) :]
    packed = draw(st.booleans())
    if packed:
        body = gzip.compress(body)
    if draw(sometimes(False, True)):  # noqa: FBT003 - values
        body = draw(st.binary(max_size=200))
    headers = {
        "Content_Type": draw(sometimes("application/x-ndjson" if form == "lines" else "application/json", *TYPES)),
        "Content_Encoding": draw(sometimes("gzip" if packed else "", "gzip", "identity", "x")),
    }
    if draw(sometimes(False, True)):  # noqa: FBT003 - values
        headers["Idempotency_Key"] = draw(st.binary(max_size=20))
    return draw(sometimes(FLIGHTS, *PATHS)), body, headers


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=requests())
def test_every_request_is_answered_and_what_is_taken_the_worker_takes(door, contracts, request):
    path, body, headers = request
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
