"""DuckDB, bounded in memory, with its files in a folder of its own."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lora_med.errors import DependencyMissingError

Connection = Any  # a duckdb.DuckDBPyConnection: the package is optional
INSTALL = 'pip install "lora_med[scale]"'
MEMORY_MB = 400
THREADS = 2  # each needs memory of its own to sort
BLOCK = 1 << 18  # rows that are exchanged at once


def is_installed() -> bool:
    """Whether DuckDB can be imported."""
    return importlib.util.find_spec("duckdb") is not None


def connect(folder: Path) -> Connection:
    """A connection to a new database in `folder`. It uses at most `MEMORY_MB`; what does not fit goes to the folder.

    Raises:
        DependencyMissingError: DuckDB is not installed.
    """
    if not is_installed():
        raise DependencyMissingError(
            "corpora larger than memory are compared in DuckDB, which is not installed", fix=INSTALL
        )
    duckdb: Any = importlib.import_module("duckdb")
    options: dict[str, Any] = {
        "memory_limit": f"{MEMORY_MB}MB",
        "threads": THREADS,
        "preserve_insertion_order": False,
        "temp_directory": str(folder / "spilled"),
        "autoinstall_known_extensions": False,  # it downloads nothing
        "autoload_known_extensions": False,
    }
    return duckdb.connect(str(folder / "facts.duckdb"), config=options)


def blocks(connection: Connection, query: str) -> Iterator[list[NDArray[Any]]]:
    """The columns of a query's result as arrays, a block of rows at a time."""
    for batch in connection.sql(query).to_arrow_reader(BLOCK):
        if batch.num_rows:
            yield [column.to_numpy(zero_copy_only=False) for column in batch.columns]


def insert(connection: Connection, table: str, columns: dict[str, Iterable[Any]]) -> None:
    """Append rows to a table whose columns have these names."""
    arrays = {name: values if isinstance(values, np.ndarray) else list(values) for name, values in columns.items()}
    connection.register("new_rows", pa.table(arrays))
    connection.execute(f"INSERT INTO {table} ({', '.join(columns)}) SELECT * FROM new_rows")
    connection.unregister("new_rows")
