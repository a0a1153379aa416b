"""The versions of rows that changes make, in SQL."""

import duckdb
from sqlglot import exp

from freshdata.transform.change_versions import newest, versions

NAMES = ("id", "city", "_op", "_offset")
CHANGES = """
SELECT * FROM (VALUES (1, 'Rome', 'c', 0, NULL), (1, 'Rome', 'c', 0, NULL), (1, NULL, 'u', 1, ['city']))
AS c(id, city, _op, _offset, _unavailable)
"""


def test_a_change_that_was_read_twice_counts_once() -> None:
    query = exp.maybe_parse(CHANGES, dialect="duckdb")
    last = newest(query, ["id"], NAMES, ["city"]).sql("duckdb")
    assert duckdb.sql(last).fetchall() == [(1, "Rome", "u", 1, False)]
    found = versions(query, ["id"], NAMES, ["city"]).sql("duckdb")
    assert set(duckdb.sql(found).fetchall()) == {(1, "Rome", "c", 0, False), (1, "Rome", "u", 1, False)}
