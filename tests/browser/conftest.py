"""A running platform over the first days of the sample, and a real headless browser on its UI."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from confluent_kafka import Producer
from dagster import DagsterInstance, DagsterRun
from dagster._core.scheduler.instigation import TickStatus
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright
from pyiceberg.catalog import Catalog

from freshdata.clock import Clock, instance_clock
from freshdata.contracts import load_contracts
from freshdata.lake.catalog import open_catalog
from freshdata.lake.cursors import behind
from freshdata.lake.progress import read_progress
from freshdata.sample.timeline import Timeline, historical_plan
from freshdata.services.kafka import client_config, end_offsets
from freshdata.services.platform import Platform
from freshdata.settings import PROJECT, Settings
from freshdata.transform.manifest import load_manifest
from tests.streams import wait_for

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SCREENSHOTS = Path(os.environ.get("FRESHDATA_SCREENSHOTS", PROJECT / ".ci" / "out"))
PATIENCE = 60_000  # milliseconds
START = date(2013, 1, 1)
PRESENT = datetime(2013, 1, 3, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Running:
    """The platform, as a user sees it and as the tests look behind it."""

    platform: Platform
    dagster: DagsterInstance

    @property
    def settings(self) -> Settings:
        return self.platform.settings

    @property
    def clock(self) -> Clock:
        return instance_clock(self.settings.home)

    @cached_property
    def catalog(self) -> Catalog:
        return open_catalog(self.settings)

    @cached_property
    def sample(self) -> pa.Table:
        """The messages of the first two weeks of 2013, with everything that real producers do wrong."""
        timeline = Timeline(load_contracts(PROJECT / "contracts"), historical_plan(1, disorder=True, seed=2013))
        return pa.concat_tables(chunk for number in (0, 1) if (chunk := timeline.chunk(number)) is not None)

    def send_sample(self, first: datetime, end: datetime) -> None:
        """Send the sample's messages of a time, and wait until Bronze has them."""
        sent_at = self.sample["sent_at"]
        chosen = self.sample.filter(pc.and_(pc.greater_equal(sent_at, first), pc.less(sent_at, end)))
        self.send(*chosen.select(["topic", "key", "payload", "sent_at"]).to_pylist())

    def send(self, *messages: dict[str, Any]) -> None:
        """Send messages (topic, key, payload, sent_at), and wait until Bronze has them."""
        producer = Producer({**client_config(self.settings), "queue.buffering.max.messages": 200_000})
        for message in messages:
            timestamp = int(message["sent_at"].timestamp() * 1000)
            producer.produce(message["topic"], message["payload"], message["key"], timestamp=timestamp)
            producer.poll(0)
        assert producer.flush(60) == 0
        wait_for(self.caught_up, "Bronze's catching up")

    def caught_up(self) -> bool:
        """Whether Bronze has every record of its topics."""
        for contract in self.platform.contracts.values():
            if contract.stream:
                ends = {p: end for p, end in end_offsets(self.settings, contract.rules.topic).items() if end}
                done = self.catalog.table_exists(contract.table) and read_progress(
                    self.catalog.load_table(contract.table)
                )
                if ends and (not done or {p: at.offset for p, at in done.partitions.items()} != ends):
                    return False
        return True

    def built(self) -> bool:
        """Whether Silver and Gold have all that Bronze has, and no run is under way."""
        upstream = {model.name: model.depends_on for model in load_manifest(self.settings).values()}
        return not behind(self.catalog, upstream) and all(run.is_finished for run in self.dagster.get_runs())

    def last_tick(self, sensor: str) -> TickStatus:
        """What has become of a sensor's last tick."""
        [state] = [each for each in self.dagster.all_instigator_state() if each.instigator_name == sensor]
        [tick] = self.dagster.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
        return tick.status

    def new_runs(self, known: set[str], *, automatic: bool = False) -> list[DagsterRun]:
        """The runs that were not there before, oldest first: those that sensors asked for, or the others."""
        found = [run for run in self.dagster.get_runs() if run.run_id not in known]
        return [run for run in reversed(found) if ("dagster/sensor_name" in run.tags) == automatic]

    def known_runs(self) -> set[str]:
        return {run.run_id for run in self.dagster.get_runs()}

    def finished(self, known: set[str], count: int = 1) -> list[DagsterRun]:
        """Wait until so many new runs that no sensor asked for have ended."""

        def ended() -> list[DagsterRun] | None:
            runs = self.new_runs(known)
            return runs if len(runs) >= count and all(run.is_finished for run in runs) else None

        runs: list[DagsterRun] = wait_for(ended, "the run's end")
        return runs


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Everything but the producer, with the sample's first days built up to Gold."""
    settings = Settings().for_home(tmp_path_factory.mktemp("browser"))
    instance_clock(settings.home).set(start=START, now=PRESENT)
    with Platform(settings) as platform:
        platform.start_kafka()
        platform.load_lookups()
        platform.start_workers()
        with DagsterInstance.from_config(str(_dagster_home(settings))) as instance:
            running = Running(platform, instance)
            running.send_sample(datetime.combine(START, time(), UTC), PRESENT)
            platform.start_dagster(web_port=0)
            wait_for(running.built, "Gold", settings.logs / "dagster-daemon.log")
            yield running


def _dagster_home(settings: Settings) -> Path:
    settings.dagster_home.mkdir(parents=True)
    shutil.copyfile(PROJECT / "dagster.yaml", settings.dagster_home / "dagster.yaml")
    return settings.dagster_home


@pytest.fixture(scope="module")
def browser(running: Running) -> Iterator[BrowserContext]:
    """A real browser that reaches nothing but loopback."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        context = browser.new_context(viewport={"width": 1700, "height": 1000}, base_url=running.platform.web_address)
        context.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        yield context
        browser.close()


@pytest.fixture
def page(browser: BrowserContext) -> Iterator[Page]:
    page = browser.new_page()
    yield page
    page.close()
