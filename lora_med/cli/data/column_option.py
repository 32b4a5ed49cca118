"""--column, --ignore-column, --answer-form: what the columns of a custom file mean, on the command line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import typer

from lora_med.errors import SettingsError

Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column", metavar="FIELD=COLUMN", help="For the source custom: the column of a field; repeat it for several."
    ),
]
IgnoreColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore-column",
        metavar="NAME",
        help="For custom: a column that is left out on purpose; repeat it for several.",
    ),
]
AnswerForm = Annotated[
    Literal["text", "letter", "from_0", "from_1"] | None,
    typer.Option("--answer-form", help="For custom: how a column gives the right option. [default: as the rows show]"),
]


def columns_of(mappings: Iterable[str]) -> dict[str, str]:
    """Field -> column, from words of the form `field=column`.

    Raises:
        SettingsError: a word has another form.
    """
    columns: dict[str, str] = {}
    for mapping in mappings:
        field, sign, column = mapping.partition("=")
        if not (sign and field and column):
            raise SettingsError(
                f"{mapping!r} is not of the form field=column", where="--column", fix="for example --column text=note"
            )
        columns[field] = column
    return columns
