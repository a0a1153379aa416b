"""Who may write what: keys, and what they cannot do."""

import json
import logging

import pytest
from typer.testing import CliRunner

from freshdata.api_keys import KeyRing, create_key, keys_file, read_keys, revoke_key
from freshdata.cli.main import app
from freshdata.errors import ConfigError
from tests.streams import flight_event

UA = flight_event(0)


@pytest.fixture
def path(instance):
    return keys_file(instance)


def test_a_key_is_kept_as_a_hash_that_only_its_owner_can_read(path):
    key, token = create_key(path, tenant="UA")
    text = path.read_text()
    assert token not in text
    assert token.split("_", 2)[2] not in text
    assert path.stat().st_mode & 0o777 == 0o600
    assert [kept.id for kept in read_keys(path)] == [key.id]
    assert token not in repr(key)


def test_only_the_whole_right_key_is_a_key(path):
    ring = KeyRing(path)
    key, token = create_key(path, tenant="UA")
    other, _ = create_key(path, tenant="AA")
    assert ring.find(token).id == key.id
    assert ring.find(token.replace(key.id, other.id)) is None
    for wrong in ("", token[:-1], token + "x", token.upper(), key.id, key.digest, "fdk_" + "0" * 12 + "_" + "A" * 43):
        assert ring.find(wrong) is None


def test_a_key_is_rotated_without_a_moment_in_which_none_is_valid(doors, path):
    door = doors()
    _, new = create_key(path, tenant="UA")
    old = read_keys(path)[0]
    assert door.post(UA).status_code == 202
    assert door.post(UA, token=new).status_code == 202
    revoke_key(path, old.id)
    assert door.post(UA).status_code == 401
    assert door.post(UA, token=new).status_code == 202
    revoked = read_keys(path)[0].revoked
    assert revoke_key(path, old.id).revoked == revoked


def test_a_key_may_be_for_some_streams_only(door, path):
    _, token = create_key(path, tenant="UA", streams=["weather"])
    answer = door.post(UA, token=token)
    assert answer.status_code == 403
    assert "flight_events" in answer.json()["detail"]
    assert door.writer.written == []


def test_a_key_is_no_key_to_another_tenants_events(door, path):
    _, token = create_key(path, tenant="AA")
    assert door.post(UA, token=token).status_code == 403
    assert door.writer.written == []


def test_keys_are_never_logged(door, caplog):
    caplog.set_level(logging.DEBUG)
    door.post(UA)
    door.post(UA, token=door.token + "x")
    assert door.token not in caplog.text


def test_a_file_that_cannot_be_read_lets_nobody_in(door, path):
    assert door.post(UA).status_code == 202
    good = path.read_text()
    path.write_text("{")
    assert door.post(UA).status_code == 503
    path.write_text(good)
    assert door.post(UA).status_code == 202
    path.unlink()
    assert door.post(UA).status_code == 401


def test_a_key_that_does_not_exist_cannot_be_revoked(path):
    with pytest.raises(ConfigError, match="freshdata key list"):
        revoke_key(path, "0123456789ab")


def test_the_command_shows_a_key_once(instance, monkeypatch):
    monkeypatch.setenv("FRESHDATA_HOME", str(instance.home))
    run = CliRunner().invoke
    made = json.loads(run(app, ["key", "create", "--tenant", "UA", "--stream", "weather", "--json"]).stdout)
    assert KeyRing(keys_file(instance)).find(made["key"]).streams == ("weather",)
    listed = run(app, ["key", "list", "--json"]).stdout
    assert made["key"] not in listed
    assert [(key["id"], key["tenant"], key["revoked"]) for key in json.loads(listed)] == [(made["id"], "UA", None)]
    assert run(app, ["key", "revoke", made["id"]]).exit_code == 0
    assert KeyRing(keys_file(instance)).find(made["key"]) is None
    assert made["id"] in run(app, ["key", "list"]).stdout


@pytest.mark.parametrize("arguments", [["--tenant", " "], ["--tenant", "UA", "--stream", "airlines"]])
def test_a_key_that_could_write_nothing_is_refused(instance, monkeypatch, arguments):
    monkeypatch.setenv("FRESHDATA_HOME", str(instance.home))
    assert CliRunner().invoke(app, ["key", "create", *arguments]).exit_code == 1
    assert read_keys(keys_file(instance)) == []
