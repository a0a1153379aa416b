"""Publishing as a whole: judged with the models in view, registered, and then made the table's."""

import json

import pytest
from typer.testing import CliRunner

from freshdata import publishing
from freshdata.cli.contract import app
from freshdata.contracts import load_contracts
from freshdata.errors import EvolutionError, LakeError, RegistryDownError
from freshdata.lake.catalog import ensure_stream_tables, open_catalog
from freshdata.lake.publication import earlier_contracts, published_contract, renamed_columns
from freshdata.publishing import plan_publication, publish_contract
from freshdata.settings import PROJECT
from tests.streams import flight_event

BRONZE = "bronze.flight_events"
LAST_FIELD = "      - name: distance\n"
GATE = "      - {name: gate, logicalType: string, physicalType: string}\n"
DEST = "      - name: dest\n"
TOWN = "      - name: town\n        id: dest\n        customProperties: [{property: aliases, value: [dest]}]\n"


@pytest.fixture
def project(instance, tmp_path):
    """The project with a contracts folder of its own, and the flight stream published."""
    import shutil

    shutil.copytree(PROJECT / "contracts", tmp_path / "project" / "contracts")
    shutil.copytree(PROJECT / "sqlmesh_models", tmp_path / "project" / "sqlmesh_models")
    settings = instance.model_copy(update={"project": tmp_path / "project", "schema_registry_url": None})
    contracts = load_contracts(settings.contracts_dir)
    ensure_stream_tables(open_catalog(settings), contracts["flight_events"], contracts)
    return settings


def edited(settings, version, *edits):
    """The flight contract of the folder, after an edit of its file."""
    path = settings.contracts_dir / "flight_events.odcs.yaml"
    text = path.read_text()
    for old, new in [("version: 1.0.0", f"version: {version}"), *edits]:
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text)
    return load_contracts(settings.contracts_dir)


def test_what_is_refused_names_the_models_and_gold_columns_made_from_it(project):
    catalog = open_catalog(project)
    contracts = edited(project, "1.1.0", (DEST, "      - name: destination\n"))
    plan = plan_publication(project, catalog, contracts["flight_events"])
    [removed] = [change for change in plan.changes if change.rule == "removed"]
    assert removed.field == "dest"
    assert "silver.flight_events.dest" in removed.reason
    assert "gold.route_day.dest" in removed.reason
    assert "gold.route_day.origin" not in removed.reason
    with pytest.raises(EvolutionError, match=r"dest: removed.*gold\.route_day\.dest"):
        publish_contract(project, catalog, contracts["flight_events"], contracts)


def test_a_column_that_models_read_is_renamed_after_them(project):
    catalog = open_catalog(project)
    contracts = edited(project, "1.1.0", (DEST, TOWN))
    [refused] = [c for c in plan_publication(project, catalog, contracts["flight_events"]).changes if not c.compatible]
    assert (refused.field, refused.rule) == ("town", "renamed")
    assert "silver.flight_events.dest" in refused.reason
    assert "change these models first" in refused.reason
    path = project.models_dir / "models" / "silver" / "flight_events.sql"
    path.write_text(path.read_text().replace("  dest,", "  town AS dest,"))
    assert "town AS dest" in path.read_text()
    publish_contract(project, catalog, contracts["flight_events"], contracts)
    table = catalog.load_table(BRONZE)
    assert renamed_columns(table) == {"dest": "town"}
    assert [contract.version for contract in earlier_contracts(table)] == ["1.0.0"]


def test_a_registry_that_is_down_lets_nothing_be_published(project):
    down = project.model_copy(update={"schema_registry_url": "http://127.0.0.1:9"})
    catalog = open_catalog(project)
    contracts = edited(project, "1.1.0", (LAST_FIELD, GATE + LAST_FIELD))
    before = catalog.load_table(BRONZE).metadata_location
    with pytest.raises(RegistryDownError, match="does not answer"):
        publish_contract(down, catalog, contracts["flight_events"], contracts)
    assert catalog.load_table(BRONZE).metadata_location == before


class Registry:
    """Takes whatever it is given."""

    def __init__(self):
        self.modes, self.schemas = [], []

    def set_compatibility(self, subject, mode):
        self.modes.append((subject, mode))

    def register(self, subject, kind, text):
        if (subject, kind, text) not in self.schemas:
            self.schemas.append((subject, kind, text))
        return self.schemas.index((subject, kind, text)) + 1


def test_a_publication_that_was_cut_short_is_completed_by_the_next(project, monkeypatch):
    """A catalog that fails between the two can only be had by a mock."""
    registry, catalog = Registry(), open_catalog(project)
    monkeypatch.setattr(publishing, "open_registry", lambda _: registry)
    contracts = edited(project, "1.1.0", (LAST_FIELD, GATE + LAST_FIELD))

    def fails(*_):
        raise LakeError(BRONZE, "is away.", remedy="")

    with monkeypatch.context() as broken:
        broken.setattr(publishing, "ensure_stream_tables", fails)
        with pytest.raises(LakeError):
            publish_contract(project, catalog, contracts["flight_events"], contracts)
    assert published_contract(catalog.load_table(BRONZE)).version == "1.0.0"
    done = publish_contract(project, catalog, contracts["flight_events"], contracts)
    assert done.schema == 1
    assert len(registry.schemas) == 1
    assert registry.modes[-1] == ("flights.flight_events.v1-value", "BACKWARD")
    assert "gate" in catalog.load_table(BRONZE).schema().column_names


def test_a_sample_file_is_tried_on_the_contract(project, monkeypatch, tmp_path):
    monkeypatch.setenv("FRESHDATA_HOME", str(project.home))
    monkeypatch.setenv("FRESHDATA_PROJECT", str(project.project))
    good = [json.dumps(flight_event(number)) for number in range(5)]
    bad = [json.dumps(flight_event(6, flight=0)), "{", json.dumps(flight_event(7, event_type="landed")), "{"]
    sample = tmp_path / "sample.jsonl"
    sample.write_text("\n".join([*good, "", *bad]) + "\n")
    result = CliRunner().invoke(app, ["test", "flight_events", "--file", str(sample), "--json"])
    assert result.exit_code == 1, result.output
    found = json.loads(result.output)
    assert (found["events"], found["accepted"]) == (9, 5)
    problems = list(found["problems"].values())
    assert [problem["events"] for problem in problems] == [2, 1, 1]
    assert problems[0]["examples"] == [7, 9]
    assert "$.flight" in problems[1]["reason"]
    sample.write_text("\n".join(good))
    result = CliRunner().invoke(app, ["test", "flight_events", "--file", str(sample)])
    assert result.exit_code == 0
    assert "takes 5 of 5 events" in result.output
    missing = CliRunner().invoke(app, ["test", "flight_events", "--file", str(tmp_path / "none")])
    assert "cannot be read" in str(missing.exception)
