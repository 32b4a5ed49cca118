"""Which shape a row has, by the columns it fills; the table of shapes is here, the likeliest first.

Preferences come before all others: data sets of preferences often repeat the chosen conversation in another column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lora_med.data.record import Record
from lora_med.data.shapes.columns.cells import listed, spelling
from lora_med.data.shapes.columns.row_columns import Layout, Row
from lora_med.data.shapes.conversations import messages
from lora_med.data.shapes.instructions import input_output, instruction, prompt_completion
from lora_med.data.shapes.preferences import preference
from lora_med.data.shapes.questions.label_rows import passage
from lora_med.data.shapes.questions.published_sets import bioasq, is_bioasq
from lora_med.data.shapes.questions.question_rows import is_question
from lora_med.data.shapes.row_error import RowError


def _spelled(*names: str) -> frozenset[str]:
    return frozenset(map(spelling, names))


# Spellings of columns that hold content, and stop a run where a shape does not use them.
CONTENT = _spelled(
    *("instruction", "context", "contexts", "system", "system_prompt", "history", "label", "labels", "spans"),
    *("entities", "options", "choices", "answer_choices", "tools", "tool_calls", "think", "thinking", "reasoning"),
    *("reasoning_content", "rationale", "explanation", "chain_of_thought", "cot", "complex_cot"),
    *("chosen", "rejected"),
)
SIDES = _spelled("input", "output", "prompt", "completion", "question", "answer", "response", "summary", "target")
PASSAGES = _spelled("text", "passage", "passages", "abstract", "note", "input", "document", "article")


@dataclass(frozen=True)
class Shape:
    """A shape of rows: the fields it needs, what makes its record, and further spellings of columns with content."""

    needs: tuple[str, ...]
    make: Callable[[Row], Record] | None = None  # None: custom makes it, with what a first pass found
    telltales: frozenset[str] = frozenset()
    fits: Callable[[Row], bool] = lambda row: True
    is_annotated: bool = False

    def named_in(self, mapping: Mapping[str, str]) -> int:
        """How many of the fields it needs `data.columns` names."""
        return sum(name in mapping for name in self.needs)

    def __str__(self) -> str:
        return ", ".join(self.needs)


ANSWERS = _spelled("output", "response", "completion", "summary", "target")
QUESTION = Shape(("question", "answer"), None, PASSAGES | ANSWERS)
LABELED = Shape(("text", "label"), None, SIDES)
TEXT = Shape(("text",), passage, SIDES)
SHAPES = (
    Shape(("chosen", "rejected"), preference, SIDES),
    Shape(("messages",), messages),
    Shape(("prompt", "completion"), prompt_completion, SIDES),
    Shape(("instruction", "output"), instruction, SIDES),
    QUESTION,
    Shape(("input", "output"), input_output, SIDES),
    Shape(("body", "type"), bioasq, fits=is_bioasq),
    LABELED,
    TEXT,
)


def recognize(row: Row) -> Shape | None:
    """The shape of a row; None if it has none of them.

    Fields that `data.columns` names come first. Columns with content decide, then those with a value, then their names.

    Raises:
        RowError: two columns spell the same field.
    """
    possible = row.layout.found("shapes", lambda: _possible(row.layout))
    for has in (_is_filled, _has_values, _has_columns):
        for shape in possible:
            if has(shape, row) and shape.fits(row):
                return shape
    return min(_named(row.layout.mapping), key=lambda shape: len(shape.needs), default=None)


def _named(mapping: Mapping[str, str]) -> list[Shape]:
    """The shapes of which `data.columns` names the most fields; none where it names none."""
    most = max(shape.named_in(mapping) for shape in SHAPES)
    return [shape for shape in SHAPES if most and shape.named_in(mapping) == most]


def _possible(layout: Layout) -> list[Shape]:
    """The shapes for which rows with these columns have a column for each field."""
    shapes = _named(layout.mapping) or SHAPES
    return [shape for shape in shapes if shape is QUESTION or all(map(layout.may_hold, shape.needs))]


def _is_filled(shape: Shape, row: Row) -> bool:
    if shape is QUESTION:
        return row.fills("question") and is_question(row)
    if shape is LABELED:  # a row without a class is one too, and an error
        return row.fills("text") and row.has_column("label")
    return all(map(row.fills, shape.needs))


def _has_values(shape: Shape, row: Row) -> bool:
    return all(map(row.has, shape.needs))


def _has_columns(shape: Shape, row: Row) -> bool:
    return all(map(row.has_column, shape.needs))


def no_shape(row: Row) -> RowError:
    """The error of a row that has no shape: it names the columns there are, and what they could be."""
    expected = "; or ".join(" and ".join(shape.needs) for shape in SHAPES if shape.fits is SHAPES[0].fits)
    return RowError(
        "missing_column",
        f"expected the columns {expected}; none is among the {len(row.values)} there are: {listed(row.values)}",
    )
