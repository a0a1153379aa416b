"""Which changes a state of a database holds, told by the lower halves of their transactions' numbers."""

from datetime import UTC, datetime

import pyarrow as pa

from freshdata.verify.source_rows import Moment

WRAP = 2**32


def test_a_state_holds_what_was_committed_before_it_also_where_the_numbers_begin_anew() -> None:
    moment = Moment(100, datetime(2026, 3, 1, tzinfo=UTC), ended=WRAP + 10, running=frozenset((WRAP + 5, WRAP - 3)))
    told = {
        9: True,
        10: False,  # Had not begun.
        5: False,  # Was running.
        WRAP - 1: True,  # Before the numbers began anew.
        WRAP - 3: False,
        11: False,
    }
    changes = pa.table({"_transaction": pa.array(told, pa.int64()), "_lsn": pa.array([50] * len(told), pa.int64())})
    assert moment.saw(changes).to_pylist() == list(told.values())


def test_what_a_snapshot_has_read_belongs_to_a_state_by_its_place_in_the_log() -> None:
    moment = Moment(100, datetime(2026, 3, 1, tzinfo=UTC), ended=10, running=frozenset())
    changes = pa.table({"_transaction": pa.nulls(2, pa.int64()), "_lsn": pa.array([100, 101], pa.int64())})
    assert moment.saw(changes).to_pylist() == [True, False]
