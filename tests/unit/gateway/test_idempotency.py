"""A request that is sent again under its key is answered as before, and not written again."""

import asyncio
import sqlite3

import pytest

from serving_api.gateway.kafka import Failure
from serving_api.gateway.store import Store
from tests.streams import flight_event

UA = flight_event(0)


def test_the_same_request_gets_the_same_answer_and_is_written_once(doors):
    door = doors()
    first = door.post([UA, {}], Idempotency_Key="one")
    again = door.post([UA, {}], Idempotency_Key="one")
    assert (first.status_code, first.content) == (again.status_code, again.content) == (207, first.content)
    assert ("Idempotent-Replayed" in first.headers, again.headers["Idempotent-Replayed"]) == (False, "true")
    assert len(door.writer.written) == 1
    # Another process, as after a restart.
    later = doors()
    assert later.post([UA, {}], token=door.token, Idempotency_Key="one").content == first.content
    assert later.writer.written == []


def test_the_key_cannot_be_used_for_another_request(door):
    door.post(UA, Idempotency_Key="one")
    answer = door.post([UA], Idempotency_Key="one")
    assert answer.status_code == 422
    assert "Idempotency-Key" in answer.json()["detail"]
    assert door.post([UA], Idempotency_Key="two").status_code == 202


def test_what_was_not_written_may_be_sent_again_under_the_key(door):
    assert door.post({}, Idempotency_Key="one").status_code == 422
    door.writer.problem = Failure("timed out", final=False)
    assert door.post(UA, Idempotency_Key="one").status_code == 503
    door.writer.problem = None
    answer = door.post(UA, Idempotency_Key="one")
    assert answer.status_code == 202
    assert "Idempotent-Replayed" not in answer.headers


def test_a_request_that_is_still_being_answered_is_a_conflict(door):
    door.writer.hold = True

    async def both():
        first = asyncio.create_task(door.send(UA, Idempotency_Key="one"))
        while not door.writer.held:
            await asyncio.sleep(0)
        second = await door.send(UA, Idempotency_Key="one")
        door.writer.held[0]()
        return await first, second

    first, second = door.runner.run(both())
    assert (first.status_code, second.status_code) == (202, 409)
    assert len(door.writer.written) == 1


def test_keys_of_tenants_and_streams_are_their_own(door):
    assert door.post(UA, Idempotency_Key="one").status_code == 202
    assert door.post({}, path="/v1/streams/weather/events", Idempotency_Key="one").status_code == 422


def test_an_answer_is_forgotten_after_its_time(door):
    store = door.gateway._store
    store.remember([b"a"], b"r", 202, b"{}", expires=100.0)
    store.remember([b"b"], b"r", 202, b"{}", expires=200.0)
    assert store.answer(b"a", 99.0) == (b"r", 202, b"{}")
    assert store.answer(b"a", 100.0) is None
    store.forget(150.0)
    assert store.answer(b"a", 0.0) is None
    assert store.answer(b"b", 0.0) is not None


def test_a_failure_to_count_is_undone_and_answers_are_remembered_all_the_same(tmp_path):
    store, beside = Store(tmp_path / "memory.db"), sqlite3.connect(tmp_path / "memory.db", isolation_level=None)
    beside.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        store.save_usage({"UA": ("2026-03-01", 1)})
    beside.execute("ROLLBACK")
    store.remember([b"scope"], b"request", 202, b"{}", expires=2.0)
    store.save_usage({"UA": ("2026-03-01", 2)})
    store.close()
    later = Store(tmp_path / "memory.db")
    assert (later.answer(b"scope", now=1.0), later.usage()) == ((b"request", 202, b"{}"), {"UA": ("2026-03-01", 2)})
