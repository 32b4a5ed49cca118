"""What was read from which column, and the stops where content or a patient would be lost without a word.

A column with content that its row's shape does not use stops the reading until it is mapped in `data.columns` or named
in `data.ignore_columns`. So does a column that is named like a patient while no group is named.
"""

from __future__ import annotations

from dataclasses import dataclass

from lora_med.config.near_names import nearest
from lora_med.data.outcome import ReadNotes, ReadOptions
from lora_med.data.shapes.columns.cells import is_blank, spelling
from lora_med.data.shapes.columns.patient_columns import holds_text, is_named_like_a_patient
from lora_med.data.shapes.columns.row_columns import NO_GROUP, Layout, Row
from lora_med.data.shapes.questions.answer_options import option_columns
from lora_med.data.shapes.recognize import CONTENT, QUESTION, SIDES, TEXT, Shape
from lora_med.errors import DataError, SettingsError

OWN_GROUP = "each text is its own group"
GROUP_COLUMN = "the group is the column"
MOST_COLUMNS = 1000  # that are listed as unused
REASONING = ("think", "thinking", "reasoning", "reasoningcontent", "rationale", "chainofthought", "cot", "complexcot")
SYSTEM = ("system", "systemprompt")
EXAM = ("subject", "subjectname")
IDENTIFYING = ("uid", "group")


@dataclass
class Accounting:
    """The columns of all rows so far, written into the notes of `options`."""

    options: ReadOptions

    @property
    def notes(self) -> ReadNotes:
        return self.options.notes

    def take(self, row: Row, shape: Shape | None) -> None:
        """Account for a row of which a record was made; `shape` is None for annotated rows.

        Where the options say so, nothing stops: rows that are only compared with lose nothing.

        Raises:
            DataError: a column with content, or one named like a patient, is neither used nor left out on purpose.
        """
        unused = [name for name in row.layout.names if not row.is_used(name)]
        if self.options.stops_at_columns:
            _stop_at_content(row, shape)
            _stop_at_patients(row, shape)
        if not row.used.items() <= self.notes.columns.items():
            self.notes.columns.update(row.used)
        if len(self.notes.unused_columns) < MOST_COLUMNS:
            for name in (*unused, *row.turn_keys):
                self.notes.unused_columns.setdefault(name)
        if not self.notes.grouping or ("group" in row.used.values() and not self._has_group_column()):
            self.notes.grouping = _grouping(row)

    def _has_group_column(self) -> bool:
        return self.notes.grouping.startswith(GROUP_COLUMN)


def _stop_at_content(row: Row, shape: Shape | None) -> None:
    telltales, watched = row.layout.found(shape.needs if shape else (), lambda: _watched(row.layout, shape))
    lost = [
        name
        for name in watched
        if not row.is_used(name)
        and name not in row.layout.ignored
        and name not in row.set_aside
        and (name in telltales or holds_text(row.values[name]))
        and not is_blank(row.values[name])
    ]
    lost += [
        name
        for name in row.turn_keys
        if spelling(name.rpartition(".")[2]) in CONTENT and not {name, name.rpartition(".")[2]} & row.layout.ignored
    ]
    if lost:
        what = "the column {} holds" if len(lost) == 1 else "the columns {} hold"
        raise DataError(
            f"{what.format(', '.join(map(repr, lost)))} content that rows of the shape {shape or 'annotated text'} do "
            "not use: it would be lost",
            where=row.where,
            fix=f"name the field that it is ({_mapping(row, shape, lost[0])}), or leave it out on purpose: "
            f"data.ignore_columns=[{', '.join(lost)}] (--ignore-column {lost[0]})",
        )


def _watched(layout: Layout, shape: Shape | None) -> tuple[frozenset[str], tuple[str, ...]]:
    """The columns whose names say that they hold content, and those that may: named like a patient, with a text."""
    spellings = CONTENT | (shape.telltales if shape else frozenset[str]())
    mapped = {column for name, column in layout.mapping.items() if name not in IDENTIFYING}
    options = {name for name in option_columns(layout).values() if len(name) > 1 or name.isupper()}
    telltales = frozenset(
        name for name in layout.names if name in mapped or name in options or spelling(name) in spellings
    )
    return telltales, tuple(name for name in layout.names if name in telltales or is_named_like_a_patient(name))


def _mapping(row: Row, shape: Shape | None, column: str) -> str:
    """The likeliest settings for a column that a shape does not use."""
    if shape is QUESTION and spelling(column) in SYSTEM:
        answer = next((name for name, field in row.used.items() if field == "answer"), row.column("answer"))
        fields = {row.column("question"): "prompt", answer: "completion"}
    elif shape is QUESTION:
        fields = {column: "explanation" if spelling(column) in REASONING else "contexts"}
    elif shape is TEXT and spelling(column) in SIDES:
        fields = {row.column("text"): "prompt", column: "completion"}
    else:
        fields = {column: "FIELD"}
    settings = ", ".join(f"data.columns.{name}={column}" for column, name in fields.items())
    return f"{settings}; {' '.join(f'--column {name}={column}' for column, name in fields.items())}"


def _stop_at_patients(row: Row, shape: Shape | None) -> None:
    if "group" in row.used.values() or _on_purpose(row.layout):
        return
    unnamed = [
        name
        for name in row.layout.found("patients", lambda: list(filter(is_named_like_a_patient, row.layout.names)))
        if row.used.get(name, "uid") in ("uid", "subject")
        and not is_blank(row.values[name])
        and not holds_text(row.values[name])
        and not _of_exam(row, shape, name)
    ]
    if unnamed:
        what = "the column {} is" if len(unnamed) == 1 else "the columns {} are"
        raise DataError(
            f"{what.format(', '.join(map(repr, unnamed)))} named like a patient, and no group is named: texts of one "
            "patient would be in train and in validation",
            where=row.where,
            fix=f"data.columns.group={unnamed[0]} (--column group={unnamed[0]}), or data.columns.group={NO_GROUP} if "
            "it names no patient, or if the texts of one patient may be in several splits",
        )


def _grouping(row: Row) -> str:
    column = next((column for column, name in row.used.items() if name == "group"), None)
    if column is not None:
        return f"{GROUP_COLUMN} {column!r}"
    if _on_purpose(row.layout):
        return f"{OWN_GROUP}, as data.columns.group={NO_GROUP} says"
    return f"{OWN_GROUP}; no column names the patient"


def _on_purpose(layout: Layout) -> bool:
    return layout.mapping.get("group", "").casefold() == NO_GROUP


def _of_exam(row: Row, shape: Shape | None, name: str) -> bool:
    """Whether a column is the subject of an exam's question, in words: `subject` beside a question."""
    value = row.values[name]
    in_words = isinstance(value, str) and not any(letter.isdigit() for letter in value)
    return shape is QUESTION and spelling(name) in EXAM and in_words


def check_ignored(options: ReadOptions) -> None:
    """Refuse a name in `data.ignore_columns` that no row had; called after a whole pass.

    Raises:
        SettingsError: there is one; the message gives the near name.
    """
    seen = {**options.notes.columns, **options.notes.unused_columns}
    known = {*seen, *(name.rpartition(".")[2] for name in seen)}
    for name in options.ignore_columns:
        if name not in known:
            near = nearest(name, sorted(known))
            raise SettingsError(
                f"no row has a column {name!r}" + (f"; did you mean {near!r}?" if near else ""),
                where="data.ignore_columns",
                fix="take it out, or name a column that is there",
            )


def columns_report(notes: ReadNotes) -> dict[str, object]:
    """What was read from which column, as JSON values for a card: columns with their fields, the unused, the group."""
    return {
        "used": dict(notes.columns),
        "unused": [name for name in notes.unused_columns if name not in notes.columns],
        "group": notes.grouping,
        "remarks": list(notes.remarks),
    }


def columns_lines(report: dict[str, object]) -> list[str]:
    """The report of `columns_report` in sentences."""
    used, unused, remarks = report["used"], report["unused"], report["remarks"]
    assert isinstance(used, dict) and isinstance(unused, list) and isinstance(remarks, list)
    if not used:
        return []
    shown = ", ".join(column if column == name else f"{column} as {name}" for column, name in used.items())
    return [
        f"columns used: {shown}",
        f"columns not used: {', '.join(unused) or 'none'}",
        str(report["group"]),
        *remarks,
    ]
