"""The code location as a whole."""

import os
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config
from syrupy.assertion import SnapshotAssertion

from freshdata.settings import PROJECT, Settings
from freshdata.transform.manifest import load_models
from freshdata_assets.definitions import defs
from freshdata_assets.platform import Platform, asset_key, renew_platform

LOAD = """
import sys, warnings
from dagster._utils.warnings import BetaWarning, PreviewWarning
from dagster_shared.utils.warnings import SupersessionWarning
for category in (BetaWarning, PreviewWarning, SupersessionWarning):
    warnings.simplefilter("error", category)
warnings.filterwarnings("error", category=DeprecationWarning, module="freshdata")
from freshdata_assets.definitions import defs
defs().resolve_asset_graph()
print([name for name in ("sqlmesh", "great_expectations", "duckdb") if name in sys.modules])
"""


def graph(loaded: dg.Definitions) -> dict[str, Any]:
    assets = loaded.resolve_asset_graph()
    return {
        key.to_user_string(): {
            "group": node.group_name,
            "external": node.is_external,
            "kinds": sorted(node.kinds),
            "owners": list(node.owners),
            "upstream": sorted(parent.to_user_string() for parent in node.parent_keys),
            "daily": node.partitions_def is not None,
            "freshness": node.freshness_policy is not None,
            "described": bool(node.description),
            "checks": {check.name: assets.get(check).blocking for check in sorted(node.check_keys)},
            "metadata": sorted(node.metadata),
        }
        for key in sorted(assets.get_all_asset_keys())
        for node in [assets.get(key)]
    }


def test_the_asset_graph(platform: Platform, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion) -> None:
    monkeypatch.setenv("FRESHDATA_HOME", str(platform.settings.home))
    loaded = defs()
    assert graph(loaded) == snapshot
    assert sorted((sensor.name, sensor.default_status) for sensor in loaded.sensors or ()) == [
        ("closes", dg.DefaultSensorStatus.RUNNING),
        ("freshness", dg.DefaultSensorStatus.RUNNING),
        ("hourly_checks", dg.DefaultSensorStatus.RUNNING),
        ("maintenance", dg.DefaultSensorStatus.RUNNING),
        ("snapshots", dg.DefaultSensorStatus.RUNNING),
    ]


def test_a_serving_view_is_shown_and_never_run(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRESHDATA_HOME", str(platform.settings.home))
    loaded, key = defs(), dg.AssetKey(["serving", "carrier_punctuality"])
    node = loaded.resolve_asset_graph().get(key)
    assert (node.is_virtual, node.is_executable, node.is_external) == (True, False, True)
    lineage = node.metadata["dagster/column_lineage"].deps_by_column
    assert [(dep.asset_key, dep.column_name) for dep in lineage["carrier_name"]] == [
        (dg.AssetKey(["gold", "dim_carrier"]), "name")
    ]
    columns = {column.name: column for column in node.metadata["dagster/column_schema"].columns}
    assert (columns["flights"].type, columns["flights"].description) == ("BIGINT", "Scheduled flights.")
    assert node.metadata["freshdata/model"].value == "sqlmesh_models/models/serving/carrier_punctuality.sql"
    assert node.code_version == load_models(platform.settings)[node.metadata["dagster/table_name"]].code_version
    # Nor is it maintained, closed, checked or looked at by a sensor.
    names = {asset.path[-1] for asset in loaded.resolve_asset_graph().executable_asset_keys}
    assert names.isdisjoint({"carrier_punctuality", "route_traffic"})


def test_it_is_made_once_and_anew_when_time_has_moved_on(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRESHDATA_HOME", str(platform.settings.home))

    def last_day(loaded: dg.Definitions) -> str | None:
        days = loaded.resolve_asset_graph().get(asset_key("gold.carrier_day")).partitions_def
        return days.get_last_partition_key() if days else None

    first = defs()
    assert defs() is first
    platform.clock.set(start=date(2013, 1, 1), now=datetime(2013, 1, 5, 5, tzinfo=UTC))
    renew_platform()
    assert (last_day(first), last_day(defs())) == ("2013-01-04", "2013-01-05")


def test_loading_warns_of_nothing_and_imports_nothing_heavy(platform: Platform) -> None:
    child = subprocess.run(
        [sys.executable, "-c", LOAD],
        env={**os.environ, "FRESHDATA_HOME": str(platform.settings.home)},
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT,
    )
    assert (child.returncode, child.stdout.strip()) == (0, "[]"), child.stderr


def test_daily_partitions_end_with_the_instances_present(platform: Platform) -> None:
    assert platform.calendars["day"].get_partition_keys() == ["2013-01-01", "2013-01-02", "2013-01-03", "2013-01-04"]


def test_daily_partitions_follow_the_system_clock(platform: Platform) -> None:
    platform.clock.set(start=platform.clock.start, now=None)
    assert platform.span()[1] == platform.clock.now().date()


def test_the_instance_settings_are_valid_and_keep_everything_local(
    instance: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = instance.dagster_home
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text((PROJECT / "dagster.yaml").read_text())
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    dagster_instance_config(str(home))
    with dg.DagsterInstance.get() as found:
        assert not found.telemetry_enabled
        assert found.global_op_concurrency_default_limit == 1
        assert found.root_directory == str(home)


def test_the_workspace_names_the_code_location() -> None:
    content = yaml.safe_load(Path(PROJECT / "workspace.yaml").read_text())
    assert content["load_from"][0]["python_module"]["module_name"] == "freshdata_assets.definitions"


@pytest.mark.integration
def test_dg_finds_nothing_to_complain_of(platform: Platform) -> None:
    environment = {
        **os.environ,
        "FRESHDATA_HOME": str(platform.settings.home),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "PYTHONWARNINGS": "default",
        "VIRTUAL_ENV": sys.prefix,
    }
    child = subprocess.run(
        [str(Path(sys.executable).with_name("dg")), "check", "defs"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT,
    )
    said = child.stdout + child.stderr
    assert child.returncode == 0, said
    assert "All definitions loaded successfully" in said
    assert not [line for line in said.splitlines() if "Warning" in line and ("freshdata" in line or "dagster" in line)]
