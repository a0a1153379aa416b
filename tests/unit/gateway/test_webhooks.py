"""Signed webhooks: whose they are, what becomes of them, and what is not taken twice."""

import hashlib
import hmac
import json
import time
from pathlib import Path

import pytest

from freshdata.contracts import load_contracts
from freshdata.errors import ContractError
from freshdata.settings import TenantLimits

PATH = "/v1/webhooks/payments/stripe"
CONTRACT = """\
apiVersion: v3.2.0
kind: DataContract
id: urn:test
version: 1.0.0
status: active
schema:
  - name: payments
    customProperties:
      - {property: messageKey, value: payment_id}
      - {property: dedupeKey, value: [payment_id]}
      - {property: maxFuture, value: P40000D}
      - property: webhooks
        value: WEBHOOKS
    properties:
      - {name: payment_id, logicalType: string, physicalType: string, primaryKey: true, required: true}
      - {name: tenant_id, logicalType: string, physicalType: string, required: true}
      - {name: event_time, logicalType: timestamp, physicalType: timestamptz, required: true}
      - {name: kind, logicalType: string, physicalType: string}
      - {name: amount, physicalName: Amount, logicalType: number, physicalType: "decimal(20,4)"}
      - {name: day, logicalType: date, physicalType: date}
      - {name: payload, logicalType: string, physicalType: string}
slaProperties:
  - {property: freshness, value: 1, unit: h}
"""
STRIPE = {
    "signature": "stripe",
    "fields": {
        "payment_id": "body.id",
        "event_time": "body.created",
        "kind": "body.type",
        "amount": "body.data.lines.1.amount",
        "day": "body.created",
        "payload": "body.data",
    },
}
GITHUB = {
    "signature": "github",
    "fields": {"payment_id": "header.X-GitHub-Delivery", "event_time": "received", "kind": "header.x-github-event"},
}
SECRETS = {"payments": {"stripe": {"acme": ["new", "old"], "globex": ["other"]}, "github": {"acme": ["hub"]}}}
BODY = (
    b'{"id": "evt_1", "type": "paid", "created": 1357387200, "data": {"lines": [{}, {"amount": 12345678901234.5600}]}}'
)


def contracts(folder: Path, webhooks: object):
    folder.mkdir(exist_ok=True)
    (folder / "payments.odcs.yaml").write_text(CONTRACT.replace("WEBHOOKS", json.dumps(webhooks)))
    return load_contracts(folder)


@pytest.fixture
def door(doors, tmp_path):
    return opened(doors, tmp_path)


def opened(doors, tmp_path, **changes):
    made = doors(contracts(tmp_path / "contracts", {"stripe": STRIPE, "github": GITHUB}), **changes)
    (made.settings.gateway_dir / "webhook-secrets.json").write_text(json.dumps(SECRETS))
    return made


def sign(secret: str, signed: bytes) -> str:
    return hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def stripe(door, body=BODY, secret="new", at=None, **headers):  # noqa: S107 - a test's
    at = int(time.time()) if at is None else at
    signature = f"t={at},v1={sign('wrong', body)},v1={sign(secret, f'{at}.'.encode() + body)},v0=x"
    return door.post(body, path=PATH, **({"Stripe_Signature": signature} | headers))


def github(door, body=b'{"a": 1}', secret="hub", delivery="d-1", **headers):  # noqa: S107 - a test's
    named = {"X_Hub_Signature_256": f"sha256={sign(secret, body)}", "X_GitHub_Delivery": delivery}
    return door.post(body, path="/v1/webhooks/payments/github", **(named | {"X_GitHub_Event": "push"} | headers))


def test_a_delivery_becomes_an_event_of_the_tenant_whose_secret_signed_it(door):
    assert stripe(door).status_code == 202
    assert stripe(door, BODY.replace(b"evt_1", b"evt_2"), secret="other").status_code == 202  # noqa: S106
    first, second = door.values
    assert first == {
        "payment_id": "evt_1",
        "event_time": "2013-01-05T12:00:00+00:00",
        "kind": "paid",
        "Amount": 12345678901234.56,
        "day": "2013-01-05",
        "payload": '{"lines":[{},{"amount":12345678901234.5600}]}',
        "tenant_id": "acme",
    }
    assert (second["payment_id"], second["tenant_id"]) == ("evt_2", "globex")
    # No digit is lost on the way.
    assert b'"Amount":12345678901234.5600' in door.writer.written[0][2]
    assert door.writer.written[0][1] == b"evt_1"


def test_github_names_delivery_and_event_in_headers(door):
    assert github(door).status_code == 202
    [event] = door.values
    assert (event["payment_id"], event["kind"], event["tenant_id"]) == ("d-1", "push", "acme")
    assert event["event_time"].endswith("+00:00")


def test_a_rotated_secret_is_valid_beside_the_new_one_until_it_is_removed(door):
    assert stripe(door, secret="old").status_code == 202  # noqa: S106
    secrets = {"payments": {"stripe": {"acme": ["new"]}}}
    (door.settings.gateway_dir / "webhook-secrets.json").write_text(json.dumps(secrets))
    assert stripe(door, BODY + b" ", secret="old").status_code == 401  # noqa: S106
    assert stripe(door, BODY + b" ").status_code == 202


@pytest.mark.parametrize(
    "change",
    [
        {"secret": "wrong"},
        {"secret": ""},
        {"at": 1},
        {"at": 10**11},
        {"Stripe_Signature": ""},
        {"Stripe_Signature": "t=x,v1=0"},
        {"Stripe_Signature": f"t={int(time.time())}"},
        {"Stripe_Signature": f"t={int(time.time())},t=1,v1=0"},
        {"Stripe_Signature": b"t=1,v1=\xff"},
    ],
)
def test_a_delivery_that_nobody_signed_now_is_refused(door, change):
    assert stripe(door, **change).status_code == 401
    assert door.writer.written == []


def test_a_body_that_was_changed_after_it_was_signed_is_refused(door):
    at = int(time.time())
    signature = f"t={at},v1={sign('new', f'{at}.'.encode() + BODY)}"
    assert stripe(door, BODY.replace(b"paid", b"void"), Stripe_Signature=signature).status_code == 401
    assert github(door, X_Hub_Signature_256="sha1=" + sign("hub", b'{"a": 1}')).status_code == 401
    assert github(door, X_GitHub_Delivery="").status_code == 400


def test_a_recorded_delivery_is_not_written_again_under_whatever_id(door):
    first = github(door)
    again, forged = github(door), github(door, delivery="d-2")
    assert [answer.status_code for answer in (first, again, forged)] == [202, 202, 202]
    assert again.headers["Idempotent-Replayed"] == forged.headers["Idempotent-Replayed"] == "true"
    at = int(time.time())
    assert stripe(door, at=at).status_code == stripe(door, at=at).status_code == 202
    assert [event["payment_id"] for event in door.values] == ["d-1", "evt_1"]


def test_a_delivery_signed_by_two_secrets_is_not_written_again_by_either(door):
    at = int(time.time())
    each = [f"v1={sign(secret, f'{at}.'.encode() + BODY)}" for secret in ("new", "old")]
    for signatures in (each, each[:1], each[1:], each[::-1]):
        assert stripe(door, Stripe_Signature=",".join([f"t={at}", *signatures])).status_code == 202
    assert len(door.writer.written) == 1


def test_what_nobody_has_signed_uses_up_nobody_s_limit(doors, tmp_path):
    door = opened(doors, tmp_path, gateway_limits=TenantLimits(bytes_per_second=len(BODY)))
    for _ in range(3):
        assert stripe(door, BODY * 10, secret="wrong").status_code == 401  # noqa: S106
    assert stripe(door).status_code == 202
    # What is signed counts as its tenant's.
    assert stripe(door, BODY + b" ").status_code == 202
    assert stripe(door, BODY + b"  ").status_code == 429
    assert stripe(door, BODY, secret="other").status_code == 202  # noqa: S106


def test_a_delivery_that_the_contract_does_not_take_says_so_to_its_sender(door):
    answer = stripe(door, BODY.replace(b"1357387200", b"true"))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "event_time"
    assert stripe(door, BODY.replace(b"12345678901234.5600", b"[]")).json()["errors"][0]["field"] == "Amount"
    assert stripe(door, b"{}").status_code == 422
    assert stripe(door, b"a=b").status_code == 400
    assert stripe(door, b"[" * 100_000).status_code == 400
    assert stripe(door, BODY.replace(b"1357387200", b"1e999999999999")).status_code in (400, 422)


def test_an_unknown_sender_is_404(door):
    assert door.post(BODY, path="/v1/webhooks/payments/paypal").status_code == 404
    assert "/v1/webhooks/payments/github" in door.get("/openapi.json").json()["paths"]


@pytest.mark.parametrize(
    ("webhooks", "told"),
    [
        (["stripe"], "webhooks is"),
        ({"Stripe!": STRIPE}, "sender"),
        ({"stripe": {}}, "Write"),
        ({"stripe": STRIPE | {"signature": "none"}}, "Write"),
        ({"stripe": STRIPE | {"more": 1}}, "Write"),
        ({"stripe": STRIPE | {"fields": {"payment_id": "body.id"}}}, "lacks event_time"),
        ({"stripe": STRIPE | {"fields": STRIPE["fields"] | {"tenant_id": "body.t"}}}, "whose secret signed"),
        ({"stripe": STRIPE | {"fields": STRIPE["fields"] | {"x": "body.t"}}}, "fills in the field 'x'"),
        ({"stripe": STRIPE | {"fields": STRIPE["fields"] | {"kind": "cookie.t"}}}, "body.PATH"),
    ],
)
def test_a_contract_whose_webhooks_make_no_sense_is_refused(tmp_path, webhooks, told):
    with pytest.raises(ContractError, match=told):
        contracts(tmp_path / "contracts", webhooks)
