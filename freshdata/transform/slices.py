"""What part of a model a run recomputes: made by the runner, carried out by the materializations."""

from dataclasses import dataclass, field
from datetime import date

import pyarrow as pa

# The name under which SQLMesh hands a slice through to the materialization.
SLICE = "freshdata_slice"


@dataclass(frozen=True)
class Slice:
    """The part of a model to recompute.

    Attributes:
        ranges: Days or hours to replace, each range's first and last day inclusive; None replaces the whole table.
        tenant: Tenant column and tenant whose rows alone are replaced; None replaces everybody's.
        merge: Whether rows are merged by key into what is there, instead of replacing it; of a dimension, whether only
            the keys of the new rows are made anew.
        reads: Fully qualified upstream table to the relation to read in its place (only its new rows).
        written: Filled by a merge that knows which rows it wrote.
    """

    ranges: tuple[tuple[date, date], ...] | None = None
    tenant: tuple[str, str] | None = None
    merge: bool = False
    reads: dict[str, str] = field(default_factory=dict)
    written: list[pa.Table] = field(default_factory=list, compare=False)
