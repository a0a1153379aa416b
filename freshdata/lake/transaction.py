"""PyIceberg's transaction, less what it does again and again."""

from pyiceberg.table import Transaction
from pyiceberg.table.metadata import TableMetadata


class LakeTransaction(Transaction):
    """A transaction that works out the metadata it leads to once a change.

    PyIceberg's does so whenever it looks at them, some twenty times a commit, and copies every snapshot of the table
    each time: a fifth of what a run of a Gold model costs.
    """

    _known: tuple[object, object, TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        """The table's metadata with the changes so far."""
        base, updates = self._table.metadata, self._updates
        if self._known is None or self._known[0] is not base or self._known[1] is not updates:
            self._known = base, updates, super().table_metadata
        return self._known[2]
