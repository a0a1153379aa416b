"""Where the platform keeps its data and which services it uses: one frozen object, read from ``FRESHDATA_*``."""

import json
from pathlib import Path
from typing import Literal

from pydantic import AnyHttpUrl, BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from freshdata.errors import ConfigError

PROJECT = Path(__file__).resolve().parent.parent


def current_instance(root: Path) -> str:
    """The name of the instance a command means when none is named: the one used last."""
    marker = root / "current"
    return marker.read_text().strip() if marker.is_file() else "live"


class TenantLimits(BaseModel):
    """What the event gateway lets one tenant do.

    Attributes:
        events_per_second: Events on average; as many may come at once.
        bytes_per_second: Bytes of its requests, unpacked, on average.
        events_per_day: Accepted events of a UTC day; None is without a limit.
        requests_in_flight: Requests that are being answered at a time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    events_per_second: float = Field(default=10_000, gt=0)
    bytes_per_second: float = Field(default=16 * 1024 * 1024, gt=0)
    events_per_day: int | None = Field(default=None, ge=0)
    requests_in_flight: int = Field(default=128, ge=1)


class Settings(BaseSettings):
    """Settings of one platform instance.

    Attributes:
        project: Folder that holds ``contracts/`` and ``sqlmesh_models/``.
        models_override: ``FRESHDATA_MODELS``: folder of the SQLMesh project, instead of the one the instance follows.
        home_override: ``FRESHDATA_HOME``: the instance's data folder, instead of ``.freshdata/<instance>``.
        kafka_bootstrap: An existing cluster's ``host:port`` list; None starts and uses a local broker.
        kafka_config: librdkafka settings (TLS, SASL …) passed through to every client.
        schema_registry_url: A schema registry's Confluent-compatible API; None uses the instance's own, if it has one.
        schema_registry_config: confluent-kafka's settings of its client (``basic.auth.user.info``,
            ``bearer.auth.token``, ``ssl.ca.location`` …); never shown.
        contracts_url: Address at which the page that ``freshdata contract catalog`` writes is served; Dagster links it.
        catalog_uri: SQLAlchemy or REST URI of the Iceberg catalog; None keeps a SQLite catalog in the home folder.
        catalog_warehouse: Location of the tables; None keeps them in the home folder.
        catalog_properties: PyIceberg catalog properties (``s3.endpoint`` …) passed through.
        engine: What runs the models: ``duckdb`` in this process, ``spark``, or ``trino``.
        spark_config: Spark properties (``spark.master`` …), before and beside FreshData's own.
        trino_uri: Address of the Trino that the models run on, ``https://user@host:port``.
        state_uri: PostgreSQL database for SQLMesh's state, ``postgresql://user:password@host:port/database``; None
            keeps it in a file of the home folder, which one process at a time can use.
        alert_webhook: HTTP address to which alerts are posted as JSON; None posts none.
        worker_id: Name that a stream worker keeps over restarts (Kafka static membership): its successor gets its
            partitions at once, instead of after the session timeout.
        warm_runs: Whether Dagster's runs are forked from a process that has imported everything, 430 MB of it, instead
            of starting an interpreter each.
        metrics_port: Loopback port on which a stream worker serves ``/metrics``, ``/healthz`` and ``/readyz``; None or
            0 takes a free one. Either way it is written to a file in ``metrics_dir``.
        gateway_port: Loopback port of the event gateway.
        gateway_limits: What the gateway lets a tenant do.
        gateway_tenants: Tenant to the limits that it has otherwise.
        api_keys: File of the API keys, instead of ``api-keys.json`` in ``gateway_dir``.
        webhook_secrets: File of the secrets by which webhooks are signed, instead of ``webhook-secrets.json`` there.
        privacy_secret: Secret that personal data is hashed and encrypted with, at least 32 bytes.
        privacy_secret_file: File that holds it, instead.
    """

    model_config = SettingsConfigDict(env_prefix="FRESHDATA_", frozen=True, populate_by_name=True)

    project: Path = PROJECT
    models_override: Path | None = Field(default=None, validation_alias="FRESHDATA_MODELS")
    home_override: Path | None = Field(default=None, validation_alias="FRESHDATA_HOME")
    kafka_bootstrap: str | None = None
    kafka_config: dict[str, str] = {}
    schema_registry_url: str | None = None
    schema_registry_config: dict[str, SecretStr] = {}
    contracts_url: AnyHttpUrl | None = None
    catalog_uri: str | None = None
    catalog_warehouse: str | None = None
    catalog_properties: dict[str, str] = {}
    engine: Literal["duckdb", "spark", "trino"] = "duckdb"
    spark_config: dict[str, str] = {}
    trino_uri: str | None = None
    state_uri: str | None = None
    alert_webhook: AnyHttpUrl | None = None
    worker_id: str | None = None
    warm_runs: bool = False
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    gateway_port: int = Field(default=8080, ge=1, le=65535)
    gateway_limits: TenantLimits = TenantLimits()
    gateway_tenants: dict[str, TenantLimits] = {}
    api_keys: Path | None = None
    webhook_secrets: Path | None = None
    privacy_secret: SecretStr | None = None
    privacy_secret_file: Path | None = None

    @property
    def root(self) -> Path:
        """The project's own data folder: instances, downloaded jars, the marker of the current instance."""
        return self.project / ".freshdata"

    @property
    def home(self) -> Path:
        """The instance's data folder, absolute."""
        return (self.home_override or self.root / current_instance(self.root)).resolve()

    @property
    def own_project(self) -> Path:
        """Folder of contracts and models: the instance's own, where a demo has written some there, else the project."""
        own = self.home / "project"
        return own if own.is_dir() else self.project

    @property
    def contracts_dir(self) -> Path:
        """Folder of the data contracts."""
        return self.own_project / "contracts"

    @property
    def expectations_dir(self) -> Path:
        """Folder of Great Expectations suites of one's own; there need be none."""
        return self.project / "expectations"

    @property
    def working_models_dir(self) -> Path:
        """Folder of the SQLMesh project that people edit."""
        return self.own_project / "sqlmesh_models"

    @property
    def models_versions_dir(self) -> Path:
        """Folder of the model versions that this instance keeps, and of the file that says which it follows."""
        return self.home / "models"

    @property
    def models_dir(self) -> Path:
        """Folder of the SQLMesh project that the instance runs: what was promoted to it, else the project's files."""
        if self.models_override:
            return self.models_override
        followed = self.models_versions_dir / "followed.json"
        if followed.is_file():
            fingerprint = str(json.loads(followed.read_text())[-1]["fingerprint"])
            return self.models_versions_dir / fingerprint / "sqlmesh_models"
        return self.working_models_dir

    @property
    def dagster_home(self) -> Path:
        """``DAGSTER_HOME`` of this instance."""
        return self.home / "dagster"

    @property
    def gateway_dir(self) -> Path:
        """Folder of what the event gateway knows: API keys, webhook secrets, and its memory."""
        return self.home / "gateway"

    @property
    def logs(self) -> Path:
        """Folder of the services' log files."""
        return self.home / "logs"

    @property
    def pages_dir(self) -> Path:
        """Folder of the HTML pages: the contracts', and the reports that checks link to."""
        return self.home / "pages"

    @property
    def run_dir(self) -> Path:
        """Folder of lock, port and process files of what runs now."""
        return self.home / "run"

    @property
    def metrics_dir(self) -> Path:
        """Folder with one file for each running worker that says where its metrics are (Prometheus' ``file_sd``)."""
        return self.run_dir / "metrics"

    def limits_of(self, tenant: str) -> TenantLimits:
        """What the gateway lets a tenant do: its own limits where it has some, else everybody's."""
        own = self.gateway_tenants.get(tenant)
        return self.gateway_limits.model_copy(update=own.model_dump(exclude_unset=True) if own else {})

    def for_home(self, home: Path) -> "Settings":
        """The same settings over another data folder."""
        return self.model_copy(update={"home_override": home})

    def for_models(self, folder: Path) -> "Settings":
        """The same settings with another SQLMesh project."""
        return self.model_copy(update={"models_override": folder})


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        ConfigError: a ``FRESHDATA_*`` variable has a value of the wrong form.
    """
    try:
        return Settings()
    except (ValidationError, SettingsError) as error:
        raise ConfigError(
            f"A FRESHDATA_* environment variable has a value of the wrong form: {error}.",
            remedy="Correct the variable it names.",
        ) from error
