"""What the code location is generated from: settings, contracts, the model manifest and the clock of one instance."""

import functools
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from pyiceberg.catalog import Catalog

from freshdata.clock import Clock, instance_clock
from freshdata.contracts import Contract, load_contracts
from freshdata.contracts.page import PAGE
from freshdata.intervals import DAY, HOUR, Granularity, first_hour
from freshdata.lake.catalog import open_catalog
from freshdata.quality.suites import own_suites
from freshdata.settings import Settings, load_settings
from freshdata.transform.manifest import ModelInfo, load_models, sources, stored

# Dagster's own formats of partition keys.
DAY_FORMAT, HOUR_FORMAT = "%Y-%m-%d", "%Y-%m-%d-%H:%M"
# Where the web server shows the pages that checks link to.
PAGES_ROUTE = "/pages"


@dataclass(frozen=True, eq=False)
class Platform:
    """One instance of the platform, as Dagster sees it.

    Attributes:
        settings: The instance's settings.
        contracts: The data contracts by name.
        models: The Silver and Gold models by name, in topological order.
        views: The serving views by name.
    """

    settings: Settings
    contracts: dict[str, Contract]
    models: dict[str, ModelInfo]
    views: dict[str, ModelInfo] = field(default_factory=dict)

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

    def reads_bronze(self, model: ModelInfo) -> bool:
        """Whether a model is made from a stream's own table."""
        return any(stream.table in model.depends_on for stream in self.streams)

    @functools.cached_property
    def own_suites(self) -> dict[str, Path]:
        """The files of expectations of one's own, by model.

        Raises:
            SuiteError: a file belongs to no model, or two to one.
        """
        return own_suites(self.settings.expectations_dir, self.streams, self.models)

    def streams_of(self, model: ModelInfo) -> list[Contract]:
        """The streams that a model is made from, through any number of models."""
        tables = sources(self.models, model)
        return [stream for stream in self.streams if stream.table in tables]

    @functools.cached_property
    def calendars(self) -> dict[Granularity, dg.TimeWindowPartitionsDefinition]:
        """One partition a day and one an hour, from the first day of the instance's data to the present one included.

        On a simulated clock the ranges are fixed when the code location loads: Dagster would otherwise end them at the
        wall clock's present, years later.
        """
        first = self.clock.start
        days: dict[str, Any] = {"start_date": key_of(first)}
        hours: dict[str, Any] = {"start_date": key_of(first_hour(first))}
        if self.clock.simulated:
            now = self.clock.now()
            days["end_date"], hours["end_date"] = key_of(now.date() + DAY), key_of(first_hour(now) + HOUR)
        else:
            days["end_offset"] = hours["end_offset"] = 1
        return {"day": dg.DailyPartitionsDefinition(**days), "hour": dg.HourlyPartitionsDefinition(**hours)}

    def span(self, granularity: Granularity = "day") -> tuple[date, date]:
        """The first and the last day, or hour, that have a partition now."""
        calendar = self.calendars[granularity]
        keys = calendar.get_first_partition_key(), calendar.get_last_partition_key()
        start = first_hour(self.clock.start) if granularity == "hour" else self.clock.start
        first, last = (interval_of(key) if key else start for key in keys)
        return first, last

    def has(self, interval: date) -> bool:
        """Whether a day or an hour has a partition now."""
        first, last = self.span("hour" if isinstance(interval, datetime) else "day")
        return first <= interval <= last

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


def renew_platform() -> None:
    """Have the platform read anew, and the definitions made anew from it: on a simulated clock time has moved on."""
    _platform.cache_clear()


@functools.lru_cache(maxsize=1)
def _platform(home: Path, project: Path) -> Platform:
    settings = load_settings().for_home(home).model_copy(update={"project": project})
    models = load_models(settings)
    views = {name: model for name, model in models.items() if model.view}
    return Platform(settings, load_contracts(settings.contracts_dir), stored(models), views)


def key_of(interval: date) -> str:
    """The partition key of a day or an hour."""
    return interval.strftime(HOUR_FORMAT if isinstance(interval, datetime) else DAY_FORMAT)


def interval_of(key: str) -> date:
    """The day or the hour of a partition key."""
    try:
        return datetime.strptime(key, HOUR_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return date.fromisoformat(key)


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
    """Links an asset to its contract, and says whom to ask and what has come to its end."""
    path = platform.settings.contracts_dir / f"{contract.name}.odcs.yaml"
    page, warning = platform.settings.contracts_url, contract.lifecycle.warning(platform.clock.now().date())
    link = f"{page or f'{PAGES_ROUTE}/{PAGE}'}#{contract.name}"
    return {
        "freshdata/contract": dg.MetadataValue.path(str(path.relative_to(platform.settings.own_project))),
        "freshdata/contract_version": contract.version,
        **({"freshdata/contact": contract.contact} if contract.contact else {}),
        "freshdata/contract_page": dg.MetadataValue.url(link),
        **({"freshdata/deprecation": warning} if warning else {}),
    }
