"""Rows of a Parquet file; it needs pyarrow, which comes with the extra `parquet`."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from aforo.sdk.errors import Invalid

ROWS_AT_ONCE = 1_000


def rows(path: Path) -> tuple[Sequence[str], int, Iterator[dict[str, Any]]]:
    """The columns, how many rows there are, and the rows. Raises `Invalid`."""
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise Invalid(f"{path.name} cannot be read as Parquet: {error}") from error
    return file.schema_arrow.names, file.metadata.num_rows, _rows(file, path)


def _rows(file: Any, path: Path) -> Iterator[dict[str, Any]]:
    try:
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
            floats = [each.name for each in batch.schema if pa.types.is_floating(each.type)]
            for row in (
                pa.Table.from_batches([batch]).cast(_exact(batch.schema), safe=False).to_pylist()
            ):
                for name in floats:
                    row[name] = None if row[name] is None else Decimal(row[name])
                yield row
    except (pa.ArrowException, OSError) as error:
        raise Invalid(f"{path.name} cannot be read as Parquet: {error}") from error


def _exact(schema: Any) -> Any:
    """The same columns, with moments to the microsecond, which is what Python and the API hold, and
    floats as the shortest texts that are these numbers."""
    return pa.schema([pa.field(each.name, _exact_type(each.type)) for each in schema])


def _exact_type(given: Any) -> Any:
    if pa.types.is_timestamp(given) and given.unit == "ns":
        return pa.timestamp("us", tz=given.tz)
    return pa.string() if pa.types.is_floating(given) else given
