"""Your own rows, each in a shape that its columns show.

    chosen, rejected            two answers to a prompt or conversation, one of them preferred -> Pair with rejected
    messages                    a conversation; the last answer is trained                    -> Pair with history
    instruction, output         Alpaca, with `input`, `system` and `history` if there are any -> Pair
    prompt, completion          the answer to a prompt                                        -> Pair
    input, output               the same, as `lora-med data read` writes it                   -> Pair
    question, answer            with contexts and options if there are any                    -> Question
    text, label                 a text and its class                                          -> Question
    text, spans and others      mentions, as annotation tools export them                     -> Annotated
    text                        running text, with `title` if there is one                    -> Passage

docs/data.md has an example row of each. `data.columns` maps our names to yours; columns in another spelling (`Text`)
are found too. `uid` and `group` come from columns of that name if there are. Otherwise the uid is file:line, and the
group is a hash of what must not be in two splits: the text, the prompt, the context, the question, or the
conversation's first turn. The classes of a label column are all values in the input, in alphabetical order, unless
`data.labels` names them. State the license and the access class in the section `adapter` of the settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lora_med.config.near_names import unknown
from lora_med.data.catalog import SOURCES
from lora_med.data.formats.containers.line_ends import with_one_line_end
from lora_med.data.formats.tables import SKIP, TableRow, bad, rows
from lora_med.data.outcome import Again, Drop, Input, Outcome, PartDrop, ReadOptions, input_names
from lora_med.data.record import Record
from lora_med.data.shapes.annotated_rows import annotated, without_mentions
from lora_med.data.shapes.class_names import class_names
from lora_med.data.shapes.columns.accounting import Accounting
from lora_med.data.shapes.columns.cells import parsed
from lora_med.data.shapes.columns.row_columns import FIELDS, Layout, Row
from lora_med.data.shapes.preferences import FAITHFULNESS, MINED, mined_by
from lora_med.data.shapes.questions.first_pass import FirstPass
from lora_med.data.shapes.questions.label_rows import label_of, labeled
from lora_med.data.shapes.questions.published_sets import unrolled
from lora_med.data.shapes.questions.question_rows import question
from lora_med.data.shapes.recognize import LABELED, QUESTION, TEXT, Shape, no_shape, recognize
from lora_med.data.shapes.row_error import Rejected, RowError
from lora_med.errors import SettingsError

ANNOTATED_TEXT = Shape(("text", "label"), is_annotated=True)
MOST_LAYOUTS = 4096  # sets of columns that are kept; rows of JSON may have many
NAME = "name your columns in data.columns (--column field=column), or set data.skip_bad=true (--skip-bad)"


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The rows of the inputs as records of one kind.

    Drops: unanswerable, empty_answer, not_accepted, same_answer; with an error: missing_column, other_shape, bad_type,
    empty_text, tool_turn, weight_zero, unclear_answer, bad_offsets, missing_labels, unfinished, bad_json, bad_csv,
    bad_utf8, damaged_file. Left out within records: unanswered_turn, further_answer, repeated_key, and mentions that do
    not fit.

    Raises:
        SettingsError: `data.columns` names a field that does not exist, or `data.labels` and no label column.
        DataError: a column of content or a patient that nobody named; a label column with one value, or with very many;
            numbers of right options that may count from 0 or from 1.
    """
    for name in options.columns:
        if name not in FIELDS:
            raise SettingsError(unknown("field", name, FIELDS), where="data.columns")
    return Again(_Reader(inputs, options).outcomes)


@dataclass
class _Reader:
    """One reading of some inputs: the layouts of their rows, and what a first pass found."""

    inputs: Sequence[Input]
    options: ReadOptions
    layouts: dict[tuple[tuple[str, ...], bool], Layout] = field(default_factory=dict)
    names_by_input: dict[Input, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = ", ".join(input_names(self.inputs).values())
        self.accounting = Accounting(self.options)
        self.first_pass = FirstPass(self._good_rows, self.options, where)

    def outcomes(self) -> Iterator[Outcome]:
        first: tuple[Shape, type] | None = None
        for seen in self._rows():
            if isinstance(seen, Drop | PartDrop):
                yield seen
                continue
            row, shape = seen
            try:
                self.options.notes.access.update(_came_from(row.values))
                self.options.notes.remarks.update(_made_by(row.values))
                if shape is None:
                    raise _other_columns(row, first[0]) if first else no_shape(row)
                shape, record = self._made(row, shape)
                first = first or (shape, type(record))
                if type(record) is not first[1]:
                    raise RowError("other_shape", f"a row of the shape {shape} among rows of the shape {first[0]}")
                self.accounting.take(row, shape)
            except Rejected as rejected:
                yield Drop(rejected.reason)
            except RowError as wrong:
                yield bad(wrong.reason, wrong.what, row.where, _fix(wrong))
            else:
                yield from row.parts
                yield with_one_line_end(record)

    def _made(self, row: Row, shape: Shape) -> tuple[Shape, Record]:
        if shape is LABELED:
            if self._is_empty_annotation(row):
                return ANNOTATED_TEXT, without_mentions(row)
            label_of(row)  # names a value that is no class
            classes = self.first_pass.classes(row)
            if len(classes) > 1:
                return shape, labeled(row, classes)
            if classes:
                self.options.notes.remarks.setdefault(f"{row.column('label')!r} has one value only and is not used")
            row.used.pop(row.column("label"), None)
            row.set_aside.add(row.column("label"))
            shape = TEXT
        if self.options.labels and not shape.is_annotated:
            raise SettingsError(
                "data.labels names classes, and no column holds them",
                where="data.labels",
                fix="data.columns.label=COLUMN",
            )
        if shape is QUESTION:
            return shape, question(row, self.first_pass.form)
        assert shape.make is not None
        return shape, shape.make(row)

    def _rows(self) -> Iterator[tuple[Row, Shape | None] | Drop | PartDrop]:
        """The rows of all inputs, those of a nested row one by one; what is no row is a drop."""
        names = input_names(self.inputs)
        for item in self.inputs:
            for row in rows(item, self.options.table):
                if not isinstance(row, TableRow):
                    yield row
                    continue
                names_of = partial(self._class_names, item)
                try:
                    yield from self._of_row(row, f"{names[item]}:{row.number}", names_of)
                except RowError as wrong:
                    yield bad(wrong.reason, wrong.what, row.where, _fix(wrong))

    def _of_row(
        self, row: TableRow, position: str, names_of: Callable[[], tuple[str, ...]]
    ) -> Iterator[tuple[Row, Shape | None]]:
        whole = self._row(row.values, row.where, position)
        whole.class_names = names_of
        shape = annotated(whole) or recognize(whole)
        nested = [] if shape else list(unrolled(row.values))
        if not nested:
            yield whole, shape
        for number, values in enumerate(nested, 1):
            has_id = isinstance(values.get("id"), str | int) and not {"uid"} & {*values, *self.options.columns}
            inner = self._row(values, f"{row.where}, record {number}", f"{position}.{number}", id_is_uid=has_id)
            yield inner, recognize(inner)

    def _row(self, values: Mapping[str, Any], where: str, position: str, *, id_is_uid: bool = False) -> Row:
        names = tuple(values)
        key = (names, id_is_uid)
        if key not in self.layouts:
            if not all(isinstance(name, str) for name in names):
                raise RowError("bad_type", "expected the names of the columns to be texts")
            if len(self.layouts) >= MOST_LAYOUTS:
                self.layouts.clear()
            columns = self.options.columns | ({"uid": "id"} if id_is_uid else {})
            self.layouts[key] = Layout(names, columns, frozenset(self.options.ignore_columns))
        return Row(values, self.layouts[key], where, position)

    def _class_names(self, item: Input) -> tuple[str, ...]:
        if item not in self.names_by_input:
            self.names_by_input[item] = self.options.labels or class_names(item)
        return self.names_by_input[item]

    def _is_empty_annotation(self, row: Row) -> bool:
        """Whether a row has an empty list of labels in a file whose lists of labels are mentions."""
        return parsed(row.get("label")) == [] and self.first_pass.has_annotated_rows()

    def _good_rows(self) -> Iterator[tuple[Row, Shape | None]]:
        return (seen for seen in self._rows() if not isinstance(seen, Drop | PartDrop))


def _fix(wrong: RowError) -> str:
    return NAME if wrong.reason == "missing_column" else SKIP


def _other_columns(row: Row, first: Shape) -> RowError:
    missing = next((name for name in first.needs if not row.has_column(name)), first.needs[0])
    try:
        row.get(missing)
    except RowError as wrong:
        return wrong
    return no_shape(row)


def _made_by(values: Mapping[str, Any]) -> dict[str, None]:
    """The remark on pairs that a check made."""
    stated = values.get(MINED)
    return {f"pairs made by {stated}": None} if isinstance(stated, str) and stated == mined_by(FAITHFULNESS) else {}


def _came_from(values: Mapping[str, Any]) -> Iterator[str]:
    """The access class of the source that a row of `lora-med data read` names."""
    source = values.get("source")
    access = SOURCES[source].access if "kind" in values and isinstance(source, str) and source in SOURCES else None
    if access is not None:
        yield access
