"""What one row cannot tell: the classes of a label column, and from where the numbers of right options count.

Both need all rows, so the inputs are read once before, and only if a row asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import get_args

from lora_med.data.outcome import AnswerForm, ReadOptions
from lora_med.data.shapes.columns.cells import spelling
from lora_med.data.shapes.columns.row_columns import Row
from lora_med.data.shapes.questions.answer_options import Options, read_options
from lora_med.data.shapes.questions.label_rows import MOST_LABELS, label_of
from lora_med.data.shapes.questions.question_rows import answer_fields, answer_value
from lora_med.data.shapes.questions.right_option import Decision, Form, decide, is_numbered
from lora_med.data.shapes.recognize import QUESTION, Shape
from lora_med.data.shapes.row_error import RowError
from lora_med.errors import DataError

FORMS = get_args(AnswerForm)


@dataclass
class FirstPass:
    """Findings over all rows of some inputs; `rows` reads them again, `where` names them."""

    rows: Callable[[], Iterable[tuple[Row, Shape | None]]]
    options: ReadOptions
    where: str
    _classes: tuple[str, ...] | None = None
    _has_annotated: bool | None = None
    _forms: dict[str, Decision] = field(default_factory=dict)

    def classes(self, row: Row) -> tuple[str, ...]:
        """The closed set of classes: those in `data.labels`, else all that occur in alphabetical order.

        Raises:
            DataError: very many, or a single one in a column that `data.columns` names.
        """
        if self.options.labels:
            return self.options.labels
        if self._classes is None:
            self._classes = self._all_labels(row.column("label"))
        return self._classes

    def _all_labels(self, column: str) -> tuple[str, ...]:
        values: set[str] = set()
        for row, _ in self.rows():
            try:
                label = label_of(row) if row.has("label") else None
            except RowError:
                continue  # the second pass names it
            if label is not None:
                values.add(label)
            if len(values) > MOST_LABELS:
                raise DataError(
                    f"more than {MOST_LABELS} different values in column {column!r}",
                    where=self.where,
                    fix=f"another column, the classes in data.labels, or data.ignore_columns=[{column}]",
                )
        if len(values) == 1 and "label" in self.options.columns:
            raise DataError(
                f"column {column!r} has one value only: there is nothing to classify",
                where=self.where,
                fix="another column, or name the classes in data.labels",
            )
        return tuple(sorted(values))

    def has_annotated_rows(self) -> bool:
        """Whether a row has mentions; then an empty list of labels is a text without any."""
        if self._has_annotated is None:
            self._has_annotated = any(shape is not None and shape.is_annotated for _, shape in self.rows())
        return self._has_annotated

    def form(self, row: Row, name: str, options: Options) -> Form:
        """How the column of the field `name` gives the right option.

        Raises:
            DataError: its numbers may count from 0 or from 1.
        """
        if self.options.answer_form is not None:
            return self.options.answer_form
        if not is_numbered(options, answer_value(row, name)):
            return "words"
        column = row.column(name)
        if column not in self._forms:
            found = decide(self._answers(name, column), from_0_by_name=_counts_from_0_on_the_hub(row, column))
            if found.form is not None and found.reason:
                remark = f"{column!r} is read as {found.form.replace('_', ' ')}: {found.reason}"
                self.options.notes.remarks.setdefault(remark)
            self._forms[column] = found
        found = self._forms[column]
        if found.form is None:
            raise DataError(
                f"column {column!r} names the right option by {found.reason}",
                where=self.where,
                fix=f"say which: data.answer_form={'|'.join(FORMS)} (--answer-form)",
            )
        return found.form

    def _answers(self, name: str, column: str) -> Iterator[tuple[Options, object]]:
        for row, shape in self.rows():
            try:
                if shape is QUESTION and name in answer_fields(row) and row.column(name) == column:
                    yield read_options(row), answer_value(row, name)
            except RowError:
                continue  # the second pass names it


def _counts_from_0_on_the_hub(row: Row, column: str) -> bool:
    """Whether the columns are those of Hub data sets whose right option counts from 0."""
    names = {spelling(name) for name in row.layout.names}
    return spelling(column) == "label" or ("choices" in names and spelling(column) == "answer")
