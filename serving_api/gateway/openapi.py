"""The interface's description, made from the contracts: OpenAPI 3.1, and a page that needs nothing from elsewhere."""

from collections.abc import Mapping
from html import escape
from typing import Any

import msgspec

from freshdata.contracts import Contract
from freshdata.contracts.json_schema import KEYWORDS, json_schema
from serving_api.gateway.body import JSON, MAX_BODY, MAX_EVENTS, NDJSON

OUTCOME = {
    "type": "object",
    "required": ["accepted", "rejected", "errors"],
    "properties": {
        "accepted": {"type": "integer", "description": "Events that Kafka has."},
        "rejected": {"type": "integer", "description": "Events that were not written."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["index", "code", "field", "reason"],
                "properties": {
                    "index": {"type": "integer", "description": "Place of the event in the request, from 0."},
                    "code": {"enum": ["contract", "tenant", "kafka", "unavailable"]},
                    "field": {"type": ["string", "null"], "description": "The field that is to blame."},
                    "reason": {"type": "string"},
                },
            },
        },
    },
}
PROBLEM = {
    "type": "object",
    "required": ["title", "status", "detail"],
    "properties": {"title": {"type": "string"}, "status": {"type": "integer"}, "detail": {"type": "string"}},
}
OUTCOMES = {
    "202": "Kafka has acknowledged all events.",
    "207": "Kafka has acknowledged some; the others were rejected for good: see errors.",
    "403": "All events are another tenant's, or the key may not write to the stream.",
    "422": "The contract takes none of the events, or the Idempotency-Key belongs to another request.",
    "503": "Kafka is away, or some events were not written in time: send the whole request again.",
}
PROBLEMS = {
    "400": "The body is no JSON, or a header is wrong.",
    "401": "No valid key or signature.",
    "404": "There is no such stream or sender.",
    "409": "The same request is being answered.",
    "413": f"More than {MAX_EVENTS:,} events or {MAX_BODY:,} bytes.",
    "415": "Content-Type or Content-Encoding is another one.",
    "429": "A limit of the tenant is reached; Retry-After says for how long.",
}


def openapi(contracts: Mapping[str, Contract]) -> bytes:
    """The description of the interface to these streams, as JSON."""
    schemas: dict[str, Any] = {name: json_schema(contract) for name, contract in contracts.items()}
    paths: dict[str, Any] = {}
    for name, contract in contracts.items():
        paths[f"/v1/streams/{name}/events"] = {"post": _post_events(contract)}
        for sender in contract.rules.webhooks:
            paths[f"/v1/webhooks/{name}/{sender}"] = {"post": _post_webhook(contract, sender)}
    document = {
        "openapi": "3.1.0",
        "info": {"title": "FreshData event gateway", "version": "1"},
        "paths": paths,
        "components": {
            "schemas": schemas | {"Outcome": OUTCOME, "Problem": PROBLEM},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }
    return msgspec.json.encode(document)


def _post_events(contract: Contract) -> dict[str, Any]:
    event = {"$ref": f"#/components/schemas/{contract.name}"}
    lines = {"schema": {"type": "string", "description": "One event a line."}}
    return {
        "summary": f"Write events of {contract.name}",
        "operationId": f"write_{contract.name}",
        "security": [{"key": []}],
        "parameters": [
            {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "minLength": 1, "maxLength": 255}},
            {"name": "Content-Encoding", "in": "header", "schema": {"enum": ["gzip", "identity"]}},
        ],
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": {"oneOf": [event, {"type": "array", "maxItems": MAX_EVENTS, "items": event}]}},
                NDJSON[0]: lines,
            },
        },
        "responses": _responses(),
    }


def _post_webhook(contract: Contract, sender: str) -> dict[str, Any]:
    return {
        "summary": f"Deliveries of {sender}, signed as {contract.rules.webhooks[sender].signature} does",
        "operationId": f"webhook_{contract.name}_{sender}",
        "requestBody": {"required": True, "content": {JSON: {"schema": {"type": "object"}}}},
        "responses": _responses(),
    }


def _responses() -> dict[str, Any]:
    outcomes, problems = (
        {
            status: {"description": text, "content": {kind: {"schema": {"$ref": f"#/components/schemas/{name}"}}}}
            for status, text in texts.items()
        }
        for texts, kind, name in ((OUTCOMES, JSON, "Outcome"), (PROBLEMS, "application/problem+json", "Problem"))
    )
    return outcomes | problems


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>FreshData event gateway</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2330; }}
h2 {{ margin-top: 2.5rem; }} code, pre {{ font: 14px/1.5 ui-monospace, monospace; }}
pre {{ background: #f3f5f8; padding: 1rem; overflow: auto; }}
table {{ border-collapse: collapse; width: 100%; }}
td, th {{ text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #dde2ea; }}
</style></head><body>
<h1>FreshData event gateway</h1>
<p>Send events of a stream as one JSON object, an array, or one a line (<code>{ndjson}</code>), packed with gzip or not:
at most {events:,} events and {size:,} bytes unpacked a request. <a href="openapi.json">openapi.json</a></p>
<pre>curl -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" \\
     -d @event.json http://127.0.0.1:8080/v1/streams/STREAM/events</pre>
<table><tr><th>answer<th>means</tr>{answers}</table>
{streams}
</body></html>
"""


def docs_page(contracts: Mapping[str, Contract]) -> str:
    """The description as a page."""
    answers = "".join(
        f"<tr><td><code>{status}</code><td>{escape(text)}</tr>"
        for status, text in sorted((OUTCOMES | PROBLEMS).items())
    )
    streams = "".join(_section(contract) for contract in contracts.values())
    return PAGE.format(ndjson=NDJSON[0], events=MAX_EVENTS, size=MAX_BODY, answers=answers, streams=streams)


def _section(contract: Contract) -> str:
    schema = json_schema(contract)
    rows = "".join(
        f"<tr><td><code>{name}</code><td>{_words(field)}"
        f"<td>{'yes' if name in schema['required'] else ''}<td>{escape(field.get('description', ''))}</tr>"
        for name, field in schema["properties"].items()
    )
    webhooks = "".join(
        f"<p><code>POST /v1/webhooks/{contract.name}/{escape(sender)}</code>, signed as {webhook.signature} does</p>"
        for sender, webhook in contract.rules.webhooks.items()
    )
    return (
        f"<h2 id='{contract.name}'>{contract.name} {contract.version}</h2><p>{escape(contract.description)}</p>"
        f"<p><code>POST /v1/streams/{contract.name}/events</code></p>{webhooks}"
        f"<table><tr><th>field<th>type<th>required<th>meaning</tr>{rows}</table>"
    )


def _words(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return escape(", ".join(f"{value}" for value in field["enum"] if value is not None))
    types = field["type"] if isinstance(field["type"], list) else [field["type"]]
    words = [field.get("format") or " or ".join(name for name in types if name != "null")]
    shown = {*KEYWORDS.values()} - ({"pattern"} if "format" in field else set())
    words += [f"{name} {value}" for name, value in field.items() if name in shown]
    return escape(", ".join(words))
