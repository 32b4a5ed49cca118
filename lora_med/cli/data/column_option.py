"""--column, --ignore-column, --answer-form: what the columns of a custom file mean, on the command line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from lora_med.errors import SettingsError

if TYPE_CHECKING:
    from lora_med.data.outcome import ReadOptions, TableFormat

Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="FIELD=COLUMN",
        help="For custom: the column of a field; repeat it for several. For plain_text: group=file. For conll: tag=N.",
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


def own_rows_options(
    column: Iterable[str] | None, ignore_column: Iterable[str] | None, form: str | None, table: TableFormat
) -> ReadOptions:
    """How rows of one's own are read: what these options and those about the file's format say."""
    from lora_med.data.outcome import AnswerForm as Form
    from lora_med.data.outcome import ReadOptions

    return ReadOptions(
        columns_of(column or ()),
        streaming=True,
        ignore_columns=tuple(ignore_column or ()),
        answer_form=cast("Form | None", form),
        table=table,
    )


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
