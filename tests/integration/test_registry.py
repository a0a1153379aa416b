"""The schema registry as a client meets it: a real one, one that is down, one that is not there."""

import json
import shutil
import uuid

import pytest
from pydantic import SecretStr

from freshdata.contracts import load_contracts
from freshdata.errors import ConfigError, EvolutionError, RegistryDownError, RegistryError, SchemaError
from freshdata.lake.catalog import open_catalog
from freshdata.publishing import publish_contract
from freshdata.registry import Schema, client, open_registry
from freshdata.services.instance import platform_state
from freshdata.services.platform import Platform
from freshdata.services.registry import local_registry, registry_address, running_registry
from freshdata.settings import PROJECT

pytestmark = pytest.mark.integration
STREAMS = ("flight_events", "weather")
GATE = "      - {name: gate, logicalType: string, physicalType: string}\n"


def record(*fields):
    return json.dumps({"type": "record", "name": "Order", "fields": list(fields)})


ORDER = record({"name": "id", "type": "string"})
NOTED = record({"name": "id", "type": "string"}, {"name": "note", "type": ["null", "string"], "default": None})
BROKEN = record({"name": "id", "type": "string"}, {"name": "count", "type": "int"})


@pytest.fixture
def subject():
    return f"orders-{uuid.uuid4().hex[:8]}-value"


@pytest.fixture
def settings(instance, registry):
    return instance.model_copy(update={"schema_registry_url": registry})


def test_a_subject_keeps_its_schemas_and_its_mode(settings, subject):
    client = open_registry(settings)
    assert client.latest(subject) is None
    client.set_compatibility(subject, "BACKWARD")
    first = client.register(subject, "AVRO", ORDER)
    assert client.register(subject, "AVRO", ORDER) == first
    with pytest.raises(RegistryError, match="count") as refused:
        client.register(subject, "AVRO", BROKEN)
    assert refused.value.code == 409
    second = client.register(subject, "AVRO", NOTED)
    latest, text = client.latest(subject)
    assert (latest, json.loads(text)) == (second, json.loads(NOTED))
    found = client.schema(first)
    assert found == Schema(first, "AVRO", found.text)
    assert json.loads(found.text) == json.loads(ORDER)
    with pytest.raises(RegistryError, match="SIDEWARD"):
        client.set_compatibility(subject, "SIDEWARD")


def test_what_was_asked_for_once_is_known_without_the_registry(settings, subject):
    client = open_registry(settings)
    number = client.register(subject, "AVRO", ORDER)
    text = client.schema(number).text
    down = open_registry(settings)
    down._ask = lambda _: pytest.fail("the registry was asked")
    assert down.schema(number).text == text


def test_an_id_that_is_unknown_is_told_from_a_registry_that_is_down(settings):
    with pytest.raises(SchemaError, match="Schema 987654 is in no registry"):
        open_registry(settings).schema(987654)
    for url in ("http://127.0.0.1:9/apis/ccompat/v7", f"{settings.schema_registry_url}/elsewhere"):
        with pytest.raises(RegistryDownError, match="does not answer") as down:
            open_registry(settings.model_copy(update={"schema_registry_url": url})).schema(987654)
        assert down.value.url == url


def test_an_id_that_was_unknown_is_asked_for_again_only_after_a_while(settings, subject, monkeypatch):
    registry = open_registry(settings)
    coming = registry.register(subject, "AVRO", record({"name": "first", "type": "string"})) + 1
    asked, ask = [], registry._ask
    monkeypatch.setattr(registry, "_ask", lambda question: asked.append(1) or ask(question))
    for _ in range(3):
        with pytest.raises(SchemaError, match=f"Schema {coming} is in no registry"):
            registry.schema(coming)
    assert len(asked) == 1
    # Binary junk names another id each time: of too many in a while none more is asked for.
    monkeypatch.setattr(client, "MOST_REFUSED", 3)
    for number in range(900_000, 900_010):
        with pytest.raises(SchemaError, match="not asked for" if number > 900_001 else "in no registry"):
            registry.schema(number)
    assert len(asked) == 3
    second = record({"name": "second", "type": ["null", "string"], "default": None})
    assert registry.register(f"{subject}-next", "AVRO", second) == coming
    with pytest.raises(SchemaError, match="in no registry"):
        registry.schema(coming)
    monkeypatch.setattr(client, "REFUSED_SECONDS", 0.0)
    assert json.loads(registry.schema(coming).text) == json.loads(second)


def test_the_platform_s_start_registers_what_it_can_and_tells_what_is_refused(streaming, registry):
    settings = streaming.model_copy(update={"schema_registry_url": registry})
    client, told = open_registry(settings), []
    flights, weather = (f"{load_contracts(settings.contracts_dir)[name].rules.topic}-value" for name in STREAMS)
    client.register(weather, "AVRO", ORDER)
    with Platform(settings, tell=told.append) as platform:
        platform.publish_contracts()
        assert client.latest(flights)
        assert json.loads(client.latest(weather)[1]) == json.loads(ORDER)
        [refused] = platform_state(settings)["warnings"]
    assert refused in told
    assert refused.startswith("The schema of weather was not registered.")
    assert "(409)" in refused


def test_a_wrong_setting_is_one_line_and_shows_no_secret(settings):
    config = {"basic.auth.user.info": SecretStr("user:hunter2"), "no such setting": SecretStr("x")}
    wrong = settings.model_copy(update={"schema_registry_config": config})
    with pytest.raises(ConfigError, match="no such setting") as raised:
        open_registry(wrong).schema(1)
    assert "hunter2" not in f"{raised.value}{wrong!r}"


def test_a_contract_is_published_to_registry_and_table_or_to_neither(settings, tmp_path):
    shutil.copytree(PROJECT / "contracts", tmp_path / "project" / "contracts")
    settings = settings.model_copy(
        update={"project": tmp_path / "project", "models_override": PROJECT / "sqlmesh_models"}
    )
    path = settings.contracts_dir / "flight_events.odcs.yaml"
    topic = f"flights.{uuid.uuid4().hex[:8]}"
    first = path.read_text().replace("flights.flight_events.v1", topic)
    catalog, client = open_catalog(settings), open_registry(settings)

    def publish(text):
        path.write_text(text)
        contracts = load_contracts(settings.contracts_dir)
        return publish_contract(settings, catalog, contracts["flight_events"], contracts)

    one = publish(first)
    assert publish(first).schema == one.schema
    wider = first.replace("version: 1.0.0", "version: 1.1.0").replace(
        "      - name: distance\n", f"{GATE}      - name: distance\n"
    )
    two = publish(wider)
    number, text = client.latest(f"{topic}-value")
    assert number == two.schema != one.schema
    assert json.loads(text)["fields"][-2]["name"] == "gate"
    # The registry refuses what Avro cannot read, though the worker could: the table stays as it is, too.
    table = catalog.load_table("bronze.flight_events").metadata_location
    enum = (
        "        enum:\n          - {value: departed}\n          - {value: arrived}\n          - {value: cancelled}\n"
    )
    assert enum in wider
    with pytest.raises(RegistryError, match="409"):
        publish(wider.replace("version: 1.1.0", "version: 1.2.0").replace(enum, ""))
    # And what the rules refuse does not reach the registry.
    with pytest.raises(EvolutionError, match="flight: type"):
        publish(
            wider.replace("version: 1.1.0", "version: 2.0.0").replace(
                "physicalType: int\n", "physicalType: string\n", 1
            )
        )
    assert client.latest(f"{topic}-value")[0] == two.schema
    assert catalog.load_table("bronze.flight_events").metadata_location == table


@pytest.mark.usefixtures("registry_files")
def test_a_local_registry_has_its_schemas_and_its_address_after_a_restart(instance, subject):
    assert open_registry(instance) is None
    with local_registry(instance) as address:
        number = open_registry(instance).register(subject, "AVRO", ORDER)
        assert running_registry(instance) == address
    assert running_registry(instance) is None
    with pytest.raises(RegistryDownError):
        open_registry(instance).schema(number)
    assert registry_address(instance) == address
    with local_registry(instance) as again:
        assert again == address
        assert json.loads(open_registry(instance).schema(number).text) == json.loads(ORDER)
