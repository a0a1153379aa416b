"""``python -m benchmarks.decode``: events a CPU-second that the worker's decoder takes, form by form.

The sample's flight events, valid ones, in batches of 8,192 as a poll brings them. Timed is the decoder alone, with all
its checks, in CPU time of one process; the forms take turns, and the median of the rounds counts.
"""

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa

from benchmarks.results import machine, write_section
from freshdata.contracts import Contract, load_contracts
from freshdata.contracts.avro_schema import avro_schema
from freshdata.contracts.decode import Decoder
from freshdata.registry import Schema, framed
from freshdata.sample.flights import flight_events
from freshdata.settings import PROJECT

EVENTS = 8192
AVRO, JSON = 1, 2


def main() -> None:
    """Measure, print, and write the section of the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds: int = parser.parse_args().rounds
    facts = machine()
    contract = load_contracts(PROJECT / "contracts")["flight_events"]
    forms, keys, times = _messages(contract)
    schemas = {AVRO: Schema(AVRO, "AVRO", json.dumps(avro_schema(contract))), JSON: Schema(JSON, "JSON", "{}")}
    decoder = Decoder(contract, schemas.__getitem__)
    spent: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(rounds):
        for name, values in forms.items():
            spent[name].append(_timed(lambda values=values: decoder(values, keys, times)))  # type: ignore[misc]
    lines = ["`python -m benchmarks.decode`", "", "| form | bytes an event | events a CPU-second |", "|---|---|---|"]
    for name, values in forms.items():
        size = sum(map(len, values)) / len(values)
        rate = len(values) / statistics.median(spent[name])
        lines.append(f"| {name} | {size:.0f} | {rate:,.0f} |")
    print("\n".join(lines))
    write_section("decode", "Decoding, form by form", lines, facts | {"rounds": str(rounds), "pyarrow": pa.__version__})


def _messages(contract: Contract) -> tuple[dict[str, list[bytes]], list[bytes], np.ndarray[Any, np.dtype[np.int64]]]:
    names = [name for name in contract.arrow_schema.names if name != "event_id"]
    sent = [
        {"event_id": f"flight-{number:08d}", **event}
        for number, event in enumerate(flight_events().select(names).slice(0, EVENTS).to_pylist())
    ]
    plain = [json.dumps(event, default=lambda value: value.isoformat()).encode() for event in sent]
    keys = [event["event_id"].encode() for event in sent]
    times = np.full(EVENTS, 10**13)
    rows = Decoder(contract)(plain, keys, times).rows.to_pylist()
    if len(rows) != EVENTS:
        raise SystemExit("the sample's events are refused")
    schema = fastavro.parse_schema(avro_schema(contract))
    avro = []
    for row in rows:
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, schema, row)
        avro.append(framed(AVRO, stream.getvalue()))
    mixed = [(plain, avro)[number % 2][number] for number in range(EVENTS)]
    forms = {
        "plain JSON": plain,
        "JSON Schema": [framed(JSON, value) for value in plain],
        "Avro": avro,
        "half plain JSON, half Avro": mixed,
    }
    return forms, keys, times


def _timed(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main()
