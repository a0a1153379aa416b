"""The Silver model that is written for a captured table: it loads, and stays up with the contract."""

from pathlib import Path

import pytest

from freshdata.cdc.models import write_models
from freshdata.contracts import load_contracts
from freshdata.settings import Settings
from freshdata.transform.context import open_context
from freshdata.transform.manifest import load_manifest
from tests.captures import captured_project


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return captured_project(tmp_path, {})


def written(settings: Settings) -> list[str]:
    return [path.name for path in write_models(settings, load_contracts(settings.contracts_dir)["customers"])]


def test_a_captured_table_has_a_model_that_follows_its_contract(settings: Settings) -> None:
    path = settings.contracts_dir / "customers.odcs.yaml"
    text = path.read_text().replace("name: city", "description: of /* or */ or /, name: city")
    path.write_text(text.replace("name: note", "name: order").replace("name: visits", "name: current_date"))
    assert written(settings) == ["customers.sql", "test_customers.yaml"]
    assert written(settings) == []
    model = load_manifest(settings)["silver.customers"]
    assert (model.kind, model.grain, model.partition_column) == ("current_rows", ("id",), None)
    types = {name: model.columns[name] for name in ("order", "current_date", "credit", "tags", "picture", "opens")}
    assert types == {
        "order": "TEXT", "current_date": "INT", "credit": "DECIMAL(10, 2)", "tags": "TEXT[]", "picture": "BLOB",
        "opens": "TIME",
    }  # fmt: skip
    with open_context(settings) as context:
        assert context.test().wasSuccessful()
    path.write_text(path.read_text().replace("team:", "      - {name: age, physicalType: int}\nteam:"))
    assert written(settings) == ["customers.sql"]
    assert "age" in load_manifest(settings)["silver.customers"].columns


def test_a_model_that_somebody_has_edited_is_theirs(settings: Settings) -> None:
    written(settings)
    model = settings.working_models_dir / "models" / "silver" / "customers.sql"
    model.write_text(model.read_text().partition("\n")[2])
    path = settings.contracts_dir / "customers.odcs.yaml"
    path.write_text(path.read_text().replace("team:", "      - {name: age, physicalType: int}\nteam:"))
    assert written(settings) == []
