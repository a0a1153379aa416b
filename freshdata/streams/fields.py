"""What type each field of a sample has, which of its values are an enumeration, and what it is called as a column."""

import keyword
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any

import msgspec
import pyarrow as pa

from freshdata.streams.samples import Sample

LOGICAL = {
    "boolean": "boolean",
    "bigint": "integer",
    "int": "integer",
    "double": "number",
    "timestamptz": "timestamp",
    "timestamp_ntz": "timestamp",
    "date": "date",
    "string": "string",
}
TEXTS = ("zoned", "unzoned", "date", "decimal", "digits", "text")
PLAIN_TYPES = (
    (("boolean",), "boolean", "true or false"),
    (("integer",), "bigint", "whole numbers"),
    (("zoned",), "timestamptz", "times with a zone"),
    (("unzoned",), "timestamp_ntz", "times without a zone: nobody knows where"),
    (("date",), "date", "dates"),
)
# A sample of real events holds broken ones, too. They will go to quarantine; the others say what a field is.
TOLERATED = 0.01
MOST_ENUM_VALUES = 10
ROWS_PER_ENUM_VALUE = 20
ENUM_VALUE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,31}")
# Text that only looks like a number (codes, zip codes) has no fraction.
DECIMAL_TEXT = re.compile(r"-?(0|[1-9]\d{0,24})(\.\d{1,12})?")
LIKE_A_DATE = re.compile(r"\d{4}-\d\d-\d\d")
# Sums of binary fractions are no sums of money.
MONEY = re.compile(
    r"(^|_)(price|amount|total|cost|fee|fare|tax|tip|revenue|balance|discount|paid|salary|charge)s?(_|$)"
)
MOST_MONEY_DIGITS = 4
PERSONAL_NAME = re.compile(
    r"(^|_)(e_?mail|phone|mobile|first_?name|last_?name|full_?name|surname|ssn|passport|iban|birth_?da(y|te)|dob|street"
    r"|address|ip|ip_address)(_|$)"
)
EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[A-Za-z]{2,}")
# What Bronze adds to the event's own columns.
TAKEN = frozenset({"event_date", "ingestion_date", "ingestion_hour"})
DEEPEST = 3
MOST_INNER = 30


@dataclass(frozen=True)
class Field:
    """A field of the contract to be.

    Attributes:
        name: Column.
        source_name: What events call it.
        physical: The contract's ``physicalType``.
        required: Whether every event has it.
        enum: Its only values, or an empty tuple.
        missing: Share of the events that lack it.
        why: What the sample shows.
        review: Whether somebody should look at the guess.
        personal: Whether it looks like personal data.
    """

    name: str
    source_name: str
    physical: str
    required: bool
    enum: tuple[str, ...]
    missing: float
    why: str
    review: bool
    personal: bool

    @property
    def logical(self) -> str:
        """The contract's ``logicalType``."""
        return LOGICAL.get(self.physical, "number")


@dataclass(frozen=True)
class Inner:
    """A value inside an unknown field, as a column of Silver.

    Attributes:
        name: Column.
        path: Where it is in ``_extra``, as a JSON path.
        sql_type: Type of the column; None for JSON text.
    """

    name: str
    path: str
    sql_type: str | None


@dataclass(frozen=True)
class Kept:
    """A field that has no place of its own in the contract: Bronze keeps it in ``_extra``.

    Attributes:
        source_name: What events call it.
        why: Why it has none.
        inner: Columns that Silver makes of it.
    """

    source_name: str
    why: str
    inner: tuple[Inner, ...]


class Names:
    """Gives each field a column name that is valid everywhere, and not taken."""

    def __init__(self, free: Iterable[str] = ()) -> None:
        self._used: set[str] = set()
        self._reserved = (TAKEN | frozenset(keyword.kwlist) | _sql_keywords()) - set(free)

    def of(self, source: str) -> str:
        """The column name of a field."""
        plain = unicodedata.normalize("NFKD", source).encode("ascii", "ignore").decode()
        plain = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", plain)
        plain = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", plain).lower()
        plain = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")
        name = plain if plain[:1].isalpha() else f"field_{plain}".rstrip("_")
        name = f"{name}_value" if name in self._reserved else name
        name = candidate = name[:60]
        number = 2
        while candidate in self._used:
            candidate, number = f"{name}_{number}", number + 1
        self._used.add(candidate)
        return candidate


@lru_cache
def _sql_keywords() -> frozenset[str]:
    import duckdb

    with duckdb.connect() as connection:
        found = connection.execute("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'")
        return frozenset(name for (name,) in found.fetchall())


def infer_fields(sample: Sample, types: dict[str, str], names: Names) -> tuple[list[Field], list[Kept]]:
    """What fields a sample's events have.

    Args:
        sample: The sample.
        types: Field, as events call it, to the ``physicalType`` that somebody has chosen.
        names: Gives the columns their names.

    Returns:
        The fields of the contract, and the others, each in the order of their appearance.
    """
    fields: list[Field] = []
    kept: list[Kept] = []
    order = dict.fromkeys(name for row in sample.rows for name in row)
    for source in order:
        values = [value for row in sample.rows if (value := row.get(source)) is not None]
        physical, why, review = _type_of(source, values, types, sample)
        if physical is None:
            kept.append(Kept(source, why, tuple(_inner(source, values, names))))
            continue
        missing = 1 - len(values) / len(sample.rows)
        enum = () if source in types else _enum(physical, values)
        personal = physical == "string" and _personal(source, values)
        required = source in sample.required if sample.required else missing == 0
        fields.append(
            Field(names.of(source), source, physical, required, enum, missing, why, review or bool(enum), personal)
        )
    return fields, kept


def _type_of(source: str, values: list[Any], types: dict[str, str], sample: Sample) -> tuple[str | None, str, bool]:
    """The physicalType, or None when there is none for it; why; and whether to review it."""
    if source in types:
        return types[source], "as told", False
    if sample.types is not None:
        known = _known(sample.types[source])
        return known, "the table's type" if known else f"no contract has the type {sample.types[source]}", False
    if not values:
        return None, "always null: the sample does not show its type", True
    return _seen_type(source, values)


def _seen_type(source: str, values: list[Any]) -> tuple[str | None, str, bool]:
    """The type that nearly all values have."""
    tags = Counter(_tag(value) for value in values)
    tolerated = int(TOLERATED * len(values))

    def fit(*kinds: str) -> bool:
        return sum(tags[kind] for kind in kinds) >= len(values) - tolerated

    found = next(((kind, why) for kinds, kind, why in PLAIN_TYPES if fit(*kinds)), None)
    chosen: tuple[str, str, bool] | None = None
    if found:
        chosen = (*found, found[0] == "timestamp_ntz")
    elif fit("integer", "number"):
        chosen = _number(source, [value for value in values if _tag(value) in ("integer", "number")])
    elif tags["decimal"] and fit("decimal", "digits"):
        numbers = [Decimal(value) for value in values if _tag(value) in ("decimal", "digits")]
        chosen = _decimal(numbers, "numbers as text, with a fraction")
    elif fit(*TEXTS):
        chosen = "string", "text", False
    if chosen:
        return _with_strays(chosen, values)
    if fit("nested"):
        return None, "objects or lists: contracts have plain fields", False
    mixed = ", ".join(f"{count} {kind}" for kind, count in tags.most_common())
    return None, f"values of several types: {mixed}", True


def _with_strays(chosen: tuple[str, str, bool], values: list[Any]) -> tuple[str, str, bool]:
    physical, why, _ = chosen
    strays = sum(not _fits(value, physical) for value in values)
    if not strays:
        return chosen
    return physical, f"{why}; {strays} of {len(values)} values are not, and such events go to quarantine", True


def _fits(value: Any, physical: str) -> bool:
    wanted = {kind: kinds for kinds, kind, _ in PLAIN_TYPES} | {"double": ("integer", "number"), "string": TEXTS}
    return _tag(value) in wanted.get(physical, ("integer", "number", "decimal", "digits"))


def _tag(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if -(2**63) <= value < 2**63 else "number"
    if isinstance(value, Decimal):
        return "number"
    return _text_tag(value) if isinstance(value, str) else "nested" if isinstance(value, dict | list) else "other"


@lru_cache(200_000)
def _text_tag(value: str) -> str:
    if LIKE_A_DATE.match(value):
        kinds: tuple[tuple[str, Any], ...] = (
            ("date", date),
            ("zoned", Annotated[datetime, msgspec.Meta(tz=True)]),
            ("unzoned", Annotated[datetime, msgspec.Meta(tz=False)]),
        )
        for tag, kind in kinds:
            try:
                msgspec.convert(value, kind)
            except msgspec.ValidationError:
                continue
            return tag
    if DECIMAL_TEXT.fullmatch(value):
        return "decimal" if "." in value else "digits"
    return "text"


def _number(source: str, values: list[Any]) -> tuple[str, str, bool]:
    numbers = [Decimal(value) for value in values]
    digits = max(_scale(number) for number in numbers)
    if MONEY.search(Names().of(source)) and digits <= MOST_MONEY_DIGITS:
        return _decimal(numbers, f"its name says money, and no number has more than {digits} decimals")
    return "double", f"numbers with a fraction, of up to {digits} decimals", False


def _decimal(numbers: list[Decimal], why: str) -> tuple[str, str, bool]:
    scale = max(2, *(_scale(number) for number in numbers))
    whole = max(len(str(abs(int(number)))) for number in numbers)
    precision = 18 if whole + scale <= 16 else 38
    return f"decimal({precision},{scale})", why, True


def _scale(number: Decimal) -> int:
    exponent = number.normalize().as_tuple().exponent
    return max(-exponent, 0) if isinstance(exponent, int) else 0


def _enum(physical: str, values: list[Any]) -> tuple[str, ...]:
    if physical != "string":
        return ()
    counts = Counter(value for value in values if isinstance(value, str))
    few = len(counts) <= MOST_ENUM_VALUES and len(values) >= ROWS_PER_ENUM_VALUE * len(counts)
    # One value only says nothing of what others there are.
    plain = few and len(counts) > 1 and all(ENUM_VALUE.fullmatch(value) for value in counts)
    return tuple(sorted(counts)) if plain else ()


def _personal(source: str, values: list[Any]) -> bool:
    if PERSONAL_NAME.search(re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", source).lower()):
        return True
    texts = [value for value in values[:1000] if isinstance(value, str)]
    return bool(texts) and sum(EMAIL.fullmatch(value) is not None for value in texts) > len(texts) / 2


def _known(kind: pa.DataType) -> str | None:
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})"
    if pa.types.is_timestamp(kind):
        return "timestamptz" if kind.tz else "timestamp_ntz"
    named: dict[pa.DataType, str] = {
        pa.string(): "string",
        pa.large_string(): "string",
        pa.int32(): "int",
        pa.int64(): "bigint",
        pa.float32(): "double",
        pa.float64(): "double",
        pa.bool_(): "boolean",
        pa.date32(): "date",
    }
    return named.get(kind)


def _inner(source: str, values: list[Any], names: Names) -> list[Inner]:
    """The columns that Silver makes of an unknown field: the plain values of objects, all else as JSON text."""
    found = list(_walk([source], values))
    if len(found) > MOST_INNER:
        found = [([source], None)]
    return [Inner(names.of("_".join(path)), "$" + "".join(map(_step, path)), kind) for path, kind in found]


def _step(name: str) -> str:
    return "." + name if re.fullmatch(r"[A-Za-z_]\w*", name) else '."' + name.replace('"', '\\"') + '"'


def _walk(path: list[str], values: list[Any]) -> list[tuple[list[str], str | None]]:
    objects = [value for value in values if isinstance(value, dict)]
    if objects and len(objects) == len(values) and len(path) <= DEEPEST:
        inside: list[tuple[list[str], str | None]] = []
        for name in dict.fromkeys(name for value in objects for name in value):
            found = [value[name] for value in objects if value.get(name) is not None]
            inside += _walk([*path, name], found) if found else []
        return inside
    tags = {_tag(value) for value in values}
    if tags == {"boolean"}:
        return [(path, "BOOLEAN")]
    if tags == {"integer"}:
        return [(path, "BIGINT")]
    if tags and tags <= {"integer", "number"}:
        return [(path, "DOUBLE")]
    if tags and tags <= set(TEXTS):
        return [(path, "TEXT")]
    return [(path, None)]
