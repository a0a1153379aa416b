"""What the code location is generated from: settings, contracts, the model manifest and the clock of one instance."""

import functools
import hashlib
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from pyiceberg.catalog import Catalog

from freshdata.clock import Clock, instance_clock
from freshdata.contracts import Contract, load_contracts
from freshdata.lake.catalog import open_catalog
from freshdata.settings import Settings, load_settings
from freshdata.transform.manifest import ModelInfo, load_manifest, sources

DAY_FORMAT = "%Y-%m-%d"


@dataclass(frozen=True)
class Platform:
    """One instance of the platform, as Dagster sees it.

    Attributes:
        settings: The instance's settings.
        contracts: The data contracts by name.
        models: The Silver and Gold models by name, in topological order.
    """

    settings: Settings
    contracts: dict[str, Contract]
    models: dict[str, ModelInfo]

    @property
    def clock(self) -> Clock:
        """The instance's clock."""
        return instance_clock(self.settings.home)

    @property
    def streams(self) -> list[Contract]:
        """The contracts of streams."""
        return [contract for contract in self.contracts.values() if contract.kind == "stream"]

    @property
    def silver_streams(self) -> list[tuple[Contract, ModelInfo]]:
        """Each stream that has a Silver model of its name, with that model."""
        return [
            (stream, model)
            for stream in self.streams
            if (model := self.models.get(f"silver.{stream.name}")) is not None
        ]

    def streams_of(self, model: ModelInfo) -> list[Contract]:
        """The streams that a model is made from, through any number of models."""
        tables = sources(self.models, model)
        return [stream for stream in self.streams if stream.table in tables]

    @functools.cached_property
    def partitions(self) -> dg.DailyPartitionsDefinition:
        """One partition a day, from the first day of the instance's data to the present day included.

        On a simulated clock the range is fixed when the code location loads: Dagster would otherwise end it at the wall
        clock's today, years later.
        """
        start = self.clock.start.strftime(DAY_FORMAT)
        if not self.clock.simulated:
            return dg.DailyPartitionsDefinition(start_date=start, end_offset=1)
        end = self.clock.now().date() + timedelta(days=1)
        return dg.DailyPartitionsDefinition(start_date=start, end_date=end.strftime(DAY_FORMAT))

    def days(self) -> tuple[date, date]:
        """The first and the last day that have a partition now."""
        first, last = self.partitions.get_first_partition_key(), self.partitions.get_last_partition_key()
        if first is None or last is None:
            return self.clock.start, self.clock.start
        return date.fromisoformat(first), date.fromisoformat(last)

    def has_day(self, day: date) -> bool:
        """Whether a day has a partition now."""
        first, last = self.days()
        return first <= day <= last

    @functools.cached_property
    def fingerprint(self) -> str:
        """Changes whenever a contract or a model changes."""
        digest = hashlib.sha256()
        for contract in self.contracts.values():
            digest.update(contract.odcs.model_dump_json().encode())
        for model in self.models.values():
            digest.update(f"{model.name} {model.code_version}".encode())
        return digest.hexdigest()[:16]

    def catalog(self) -> Catalog:
        """Open the instance's catalog."""
        return open_catalog(self.settings)


def current_platform() -> Platform:
    """The platform of this process's instance; read once, because each ``defs`` module asks for it."""
    settings = load_settings()
    return _platform(settings.home, settings.project)


@functools.lru_cache(maxsize=1)
def _platform(home: Path, project: Path) -> Platform:
    settings = load_settings().for_home(home).model_copy(update={"project": project})
    return Platform(settings, load_contracts(settings.contracts_dir), load_manifest(settings))


def asset_key(table: str) -> dg.AssetKey:
    """The asset key of a table, for example ``silver.weather``."""
    return dg.AssetKey(table.split("."))


def owners(name: str) -> list[str]:
    """A team's name as Dagster's owners."""
    return [name if "@" in name else f"team:{name}"]


def freshness_policy(sla: timedelta) -> dg.FreshnessPolicy:
    """Dagster's own freshness of an asset: written at least once within the SLA, by the wall clock."""
    window = max(sla, timedelta(minutes=2))
    return dg.FreshnessPolicy.time_window(fail_window=window, warn_window=window * 3 / 4)


def contract_metadata(platform: Platform, contract: Contract) -> dict[str, Any]:
    """Links an asset to its contract."""
    path = platform.settings.contracts_dir / f"{contract.name}.odcs.yaml"
    return {
        "freshdata/contract": dg.MetadataValue.path(str(path.relative_to(platform.settings.project))),
        "freshdata/contract_version": contract.version,
    }
