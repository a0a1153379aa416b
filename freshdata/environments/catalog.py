"""Production's catalog as an environment sees it: the same names, its own tables in place of those it builds.

SQL, unit tests, cursors and checks need not know that they run in an environment. What is production's is frozen at the
moment of the plan, and cannot be written through here.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NamespaceAlreadyExistsError, NoSuchNamespaceError, TableAlreadyExistsError
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRef, SnapshotRefType
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, SortOrder
from pyiceberg.table.update import TableRequirement, TableUpdate
from pyiceberg.typedef import EMPTY_DICT, Identifier, Properties

from freshdata.errors import LakeError
from freshdata.lake.progress import ancestors

SEPARATOR = "__"


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise NotImplementedError("An environment's catalog creates, reads, commits to and drops tables.")


_unsupported: Any = _refuse


class EnvironmentCatalog(Catalog):
    """A catalog whose tables are some of production's, read only, and those of an environment.

    Args:
        catalog: Production's catalog.
        environment: The environment's name: its ``silver.x`` is ``<environment>__silver.x`` in production's catalog.
        frozen: Production's tables that it reads, as it is to see them.
    """

    def __init__(self, catalog: Catalog, environment: str, frozen: Mapping[str, Table]) -> None:
        super().__init__(catalog.name, **catalog.properties)
        self._catalog = catalog
        self._environment = environment
        self._frozen = frozen

    def load_table(self, identifier: str | Identifier) -> Table:
        """Load one of production's tables as it was frozen, or one of the environment's."""
        if (frozen := self._frozen.get(_name(identifier))) is not None:
            return self._view(identifier, frozen)
        return self._view(identifier, self._catalog.load_table(self._own(identifier)))

    def table_exists(self, identifier: str | Identifier) -> bool:
        """Whether the environment sees a table of this name."""
        return _name(identifier) in self._frozen or self._catalog.table_exists(self._own(identifier))

    def create_table(  # noqa: PLR0917 - the base class's signature.
        self,
        identifier: str | Identifier,
        schema: Schema | pa.Schema,
        location: str | None = None,
        partition_spec: PartitionSpec = UNPARTITIONED_PARTITION_SPEC,
        sort_order: SortOrder = UNSORTED_SORT_ORDER,
        properties: Properties = EMPTY_DICT,
    ) -> Table:
        """Create a table of the environment's.

        Raises:
            TableAlreadyExistsError: the environment sees one of this name.
        """
        if _name(identifier) in self._frozen:
            raise TableAlreadyExistsError(f"{_name(identifier)} is production's")
        own = self._own(identifier)
        self._catalog.create_namespace_if_not_exists(own[:-1])
        created = self._catalog.create_table(own, schema, location, partition_spec, sort_order, properties)
        return self._view(identifier, created)

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        """Commit to a table of the environment's.

        Raises:
            LakeError: the table is production's.
        """
        self._refuse_frozen(table.name())
        own = Table(self._own(table.name()), table.metadata, table.metadata_location, table.io, self._catalog)
        return self._catalog.commit_table(own, requirements, updates)

    def drop_table(self, identifier: str | Identifier) -> None:
        """Drop a table of the environment's, with its files: nobody else's history leads to them.

        Raises:
            LakeError: the table is production's.
        """
        self._refuse_frozen(identifier)
        self._catalog.purge_table(self._own(identifier))

    def list_tables(self, namespace: str | Identifier) -> list[Identifier]:
        """The tables of a namespace that the environment sees."""
        wanted = self.identifier_to_tuple(namespace)
        own = (self._own((*wanted, ""))[0],)
        found = {self.identifier_to_tuple(name) for name in self._frozen}
        listed = self._catalog.list_tables(own) if self._catalog.namespace_exists(own) else []
        return sorted({name for name in found if name[:-1] == wanted} | {(*wanted, name[-1]) for name in listed})

    def list_namespaces(self, namespace: str | Identifier = ()) -> list[Identifier]:
        """The namespaces that the environment sees."""
        if namespace:
            return []
        own = {
            (name.removeprefix(self._environment + SEPARATOR),)
            for (name,) in self._catalog.list_namespaces()
            if self._environment and name.startswith(self._environment + SEPARATOR)
        }
        return sorted(own | {self.identifier_to_tuple(name)[:-1] for name in self._frozen})

    def namespace_exists(self, namespace: str | Identifier) -> bool:
        """Whether the environment sees a namespace."""
        return self.identifier_to_tuple(namespace) in self.list_namespaces()

    def create_namespace(self, namespace: str | Identifier, properties: Properties = EMPTY_DICT) -> None:
        """Create a namespace of the environment's.

        Raises:
            NamespaceAlreadyExistsError: the environment sees one of this name.
        """
        if self.namespace_exists(namespace):
            raise NamespaceAlreadyExistsError(_name(namespace))
        self._catalog.create_namespace(self._own((*self.identifier_to_tuple(namespace), ""))[:-1], properties)

    def load_namespace_properties(self, namespace: str | Identifier) -> Properties:
        """No properties; a namespace that the environment does not see is an error."""
        if not self.namespace_exists(namespace):
            raise NoSuchNamespaceError(_name(namespace))
        return {}

    def _own(self, identifier: str | Identifier) -> Identifier:
        namespace, *rest = self.identifier_to_tuple(identifier)
        return (f"{self._environment}{SEPARATOR}{namespace}", *rest)

    def _view(self, identifier: str | Identifier, table: Table) -> Table:
        name = self.identifier_to_tuple(identifier)
        return Table(name, table.metadata, table.metadata_location, table.io, self, table.config)

    def _refuse_frozen(self, identifier: str | Identifier) -> None:
        if _name(identifier) in self._frozen:
            raise LakeError(
                _name(identifier),
                f"is production's: the environment {self._environment} reads it and may not change it.",
                remedy="If a contract has changed, publish it first: `freshdata contract publish`.",
            )

    # An environment has no use for the rest of a catalog's operations.
    create_table_transaction = register_table = purge_table = rename_table = _unsupported
    drop_namespace = update_namespace_properties = _unsupported
    create_view = drop_view = list_views = load_view = register_view = view_exists = _unsupported

    def supports_server_side_planning(self) -> bool:
        """No: whoever reads plans its scan from the manifests."""
        return False


def table_at(table: Table, snapshot_id: int) -> Table:
    """A table as it was at one of its snapshots, with its present columns; to be read only."""
    main = SnapshotRef.model_validate({"snapshot-id": snapshot_id, "type": SnapshotRefType.BRANCH})
    pinned = {
        "current_snapshot_id": snapshot_id,
        "refs": {MAIN_BRANCH: main},
        # DuckDB takes the newest snapshot there is, whatever the reference says.
        "snapshots": list(ancestors(table, of=snapshot_id)),
        "snapshot_log": [],
    }
    metadata = table.metadata.model_copy(update=pinned)
    return Table(table.name(), metadata, table.metadata_location, table.io, table.catalog, table.config)


def _name(identifier: str | Identifier) -> str:
    return ".".join(Catalog.identifier_to_tuple(identifier))
