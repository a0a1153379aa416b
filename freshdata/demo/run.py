"""Run the main job: replay real events, ingest them, let Dagster build Silver and Gold, and gather what came of it."""

from freshdata.demo.outcome import Outcome
from freshdata.demo.reconcile import reconcile
from freshdata.demo.runs import Runs
from freshdata.demo.steps import Steps, Tell
from freshdata.lake.catalog import open_catalog
from freshdata.sample.replay import replay
from freshdata.services.instance import own_home
from freshdata.services.platform import Platform
from freshdata.settings import Settings
from freshdata.verify.run import verify_platform

SEED = 2013
# A day's mean cannot be averaged over days without the number of flights behind it, so these are medians over days,
# or weighted by the very count that the mean was taken over.
ANSWERS = {
    "On time, by carrier (its median day)": """
        SELECT d.name AS carrier, sum(c.flights)::BIGINT AS flights,
               100 * median(c.on_time_share) AS "on time %", median(c.mean_dep_delay_min) AS "delay min"
        FROM gold.carrier_day c JOIN gold.dim_carrier d ON d.carrier = c.tenant_id
        GROUP BY ALL HAVING sum(c.flights) >= 30 ORDER BY "on time %" DESC, carrier LIMIT 8""",
    "Worst routes": """
        SELECT origin || ' → ' || dest AS route, sum(flights)::BIGINT AS flights,
               sum(mean_arr_delay_min * arrivals) / sum(arrivals) AS "late min",
               100 * sum(cancelled) / sum(flights) AS "cancelled %"
        FROM gold.route_day
        GROUP BY ALL HAVING sum(flights) >= 30 AND sum(arrivals) > 0 ORDER BY "late min" DESC, route LIMIT 8""",
}
HINTS = {
    'freshdata query "select * from gold.carrier_day limit 5"': "ask the lake yourself",
    "freshdata verify": "compare every layer again, row by row",
    "make up": "leave it running, with the Dagster UI on http://127.0.0.1:3000",
    "make demo MONTHS=12": "the whole year",
}


class Demo(Steps):
    """One run of the demo over an instance's folder.

    Attributes:
        settings: The demo's instance.
        months: Months of 2013 to send.
        disorder: Whether to add what real producers do wrong.
    """

    def __init__(self, settings: Settings, *, months: int, disorder: bool, seed: int = SEED) -> None:
        super().__init__(settings)
        self.months = months
        self.disorder = disorder
        self.seed = seed

    def run(self, *, tell: Tell) -> Outcome:
        """Run it; every process is stopped when this returns or raises.

        Args:
            tell: Called with what is being done.

        Raises:
            AlreadyRunningError: a demo runs in this folder.
            FreshDataError: a step failed.
        """
        with own_home(self.settings, keep_old=False, fresh=True), Platform(self.settings) as platform:
            self.stop_on_signals(platform)
            with self.step("start Kafka", tell):
                platform.start_kafka()
                platform.load_lookups()
            with self.step("send events", tell):
                replay(self.settings, months=self.months, disorder=self.disorder, seed=self.seed)
            streams = platform.streams
            catalog = open_catalog(self.settings)
            with self.step("Kafka → Bronze", tell):
                platform.start_workers()
                self.wait("the stream workers", lambda: all(self.caught_up(catalog, c) for c in streams))
            with self.step("Dagster: Silver → checks → Gold", tell):
                platform.start_dagster()
                runs = Runs(self.settings)
                self.wait("Dagster", lambda: self.built(catalog, runs))
            with self.step("verify", tell):
                report = verify_platform(self.settings)
                checks = reconcile(self.settings, catalog, streams, self.months, report)
            title = f"{self.months} month{'s' if self.months > 1 else ''} of flights from New York, 2013"
            claim = "Every event is accounted for, and Gold equals the source."
            outcome = self.outcome(
                catalog, streams, runs, checks, title=title, claim=claim, hints=HINTS, questions=ANSWERS
            )
            with self.step("stop", tell):
                platform.stop()
        return outcome
