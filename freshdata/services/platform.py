"""The platform's processes: Kafka, one worker a stream, Dagster, and the producer of a live sample."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from freshdata.cdc.source import read_sources
from freshdata.clock import instance_clock
from freshdata.contracts import Contract, load_contracts
from freshdata.contracts.loader import SUFFIX
from freshdata.contracts.page import write_page
from freshdata.services.broker import broker_program
from freshdata.services.connect import connect_program
from freshdata.services.extras import Extra
from freshdata.services.instance import platform_file
from freshdata.services.kafka import ensure_topics
from freshdata.services.postgres import postgres_program
from freshdata.services.processes import ChildState, Program, Supervisor, created, free_port, listening, write_json
from freshdata.services.registry import registry_program
from freshdata.settings import Settings

ASSETS = "freshdata_assets.definitions"
WARM = "freshdata_assets.warm.launcher"
# The folders that Dagster's own storages use.
WARM_STORAGES = {
    "run_storage": ("WarmRunStorage", "history"),
    "event_log_storage": ("WarmEventLogStorage", "history/runs"),
    "schedule_storage": ("WarmScheduleStorage", "schedules"),
}
WARM_DAEMON = "freshdata_assets.warm.daemon"
WEB = "freshdata_assets.web"
LOCATION = "freshdata"
SHOP_RATE = 5.0  # transactions a second


@dataclass(frozen=True)
class LiveSample:
    """How the live sample is produced.

    Attributes:
        speed: Simulated seconds a second until the present is reached.
        history_days: Days before today that are sent first.
    """

    speed: float = 3600
    history_days: int = 7


class Platform:
    """Starts and supervises an instance's processes; the caller owns the instance (see :func:`own_home`).

    Each ``start_`` method returns when its processes answer; they are restarted when they die, and stopped in reverse
    order at the end of the ``with`` block. Call them from the main thread.

    Attributes:
        settings: The instance.
        contracts: Its contracts by name.
        web_address: Address of the Dagster UI, or None.
    """

    def __init__(
        self, settings: Settings, *, tell: Callable[[str], None] = lambda _: None, assets: str = ASSETS
    ) -> None:
        self.settings = settings
        # A project without any gets its first from a database that is captured.
        some = any(settings.contracts_dir.glob(f"*{SUFFIX}"))
        self.contracts: dict[str, Contract] = load_contracts(settings.contracts_dir) if some else {}
        self.web_address: str | None = None
        self._tell = tell
        self._assets = assets
        self._step = "starting"
        self._warnings: list[str] = []
        self._ready = False
        self._started = datetime.now(UTC)
        self._supervisor = Supervisor(settings.logs, self._write_state)
        self._scratch = ExitStack()
        self._followed = _captured(settings)

    def __enter__(self) -> Self:
        self._write_state()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start_kafka(self) -> None:
        """Start the local broker (unless a cluster is configured) and create the contracts' topics.

        Raises:
            PrerequisiteError: Java or the jars are missing.
            ServiceError: Kafka did not start, or refuses a topic.
        """
        if not self.settings.kafka_bootstrap:
            self._say("Kafka")
            self._supervisor.start("kafka", lambda: broker_program(self.settings))
        self._say("topics")
        ensure_topics(self.settings, self.contracts.values())

    def start_registry(self) -> None:
        """Start the local schema registry, unless one is configured.

        Raises:
            PrerequisiteError: a Java 21 or the registry's files are missing.
            ServiceError: it did not start.
        """
        if not self.settings.schema_registry_url:
            self._say("schema registry")
            self._supervisor.start("registry", lambda: registry_program(self.settings))

    def publish_contracts(self) -> None:
        """Publish the streams' contracts, so that their schemas are in the registry; what is refused is told."""
        from freshdata.lake.catalog import open_catalog
        from freshdata.publishing import publish_contract

        self._say("contracts' schemas")
        catalog = None
        for contract in self.contracts.values():
            if contract.stream and not contract.rules.capture:
                try:
                    catalog = catalog or open_catalog(self.settings)
                    publish_contract(self.settings, catalog, contract, self.contracts)
                except Exception as error:  # noqa: BLE001 - events need no registry: nothing of this may keep them.
                    self._warnings.append(f"The schema of {contract.name} was not registered. {error}")
                    self._say(self._warnings[-1])

    def start_cdc(self, *, rate: float = SHOP_RATE) -> None:
        """Start PostgreSQL with the sample shop in use, Kafka Connect that captures it, and what watches captures.

        Args:
            rate: Transactions a second in the shop; 0 leaves it alone.

        Raises:
            PrerequisiteError: PostgreSQL, Java or the jars are missing.
            ServiceError: one did not start.
            CaptureError: the shop cannot be captured.
        """
        from freshdata.cdc.add import add
        from freshdata.sample.shop import DATABASE, TABLES, copy_models, create_shop, shop_address

        self._say("PostgreSQL")
        self._supervisor.start("postgres", lambda: postgres_program(self.settings))
        self._say("Kafka Connect")
        self._supervisor.start("connect", lambda: connect_program(self.settings), restart_with="kafka")
        self._say("the shop")
        create_shop(self.settings)
        copy_models(self.settings)
        # At each start: the server's port may be another one.
        add(self.settings, dsn=shop_address(self.settings), tables=TABLES, name=DATABASE)
        self._supervisor.start("cdc-watch", partial(_same, self._python("freshdata.cdc.watch")))
        if rate:
            shop = self._python("freshdata.sample.shop", "--rate", str(rate))
            self._supervisor.start("shop", partial(_same, shop), restart_with="postgres")
        self.contracts = load_contracts(self.settings.contracts_dir)
        self._followed = _captured(self.settings)

    def load_lookups(self) -> None:
        """Write the lookup tables the workers enrich from."""
        from freshdata.sample.lookups import load_lookups

        self._say("lookup tables")
        load_lookups(self.settings, self.contracts)

    def start_workers(self) -> None:
        """Start one worker for each stream that has none.

        Raises:
            ServiceError: one did not start.
        """
        running = {child.name for child in self.children()}
        for contract in self.streams:
            name = f"worker-{contract.name}"
            if name not in running:
                self._say(f"worker of {contract.name}")
                program = self._python("stream_workers", contract.name)
                # Under a name it keeps, a restarted worker gets its partitions back at once.
                program = replace(program, env={**program.env, "FRESHDATA_WORKER_ID": name})
                self._supervisor.start(name, partial(_same, program), restart_with="kafka")

    def start_dagster(self, *, web_port: int | None = None) -> None:
        """Start Dagster's code server and daemon, and its web UI if a port is given.

        Args:
            web_port: Port of the UI on 127.0.0.1; another one is taken, and told, when it is busy. None starts no UI.

        Raises:
            ServiceError: one did not start.
        """
        home = self.settings.dagster_home
        home.mkdir(parents=True, exist_ok=True)
        if web_port is not None:
            write_page(self.contracts, self.settings.pages_dir, instance_clock(self.settings.home).now().date())
        shutil.copyfile(self.settings.project / "dagster.yaml", home / "dagster.yaml")
        if self.settings.warm_runs:
            self._start_warm(home / "dagster.yaml")
        self._say("Dagster's code server")
        # The workspace file names the port, so a restarted code server must come back on the same one.
        port = free_port()
        self._supervisor.start("dagster-code", lambda: self._code_server(port))
        workspace = self.settings.run_dir / "workspace.json"  # JSON is YAML.
        server = {"host": "127.0.0.1", "port": port, "location_name": LOCATION}
        write_json(workspace, {"load_from": [{"grpc_server": server}]})
        self._say("Dagster's daemon")
        module = WARM_DAEMON if self.settings.warm_runs else "dagster._daemon"
        daemon = self._dagster(module, "run", "-w", str(workspace))
        self._supervisor.start("dagster-daemon", partial(_same, daemon))
        if web_port is not None:
            self._say("Dagster's web UI")
            chosen = free_port(web_port)
            if chosen != web_port:
                self._tell(f"Port {web_port} is busy: the Dagster UI is on {chosen}.")
            web = (WEB, "-w", str(workspace), "-h", "127.0.0.1", "-p", str(chosen))
            program = self._dagster(*web, port=chosen, ready=partial(listening, chosen))
            self._supervisor.start("dagster-web", partial(_same, program))
            self.web_address = f"http://127.0.0.1:{chosen}"

    def _start_warm(self, dagster_yaml: Path) -> None:
        # Until it has imported everything, and whenever it does not answer, runs start in the ordinary way. A socket's
        # path is at most a hundred characters long, and nobody else may make it: a folder of its own.
        path = Path(self._scratch.enter_context(TemporaryDirectory(prefix="freshdata-"))) / "warm.sock"
        launcher = {"module": WARM, "class": "WarmRunLauncher", "config": {"socket": str(path)}}
        added = {"run_launcher": launcher}
        for part, (name, folder) in WARM_STORAGES.items():
            place = {"base_dir": str(self.settings.dagster_home / folder)}
            added[part] = {"module": "freshdata_assets.warm.storage", "class": name, "config": place}
        with dagster_yaml.open("a") as settings:
            settings.writelines(f"\n{part}: {json.dumps(value)}\n" for part, value in added.items())  # JSON is YAML.
        program = self._python("freshdata_assets.warm.server", str(path))
        # Threads would be there when it forks.
        single = {"SQLMESH__DISABLE_ANONYMIZED_ANALYTICS": "true", "OPENBLAS_NUM_THREADS": "1"}
        self._supervisor.start("dagster-warm", partial(_same, replace(program, env={**program.env, **single})))

    def start_producer(self, sample: LiveSample) -> None:
        """Start the live sample's producer.

        Raises:
            ConfigError: the instance holds a historical replay.
            ServiceError: it did not start.
        """
        options = ("--live", "--speed", str(sample.speed), "--history-days", str(sample.history_days))
        program = self._python("freshdata.cli", "produce", *options)
        self._say("sample producer")
        self._supervisor.start("producer", partial(_same, program), restart_with="kafka")

    def start_gateway(self) -> None:
        """Start the event gateway; on another port than the setting's, which is told, when that one is busy.

        Raises:
            ServiceError: it did not start.
        """
        self._say("event gateway")
        wanted = self.settings.gateway_port
        port = free_port(wanted)
        if port != wanted:
            self._tell(f"Port {wanted} is busy: the event gateway is on {port}.")
        program = self._python("serving_api.gateway", port=port, ready=partial(listening, port))
        program = replace(program, env={**program.env, "FRESHDATA_GATEWAY_PORT": str(port)})
        self._supervisor.start(Extra.GATEWAY, partial(_same, program), restart_with="kafka")

    def start_live(self, sample: LiveSample, *, web_port: int, extras: Collection[Extra] = ()) -> None:
        """Start everything, with the live sample flowing in.

        Args:
            sample: How it is produced.
            web_port: Port of the Dagster UI.
            extras: What else to start.

        Raises:
            FreshDataError: something did not start.
        """
        from freshdata.sample.replay import ensure_live_plan

        self.start_kafka()
        if Extra.REGISTRY in extras:
            self.start_registry()
        if Extra.CDC in extras:
            self.start_cdc()
        # Dagster's partitions begin where the sample does: its clock must be set before.
        ensure_live_plan(self.settings, history_days=sample.history_days)
        self.load_lookups()
        self.start_workers()
        self.start_dagster(web_port=web_port)
        self.start_producer(sample)
        if Extra.GATEWAY in extras:
            self.start_gateway()
        if Extra.REGISTRY in extras:
            self.publish_contracts()
        self._ready = True
        self._say("ready")

    @property
    def streams(self) -> list[Contract]:
        """The contracts of the streams that flow here: a database's only where this instance follows it."""
        followed = read_sources(self.settings)
        streams = [contract for contract in self.contracts.values() if contract.stream]
        return [c for c in streams if c.rules.capture is None or c.rules.capture.source in followed]

    def follow_sources(self) -> None:
        """Start what newly captured tables need; to be called now and then.

        Dagster's code server is started again for them: its runs end, and are made up for by the next tick.

        Raises:
            FreshDataError: something did not start.
        """
        tables = _captured(self.settings)
        if tables - self._followed:
            self.contracts = load_contracts(self.settings.contracts_dir)
            self.start_workers()
            for name in ("dagster-warm", "dagster-code"):
                self._supervisor.restart(name)
            self._say("ready")
        self._followed = tables

    def children(self) -> list[ChildState]:
        """The processes, in starting order."""
        return self._supervisor.states()

    def cancel(self) -> None:
        """Make a start that waits give up; callable from a signal handler."""
        self._supervisor.cancel()

    def stop(self) -> None:
        """Stop all processes in reverse order."""
        self._supervisor.stop()
        self._scratch.close()
        platform_file(self.settings).unlink(missing_ok=True)

    def _say(self, step: str) -> None:
        self._step = step
        self._tell(step)
        self._write_state()

    def _write_state(self) -> None:
        pid = os.getpid()
        write_json(
            platform_file(self.settings),
            {
                "pid": pid,
                "created": created(pid),
                "started": self._started.isoformat(),
                "ready": self._ready,
                "step": self._step,
                "warnings": self._warnings,
                "web": self.web_address,
                "children": [asdict(child) for child in self.children()],
            },
        )

    def _code_server(self, port: int) -> Program:
        where = ("-h", "127.0.0.1", "-p", str(port), "-d", str(self.settings.project))
        what = ("-m", self._assets, "--location-name", LOCATION, "--inject-env-vars-from-instance")
        return self._dagster("dagster", "api", "grpc", *where, *what, port=port, ready=partial(listening, port))

    def _dagster(self, module: str, *arguments: str, port: int | None = None, **options: Any) -> Program:
        # SIGTERM, unlike the others: the code server takes its runs' processes with it.
        program = self._python(module, *arguments, port=port, **options)
        return replace(program, death_signal=signal.SIGTERM)

    def _python(
        self, module: str, *arguments: str, port: int | None = None, ready: Callable[[], bool] = lambda: True
    ) -> Program:
        env = {
            "FRESHDATA_HOME": str(self.settings.home),
            "DAGSTER_HOME": str(self.settings.dagster_home),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "PYTHONUNBUFFERED": "1",
        }
        command = (sys.executable, "-m", module, *arguments)
        return Program(command=command, env=env, cwd=self.settings.project, port=port, ready=ready)


def _captured(settings: Settings) -> set[tuple[str, str]]:
    """Every source's captured tables."""
    return {(source.name, table) for source in read_sources(settings).values() for table in source.tables}


def _same(program: Program) -> Program:
    return program
