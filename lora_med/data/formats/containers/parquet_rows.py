"""Rows from Parquet, batch by batch, with the types of its columns: texts, numbers, dates, bytes, lists, structs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lora_med.data.formats.containers.table_row import TableRow
from lora_med.errors import DataError
from lora_med.files import open_stream

BATCH_ROWS = 512


def parquet_rows(path: Path) -> Iterator[TableRow]:
    """The rows of a Parquet file.

    Raises:
        DataError: it is not Parquet, or corrupt; the message says after which row.
    """
    import pyarrow
    import pyarrow.parquet

    open_stream(path).close()  # names a missing or empty file
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(BATCH_ROWS):
                for values in batch.to_pylist():
                    number += 1
                    yield TableRow(f"{path}, row {number}", number, values)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(
            "the file is not Parquet, or is corrupt", where=f"{path}, after row {number}", fix="write it again"
        ) from error
