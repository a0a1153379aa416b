"""Capture a shop's database while people use it, and compare what became of it with the shop, row by row."""

import shutil
import threading
from collections import Counter
from collections.abc import Callable

from freshdata.cdc.connector import Connect
from freshdata.cdc.health import read_health
from freshdata.cdc.source import known_source
from freshdata.demo.outcome import Outcome
from freshdata.demo.reconcile import rows_check
from freshdata.demo.runs import Runs
from freshdata.demo.steps import Steps, Tell
from freshdata.lake.catalog import open_catalog
from freshdata.sample.shop import DATABASE, shop_address, use_shop
from freshdata.services.instance import own_home
from freshdata.services.platform import Platform
from freshdata.settings import Settings
from freshdata.verify.run import verify_platform
from freshdata.verify.source import verify_source

# Of the lag that heartbeats themselves make.
IDLE_BYTES = 10_000
QUESTIONS = {
    "Orders as they are now": """
        SELECT state, count(*) AS orders, sum(total)::DOUBLE AS total
        FROM silver.shop_orders GROUP BY ALL ORDER BY orders DESC""",
    "Changes that made them": """
        SELECT _op AS operation, count(*) AS changes, count(DISTINCT _transaction) AS transactions
        FROM bronze.shop_orders GROUP BY ALL ORDER BY changes DESC""",
}
HINTS = {
    'freshdata query "select * from silver.shop_orders limit 5"': "ask the lake yourself",
    "freshdata up --with cdc": "leave a shop running, with the Dagster UI on http://127.0.0.1:3000",
    "freshdata cdc add --dsn postgresql://… --tables …": "follow a database of your own",
}


class CaptureDemo(Steps):
    """One run of the demo over an instance's folder, with contracts and models of its own there.

    Attributes:
        seconds: How long people use the shop.
        rate: Their transactions a second.
    """

    def __init__(self, settings: Settings, *, seconds: float, rate: float) -> None:
        super().__init__(settings)
        self.seconds = seconds
        self.rate = rate

    def run(self, *, tell: Tell, progress: Callable[[Counter[str]], None] = lambda _: None) -> Outcome:
        """Run it; every process is stopped when this returns or raises.

        Args:
            tell: Called with what is being done.
            progress: Called with what people have done so far.

        Raises:
            AlreadyRunningError: a demo runs in this folder.
            FreshDataError: a step failed.
        """
        with own_home(self.settings, keep_old=False, fresh=True):
            self._make_project()
            with Platform(self.settings) as platform:
                self.stop_on_signals(platform)
                return self._run(platform, tell, progress)

    def _make_project(self) -> None:
        models, own = self.settings.working_models_dir, self.settings.home / "project"
        (own / "contracts").mkdir(parents=True)
        shutil.copytree(models / "audits", own / "sqlmesh_models" / "audits")
        shutil.copy(models / "config.py", own / "sqlmesh_models")

    def _run(self, platform: Platform, tell: Tell, progress: Callable[[Counter[str]], None]) -> Outcome:
        with self.step("start Kafka", tell):
            platform.start_kafka()
        with self.step("start PostgreSQL, Kafka Connect and the capture", tell):
            platform.start_cdc(rate=0)
        catalog = open_catalog(self.settings)
        with self.step("start workers and Dagster", tell):
            platform.start_workers()
            platform.start_dagster()
        address, stop = shop_address(self.settings), threading.Event()
        with self.step(f"use the shop for {self.seconds:.0f} s", tell):
            done = use_shop(address, rate=self.rate, seconds=self.seconds, stop=stop, progress=progress)
        runs, source = Runs(self.settings), known_source(self.settings, DATABASE)
        with self.step("PostgreSQL → Kafka → Bronze", tell):
            api = Connect(self.settings)
            self.wait("the capture", lambda: _idle(read_health(api, source).lag))
            self.wait("the workers", lambda: all(self.caught_up(catalog, c) for c in platform.streams))
        with self.step("Dagster: Silver → checks → Gold", tell):
            self.wait("Dagster", lambda: self.built(catalog, runs))
        with self.step("verify", tell):
            checks = [rows_check("Kafka = Bronze = Silver = Gold", verify_platform(self.settings))]
            checks.append(rows_check("PostgreSQL = Silver", verify_source(self.settings, address)))
        rows = f"{done['insert']:,} rows inserted, {done['update']:,} updated, {done['delete']:,} deleted"
        title = f"a shop's database, captured: {done['transactions']:,} transactions, {rows}"
        claim = "Silver equals the shop's database, row for row."
        outcome = self.outcome(
            catalog, platform.streams, runs, checks, title=title, claim=claim, hints=HINTS, questions=QUESTIONS
        )
        with self.step("stop", tell):
            platform.stop()
        return outcome


def _idle(lag: int | None) -> bool:
    return lag is not None and lag < IDLE_BYTES
