"""Your own rows, in one of six shapes, each recognized by its columns.

    messages             a conversation; the last turn, the assistant's, is trained           -> Pair with history
    prompt, completion   the answer to a prompt                                               -> Pair
    input, output        the same, as `lora-med data read` writes it                          -> Pair
    question, answer     with `contexts` and `options` if there are any                       -> Question
    text, label          a text and its class, where `data.columns` names the label's column  -> Question
    text                 running text, with `title` if there is one                           -> Passage

`data.columns` maps our names to yours. `uid` and `group` come from columns of that name, if there are any. Otherwise
the uid is file:line. The group is then a hash of what must not be in two splits: the text, the prompt, the question, or
the first turns of the conversation. `data.labels` names the classes of a label column. Without it they are all values
in the input, in alphabetical order. Numbers and booleans are used as text. State the license and the access class in
the section `adapter` of the settings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_med.config.near_names import unknown
from lora_med.data.catalog import SOURCES
from lora_med.data.formats.containers.line_ends import with_one_line_end
from lora_med.data.formats.jsonl import CONVERSATION
from lora_med.data.formats.tables import SKIP, TableRow, bad, is_encodable, rows
from lora_med.data.outcome import Again, Input, Outcome, ReadOptions, input_names
from lora_med.data.record import Pair, Passage, Question, Record
from lora_med.data.shapes.reasoning import last_reasoning
from lora_med.data.shapes.row_error import RowError
from lora_med.errors import DataError, SettingsError

LABELED = ("text", "label")
SHAPES = (("messages",), ("prompt", "completion"), ("input", "output"), ("question", "answer"), LABELED, ("text",))
MOST_LABELS = 50
OPTIONAL = ("uid", "group", "title", "contexts", "options", "explanation", "subject", "section", "history", "reasoning")
FIELDS = tuple(dict.fromkeys((*(field for shape in SHAPES for field in shape), *OPTIONAL)))
NAME = "name your columns in data.columns (--column field=column), or set data.skip_bad=true (--skip-bad)"
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class _Row:
    """A row seen through the column mapping."""

    values: Mapping[str, Any]
    columns: Mapping[str, str]
    labels: tuple[str, ...] = ()

    def column(self, field: str) -> str:
        return self.columns.get(field, field)

    def has(self, field: str) -> bool:
        return self.values.get(self.column(field)) is not None

    def get(self, field: str) -> Any:
        column = self.column(field)
        if column not in self.values:
            raise RowError("missing_column", f"no column {column!r} for {field!r} among the {len(self.values)} columns")
        return self.values[column]

    def text(self, field: str) -> str:
        return _text(self.get(field), f"column {self.column(field)!r}")

    def texts(self, field: str) -> tuple[str, ...]:
        """A list of texts; a single text counts as a list of one, a mapping as its values."""
        if not self.has(field) or self.get(field) == "":
            return ()
        value, name = _parsed(self.get(field)), f"column {self.column(field)!r}"
        items = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
        return tuple(_text(item, f"{name}, item {number}") for number, item in enumerate(items, 1))


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The rows of the inputs as records; all rows have the shape of the first.

    Drops with an error: missing_column, bad_type, empty_text, bad_json, bad_csv, bad_utf8, damaged_file.

    Raises:
        SettingsError: `data.columns` names a field that does not exist, or `data.labels` and no label column.
        DataError: a label column with one value, or with very many.
    """
    for field in options.columns:
        if field not in FIELDS:
            raise SettingsError(unknown("field", field, FIELDS), where="data.columns")
    names = input_names(inputs)
    if options.labels and "label" not in options.columns:
        raise SettingsError(
            "data.labels names classes, and no column holds them", where="data.labels", fix="data.columns.label=COLUMN"
        )
    labels = _labels(inputs, options) if "label" in options.columns else ()

    def again() -> Iterator[Outcome]:
        shape = _mapped_shape(options.columns)
        for item in inputs:
            for row in rows(item, options.table):
                if not isinstance(row, TableRow):
                    yield row
                    continue
                options.notes.access.update(_came_from(row.values))
                try:
                    seen = _Row(row.values, options.columns, labels)
                    shape = shape or _shape(seen)
                    yield with_one_line_end(_MAKERS[shape](seen, f"{names[item]}:{row.number}"))
                except RowError as wrong:
                    yield bad(wrong.reason, wrong.what, row.where, NAME if wrong.reason == "missing_column" else SKIP)

    return Again(again)


def _came_from(values: Mapping[str, Any]) -> Iterator[str]:
    """The access class of the source that a row of `lora-med data read` names."""
    source = values.get("source")
    access = SOURCES[source].access if "kind" in values and isinstance(source, str) and source in SOURCES else None
    if access is not None:
        yield access


def _labels(inputs: Sequence[Input], options: ReadOptions) -> tuple[str, ...]:
    """The closed set of classes: those in `data.labels`, else all that occur."""
    if options.labels:
        return tuple(options.labels)
    values: set[str] = set()
    for item in inputs:
        for row in rows(item, options.table):
            if isinstance(row, TableRow) and row.values.get(options.columns["label"]) not in (None, ""):
                values.add(str(row.values[options.columns["label"]]).strip())
                if len(values) > MOST_LABELS:
                    raise DataError(
                        f"more than {MOST_LABELS} different values in column {options.columns['label']!r}",
                        where=str(item),
                        fix="another column, or name the classes in data.labels",
                    )
    if len(values) == 1:
        raise DataError(
            f"column {options.columns['label']!r} has one value only: there is nothing to classify",
            where=", ".join(input_names(inputs).values()),
            fix="another column, or name the classes in data.labels",
        )
    return tuple(sorted(values))


def _mapped_shape(columns: Mapping[str, str]) -> tuple[str, ...] | None:
    if "label" in columns:
        return LABELED
    by_columns = (shape for shape in SHAPES if shape != LABELED)
    return next((shape for shape in by_columns if any(field in columns for field in shape)), None)


def _shape(row: _Row) -> tuple[str, ...]:
    shapes = [shape for shape in SHAPES if shape != LABELED]
    for shape in shapes:
        if all(row.column(field) in row.values for field in shape):
            return shape
    expected = "; or ".join(" and ".join(shape) for shape in shapes)
    raise RowError(
        "missing_column",
        f"expected the columns {expected}; none is among the {len(row.values)} there are (data.columns)",
    )


def _text(value: object, name: str, *, empty: bool = False) -> str:
    if not isinstance(value, str):
        raise RowError("bad_type", f"{name}: expected a text, got {type(value).__name__}")
    if not is_encodable(value):
        raise RowError("bad_utf8", f"{name}: half a surrogate pair is not a character")
    if not empty and not value.strip():
        raise RowError("empty_text", f"{name}: expected a text, it is empty")
    return value


def _parsed(value: object) -> object:
    """A JSON list or object that a text cell holds, else the value itself."""
    if isinstance(value, str) and value[:1] in "[{":
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _name(row: _Row, field: str, otherwise: str) -> str:
    if not row.has(field):
        if field in row.columns:
            row.get(field)
            raise RowError("bad_type", f"column {row.column(field)!r}: expected an identifier, got nothing")
        return otherwise
    value = row.get(field)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RowError(
            "bad_type", f"column {row.column(field)!r}: expected a text or number, got {type(value).__name__}"
        )
    return _text(str(value), f"column {row.column(field)!r}")


def _group(row: _Row, *parts: str) -> str:
    return _name(row, "group", hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16])


def _optional(row: _Row, field: str) -> str:
    return _text(row.get(field), f"column {row.column(field)!r}", empty=True) if row.has(field) else ""


def _turns(value: object, name: str) -> tuple[tuple[str, str], ...]:
    value = _parsed(value)
    if not isinstance(value, list):
        raise RowError("bad_type", f"{name}: expected a list of role and content, got {type(value).__name__}")
    turns: list[tuple[str, str]] = []
    for number, turn in enumerate(value, 1):
        if not isinstance(turn, dict) or not {"role", "content"} <= set(turn):
            raise RowError("bad_type", f"{name}, turn {number}: expected an object with role and content")
        if turn["role"] not in ROLES:
            raise RowError("bad_type", f"{name}, turn {number}: expected the role to be one of {', '.join(ROLES)}")
        turns.append((turn["role"], _text(turn["content"], f"{name}, turn {number}")))
    return tuple(turns)


def _conversation(row: _Row, turns: tuple[tuple[str, str], ...], name: str, uid: str, reasoning: str = "") -> Pair:
    if [role for role, _ in turns[-2:]] != ["user", "assistant"]:
        raise RowError("bad_type", f"{name}: expected the last two turns to be the user's and the assistant's")
    history, question, answer = turns[:-2], turns[-2][1], turns[-1][1]
    start = next(content for role, content in turns if role == "user")
    uid, group = _name(row, "uid", uid), _group(row, start)
    return Pair(uid, group, "custom", question, answer, "", history, reasoning, in_turns=True)


def _messages(row: _Row, uid: str) -> Record:
    name, value = f"column {row.column('messages')!r}", _parsed(row.get("messages"))
    return _conversation(row, _turns(value, name), name, uid, last_reasoning(value, name))


def _pair(question_field: str, answer_field: str) -> Callable[[_Row, str], Record]:
    def make(row: _Row, uid: str) -> Record:
        first, second = row.get(question_field), row.get(answer_field)
        if isinstance(first, list) and isinstance(second, list):  # both sides given as turns
            name = f"columns {row.column(question_field)!r} and {row.column(answer_field)!r}"
            return _conversation(row, _turns([*first, *second], name), name, uid, last_reasoning(second, name))
        question, answer = row.text(question_field), row.text(answer_field)
        history = _turns(row.get("history"), f"column {row.column('history')!r}") if row.has("history") else ()
        name, group = _name(row, "uid", uid), _group(row, question)
        more = _optional(row, "section"), history, _optional(row, "reasoning")
        in_turns = "source" in row.values and row.values.get("kind") == CONVERSATION
        return Pair(name, group, "custom", question, answer, *more, in_turns=in_turns)

    return make


def _question(row: _Row, uid: str) -> Record:
    question, options = row.text("question"), row.texts("options")
    answer = row.text("answer")
    if options and answer not in options:
        raise RowError("bad_type", f"column {row.column('answer')!r}: expected one of the {len(options)} options")
    return Question(
        _name(row, "uid", uid),
        _group(row, question),
        "custom",
        question,
        answer,
        row.texts("contexts"),
        options,
        _optional(row, "explanation"),
        subject=_optional(row, "subject"),
    )


def _labeled(row: _Row, uid: str) -> Record:
    text, value = row.text("text"), row.get("label")
    name = f"column {row.column('label')!r}"
    if value is None or isinstance(value, list | dict | float):
        raise RowError(
            "bad_type", f"{name}: expected a class, got {'nothing' if value is None else type(value).__name__}"
        )
    label = _text(str(value), name).strip()
    if label not in row.labels:
        raise RowError("bad_type", f"{name}: expected one of the {len(row.labels)} classes of data.labels")
    return Question(_name(row, "uid", uid), _group(row, text), "custom", text, label, options=row.labels)


def _passage(row: _Row, uid: str) -> Record:
    text = row.text("text")
    return Passage(_name(row, "uid", uid), _group(row, text), "custom", text, _optional(row, "title"))


_MAKERS: dict[tuple[str, ...], Callable[[_Row, str], Record]] = {
    ("messages",): _messages,
    ("prompt", "completion"): _pair("prompt", "completion"),
    ("input", "output"): _pair("input", "output"),
    ("question", "answer"): _question,
    LABELED: _labeled,
    ("text",): _passage,
}
