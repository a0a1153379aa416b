"""What a PostgreSQL database says of its tables: columns, types, keys, and what logical replication needs to know."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from freshdata.cdc.source import CAPTURE_SCHEMA

if TYPE_CHECKING:
    import psycopg2.extensions

TABLES = """
SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, c.relreplident,
       coalesce(obj_description(c.oid, 'pg_class'), ''), has_table_privilege(c.oid, 'SELECT'),
       pg_has_role(c.relowner, 'USAGE'), pg_get_userbyid(c.relowner),
       ARRAY(SELECT a.attname::text FROM pg_index i
             CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, place)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
             WHERE i.indrelid = c.oid AND i.indisprimary ORDER BY k.place)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND n.nspname NOT IN ('information_schema', %(own)s) AND n.nspname !~ '^pg_'
ORDER BY 2, 3
"""
# A domain is followed down to the type it is made of; its modifier counts where it has one.
COLUMNS = """
WITH RECURSIVE resolved AS (
  SELECT a.attnum, a.atttypid AS type, a.atttypmod AS modifier
  FROM pg_attribute a WHERE a.attrelid = %(table)s AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
  SELECT r.attnum, t.typbasetype, CASE WHEN t.typtypmod <> -1 THEN t.typtypmod ELSE r.modifier END
  FROM resolved r JOIN pg_type t ON t.oid = r.type WHERE t.typtype = 'd'
)
SELECT a.attname, format_type(a.atttypid, a.atttypmod), coalesce(e.typname, t.typname), coalesce(e.typtype, t.typtype),
       r.modifier, e.oid IS NOT NULL, a.attndims, a.attnotnull, a.attgenerated <> '',
       a.attlen = -1 AND a.attstorage <> 'p',
       coalesce(col_description(a.attrelid, a.attnum), ''),
       ARRAY(SELECT l.enumlabel::text FROM pg_enum l
             WHERE l.enumtypid = coalesce(e.oid, t.oid) ORDER BY l.enumsortorder)
FROM resolved r
JOIN pg_attribute a ON a.attrelid = %(table)s AND a.attnum = r.attnum
JOIN pg_type t ON t.oid = r.type AND t.typtype <> 'd'
LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
ORDER BY a.attnum
"""
SERVER = """
SELECT current_setting('server_version_num')::int, current_setting('wal_level'), current_user,
       r.rolsuper OR r.rolreplication OR EXISTS (
         SELECT FROM pg_roles m WHERE m.rolname = 'rds_replication' AND pg_has_role(m.oid, 'USAGE')),
       has_database_privilege(current_database(), 'CREATE'),
       current_setting('max_replication_slots')::int,
       (SELECT count(*) FROM pg_replication_slots),
       EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = %(slot)s)
FROM pg_roles r WHERE r.rolname = current_user
"""


@dataclass(frozen=True)
class SourceColumn:
    """A column of a table.

    Attributes:
        name: Its name.
        declared: Its type as PostgreSQL writes it.
        type: Name of the type; of an array, of its elements; of a domain, of what it is made of.
        kind: ``b`` for a base type, ``e`` for an enum, ``c`` for a composite, ``r`` for a range, ``d`` for a domain.
        modifier: The type's modifier (length, precision), or -1.
        array: Whether it is an array.
        dimensions: Declared dimensions of the array.
        required: Whether it is NOT NULL.
        generated: Whether PostgreSQL computes it.
        toastable: Whether a long value is stored apart, and then missing from changes that do not touch it.
        comment: Its comment, or an empty string.
        labels: The values of an enum.
    """

    name: str
    declared: str
    type: str
    kind: str
    modifier: int
    array: bool
    dimensions: int
    required: bool
    generated: bool
    toastable: bool
    comment: str
    labels: list[str]


@dataclass(frozen=True)
class SourceTable:
    """A table, or what else a name stands for.

    Attributes:
        columns: Its columns.
        schema: Its schema.
        name: Its name.
        kind: ``r`` for a table, ``p`` for a partitioned one, ``v``, ``m`` and ``f`` for views and foreign tables.
        persistence: ``p`` for a permanent one, ``u`` for an unlogged one.
        identity: Its REPLICA IDENTITY: ``d`` default, ``f`` full, ``n`` nothing, ``i`` an index.
        comment: Its comment, or an empty string.
        readable: Whether this role may read it.
        owned: Whether this role may put it into a publication.
        owner: The role that owns it.
        key: The columns of its primary key.
    """

    columns: list[SourceColumn]
    schema: str
    name: str
    kind: str
    persistence: str
    identity: str
    comment: str
    readable: bool
    owned: bool
    owner: str
    key: list[str]

    @property
    def full_name(self) -> str:
        """``schema.table``."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class Server:
    """What logical replication needs of a server and a role.

    Attributes:
        version: ``server_version_num``.
        wal_level: The setting.
        role: The role of the connection.
        may_replicate: Whether it may use replication slots.
        may_create: Whether it may create publications and schemas in the database.
        slots: ``max_replication_slots``.
        slots_used: How many there are.
        has_slot: Whether the source's own is there.
    """

    version: int
    wal_level: str
    role: str
    may_replicate: bool
    may_create: bool
    slots: int
    slots_used: int
    has_slot: bool


def read_server(connection: "psycopg2.extensions.connection", slot: str) -> Server:
    """What a server says of itself and of this connection's role."""
    with connection.cursor() as cursor:
        cursor.execute(SERVER, {"slot": slot})
        return Server(*cursor.fetchone())


def read_tables(connection: "psycopg2.extensions.connection") -> dict[str, SourceTable]:
    """All tables and views of a database by ``schema.table``, those of the system and of FreshData left out."""
    with connection.cursor() as cursor:
        cursor.execute(TABLES, {"own": CAPTURE_SCHEMA})
        found = {}
        rows: list[Any] = cursor.fetchall()
        for oid, *facts in rows:
            cursor.execute(COLUMNS, {"table": oid})
            described: list[Any] = cursor.fetchall()
            table = SourceTable([SourceColumn(*row) for row in described], *facts)
            found[table.full_name] = table
        return found
