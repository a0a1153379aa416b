"""The SQLMesh project's configuration: derived from the instance's settings and the data contracts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlmesh.core.config import (  # noqa: TID253 - this module is imported lazily.
    CategorizerConfig,
    Config,
    DuckDBConnectionConfig,
    GatewayConfig,
    LinterConfig,
    ModelDefaultsConfig,
    PlanConfig,
)
from sqlmesh.core.config.common import VirtualEnvironmentMode  # noqa: TID253 - as above.
from sqlmesh.core.loader import SqlMeshLoader  # noqa: TID253 - as above.
from sqlmesh.core.model.definition import ExternalModel, create_external_model  # noqa: TID253 - as above.

import freshdata.transform.changes
import freshdata.transform.scd2  # noqa: F401 - SQLMesh finds materializations by import.
from freshdata.clock import instance_clock
from freshdata.contracts import Contract, load_contracts
from freshdata.lake.catalog import CATALOG_NAME, bronze_schema
from freshdata.settings import Settings
from freshdata.transform.engines import connection
from freshdata.transform.state import state_connection

SQL_TYPES = {
    pa.string(): "TEXT",
    pa.int32(): "INT",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.date32(): "DATE",
    pa.timestamp("us", "UTC"): "TIMESTAMPTZ",
    pa.timestamp("us"): "TIMESTAMP",
    pa.time64("us"): "TIME",
    pa.binary(): "BLOB",
}
LINT_RULES = {
    "noselectstar",
    "invalidselectstarexpansion",
    "ambiguousorinvalidcolumn",
    "noambiguousprojections",
    "nomissingaudits",
    "nomissingunittest",
    "nomissingexternalmodels",
}


class ContractLoader(SqlMeshLoader):  # type: ignore[misc]
    """Loads the project's SQL models, and from each contract the table its data lands in."""

    def __init__(self, context: Any, path: Path, *, contracts: str) -> None:
        super().__init__(context, path)
        self._contracts = Path(contracts)

    def _load_external_models(self, audits: Any, cache: Any, gateway: str | None = None) -> Any:
        models = super()._load_external_models(audits, cache, gateway)
        for path in sorted(self._contracts.glob("*.yaml")):
            self._track_file(path)
        contracts = load_contracts(self._contracts)
        for contract in contracts.values():
            model = self._external_model(contract, contracts, audits)
            models[model.fqn] = model
        return models

    def _external_model(self, contract: Contract, contracts: dict[str, Contract], audits: Any) -> ExternalModel:
        return create_external_model(
            contract.table,
            defaults=self.config.model_defaults.dict(),
            dialect=self.config.model_defaults.dialect,
            default_catalog=self.context.default_catalog,
            project=self.config.project,
            audit_definitions=audits,
            description=contract.description,
            owner=contract.owner,
            columns={field.name: sql_type(field.type) for field in landed_schema(contract, contracts)},
        )


def landed_schema(contract: Contract, contracts: dict[str, Contract]) -> pa.Schema:
    """The columns of the table that a contract's data lands in."""
    return bronze_schema(contract, contracts) if contract.kind == "stream" else contract.arrow_schema


def sql_type(kind: pa.DataType) -> str:
    """The SQL name of a column type that contracts know."""
    if pa.types.is_list(kind):
        return f"{sql_type(kind.value_type)}[]"
    return f"DECIMAL({kind.precision}, {kind.scale})" if pa.types.is_decimal(kind) else SQL_TYPES[kind]


def operation_variables(contracts: dict[str, Contract]) -> dict[str, Any]:
    """What models may say of a stream's operations: ``@NAME_deletes`` and ``@NAME_delete_mode``.

    They are part of the fingerprint of the models that use them.
    """
    variables: dict[str, Any] = {}
    for name, contract in contracts.items():
        if contract.stream and (operations := contract.stream.operations):
            variables[f"{name}_deletes"] = list(operations.delete)
            variables[f"{name}_delete_mode"] = operations.delete_mode
    return variables


def project_config(settings: Settings) -> Config:
    """Configure SQLMesh for an instance: everything that it writes goes into the instance's home folder."""
    folder = settings.home / "sqlmesh"
    folder.mkdir(parents=True, exist_ok=True)
    local = settings.engine == "duckdb"
    return Config(
        gateways={
            settings.engine: GatewayConfig(
                connection=connection(settings),
                state_connection=state_connection(settings),
                test_connection=DuckDBConnectionConfig(connector_config={"TimeZone": "UTC"}),
            )
        },
        default_gateway=settings.engine,
        model_defaults=ModelDefaultsConfig(
            dialect="duckdb", start=instance_clock(settings.home).start.isoformat(), cron="@daily"
        ),
        # DuckDB keeps the views of development environments in a catalog of its own.
        environment_catalog_mapping={"^prod$": CATALOG_NAME, ".*": "dev"} if local else {},
        virtual_environment_mode=VirtualEnvironmentMode.DEV_ONLY,
        loader=ContractLoader,
        loader_kwargs={"contracts": str(settings.contracts_dir)},
        variables=operation_variables(load_contracts(settings.contracts_dir)),
        plan=PlanConfig(auto_categorize_changes=CategorizerConfig.all_full()),
        linter=LinterConfig(enabled=True, rules=LINT_RULES),
        cache_dir=str(folder / "cache"),
        disable_anonymized_analytics=True,
    )
