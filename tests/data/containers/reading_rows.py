"""Small files written and read as rows, for the tests of the containers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lora_med.data.formats.tables import RowOutcome, TableRow, rows
from lora_med.data.outcome import Drop, TableFormat
from lora_med.errors import LoraMedError


def outcomes(path: Path, content: str | bytes, **table: str) -> list[RowOutcome]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(rows(path, TableFormat(**table)))


def values(path: Path, content: str | bytes, **table: str) -> list[dict[str, Any]]:
    """The values of all rows; a drop is a failure."""
    found = outcomes(path, content, **table)
    assert all(isinstance(row, TableRow) for row in found), found
    assert len({row.number for row in found if isinstance(row, TableRow)}) == len(found)
    return [row.values for row in found if isinstance(row, TableRow)]


def refusal(path: Path, content: str | bytes, **table: str) -> str:
    """The first error of a file, which is a drop's or is raised; it names the file and a fix."""
    try:
        found = outcomes(path, content, **table)
    except LoraMedError as error:
        assert error.where, error
        return str(error)
    errors = [row.error for row in found if isinstance(row, Drop)]
    if not errors or errors[0] is None:
        pytest.fail(f"read as {found}")
    assert str(path) in (errors[0].where or "") and errors[0].fix
    return str(errors[0])
