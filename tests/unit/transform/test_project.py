"""The SQLMesh project: its own tests, its rules, and the manifest that the rest of the platform reads."""

import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlmesh import Context
from syrupy.assertion import SnapshotAssertion

from freshdata.contracts import load_contracts
from freshdata.errors import TransformError
from freshdata.settings import PROJECT, Settings
from freshdata.transform import context as context_module
from freshdata.transform.context import load_project, open_context
from freshdata.transform.manifest import ModelInfo, build_models, load_manifest, load_models, table_name

GOLD_DAY = {"flight_date", "tenant_id", "flights", "cancelled"} | {
    f"{name}_min" for name in ("mean_dep_delay", "mean_arr_delay", "p90_arr_delay")
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings().for_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def context(settings: Settings) -> Iterator[Context]:
    with open_context(settings) as context:
        yield context


@pytest.fixture(scope="module")
def manifest(context: Context, settings: Settings) -> dict[str, ModelInfo]:
    return build_models(context, settings)


def test_every_model_passes_its_own_tests(context: Context) -> None:
    result = context.test()
    assert result.wasSuccessful(), [trace for _, trace in result.failures + result.errors]
    assert result.testsRun >= len([model for model in context.models.values() if model.kind.name != "EXTERNAL"])


def test_every_model_keeps_the_lint_rules(context: Context) -> None:
    context.lint_models(raise_on_error=True)


def test_models_come_upstream_first(manifest: dict[str, ModelInfo]) -> None:
    names = list(manifest)
    for model in manifest.values():
        for upstream in model.depends_on:
            assert upstream not in manifest or names.index(upstream) < names.index(model.name)


def test_every_model_is_described(manifest: dict[str, ModelInfo]) -> None:
    for model in manifest.values():
        assert model.description, model.name
        assert model.owner != "unowned", model.name
        assert model.audits or model.view, model.name
        assert set(model.column_descriptions) == set(model.columns), model.name
        assert (PROJECT / model.path).is_file()


def test_carrier_day_has_exactly_its_columns(manifest: dict[str, ModelInfo]) -> None:
    assert set(manifest["gold.carrier_day"].columns) == GOLD_DAY | {"on_time_share"}
    assert manifest["gold.carrier_day"].partition_column == "flight_date"


def test_every_model_has_exactly_the_columns_it_had(
    manifest: dict[str, ModelInfo], snapshot: SnapshotAssertion
) -> None:
    assert {model.name: model.columns for model in manifest.values()} == snapshot


def test_every_model_has_a_test_of_its_rows(context: Context) -> None:
    tested = {test.model_name: test.body["outputs"] for test in context.select_tests()}
    for name, model in context.models.items():
        if model.kind.name != "EXTERNAL":
            assert tested[name].get("query", {}).get("rows"), name


def test_lineage_leads_to_the_columns_upstream(manifest: dict[str, ModelInfo]) -> None:
    lineage = manifest["gold.carrier_day"].column_lineage
    assert ("silver.flight_events", "arr_delay") in lineage["p90_arr_delay_min"]
    assert manifest["silver.flight_events"].column_lineage["carrier_name"] == (
        ("bronze.flight_events", "carrier_name"),
    )
    name = (("gold.dim_airport", "name"),)
    views = manifest["serving.route_traffic"].column_lineage
    assert (views["origin_name"], views["dest_name"]) == (name, name)
    assert set(views["on_time_share"]) == {("gold.route_day", "arrivals"), ("gold.route_day", "on_time_share")}


VIEW = "MODEL (name NAME, kind KIND);\nSELECT carrier FROM SOURCE"


def with_model(folder: Path, name: str, kind: str, source: str) -> Settings:
    """The project with one more model."""
    models = folder / "models"
    if not models.exists():
        shutil.copytree(PROJECT / "sqlmesh_models", models)
    text = VIEW.replace("NAME", name).replace("KIND", kind).replace("SOURCE", source)
    (models / "models" / f"{name}.sql").write_text(text)
    return Settings().for_home(folder / "home").for_models(models)


@pytest.mark.parametrize(
    ("name", "kind", "source", "told"),
    [
        ("gold.carriers", "EMBEDDED", "gold.dim_carrier", "is of kind embedded in the schema gold"),
        ("serving.carriers", "FULL", "gold.dim_carrier", "is of kind full in the schema serving"),
        ("gold.carriers", "FULL", "serving.carrier_punctuality", "reads the serving view serving.carrier_punctuality"),
    ],
)
def test_what_would_be_half_a_view_is_refused(tmp_path: Path, name: str, kind: str, source: str, told: str) -> None:
    with pytest.raises(TransformError, match=told) as refused:
        load_models(with_model(tmp_path, name, kind, source))
    assert refused.value.remedy


def test_a_view_may_read_a_view_and_is_a_select_over_tables_all_the_same(tmp_path: Path) -> None:
    settings = with_model(tmp_path, "serving.carriers", "EMBEDDED", "serving.carrier_punctuality")
    view = load_models(settings)["serving.carriers"]
    assert view.column_lineage == {"carrier": (("serving.carrier_punctuality", "carrier"),)}
    assert '"lake"."gold"."carrier_day"' in view.sql
    assert '"serving"' not in view.sql
    # Whoever means tables is told of no view.
    assert {model.layer for model in load_manifest(settings).values()} == {"silver", "gold"}


def test_every_contract_is_a_source_of_the_project(context: Context) -> None:
    sources = {model.name for model in context.models.values() if model.kind.name == "EXTERNAL"}
    assert sources == {contract.table for contract in load_contracts(PROJECT / "contracts").values()}


def test_the_manifest_is_loaded_without_sqlmesh(settings: Settings, manifest: dict[str, ModelInfo]) -> None:
    assert load_models(settings) == manifest
    code = (
        "import sys; from freshdata.settings import Settings; from freshdata.transform.manifest import load_models; "
        "import freshdata.transform.runner; load_models(Settings()); "
        "assert not {'sqlmesh', 'sqlglot', 'duckdb'} & set(sys.modules), 'heavy imports'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT)


def test_whoever_finds_the_state_held_is_told_by_whom(tmp_path: Path) -> None:
    settings = Settings().for_home(tmp_path)
    state = tmp_path / "sqlmesh" / "state.duckdb"
    state.parent.mkdir(parents=True)
    code = f"import duckdb; c = duckdb.connect({str(state)!r}); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(TransformError, match=f"PID {holder.pid}"), open_context(settings, longest_wait=0.1):
            pass
        holder.communicate("\n")


def test_of_two_that_open_the_state_at_once_one_waits(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import sqlmesh; from freshdata.settings import Settings; "
        "from freshdata.transform.context import open_context\n"
        "print('ready', flush=True); input()\n"
        "with open_context(Settings().for_home(Path(sys.argv[1]))) as context:\n"
        "    context.state_sync.get_environments(); print('open', flush=True); input()"
    )
    line, pipe = [sys.executable, "-c", code, str(tmp_path)], subprocess.PIPE
    with ExitStack() as stack:
        both = [stack.enter_context(subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True)) for _ in range(2)]
        opening = {process.stdout: process for process in both}
        for process in both:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        for process in both:
            assert process.stdin
            process.stdin.write("\n")
            process.stdin.flush()
        while opening:
            for stream in select.select(list(opening), [], [])[0]:
                assert stream.readline() == "open\n"
                opening.pop(stream).communicate("\n")


def test_what_is_promoted_while_a_process_waits_for_the_state_is_what_it_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = Path(shutil.copytree(PROJECT / "sqlmesh_models", tmp_path / "models"))
    settings = Settings().for_home(tmp_path / "home").for_models(models)
    loaded, held = load_project(settings), context_module.state_held

    @contextmanager
    def promoted_meanwhile(*arguments: Any) -> Iterator[None]:
        with held(*arguments):
            (models / "models" / "gold" / "route_day.sql").unlink()
            yield

    monkeypatch.setattr(context_module, "state_held", promoted_meanwhile)  # The moment cannot be hit otherwise.
    with open_context(settings, loaded) as context:
        assert "gold.route_day" in {table_name(name) for name in loaded.context.models}
        assert "gold.route_day" not in {table_name(name) for name in context.models}
