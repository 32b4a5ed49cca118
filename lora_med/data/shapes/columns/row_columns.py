"""A row seen through `data.columns`: which column holds which field, checked values, and a record of what was used.

A field is found under the name that `data.columns` gives it, else under its own name or a usual other one, else under
one of these in another spelling (`Text`, `Correct Answer`). Two spellings of one name are never chosen between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lora_med.config.near_names import nearest
from lora_med.data.outcome import PartDrop
from lora_med.data.shapes.columns.cells import (
    LONGEST_NAME,
    ROW_WORDS,
    checked_text,
    is_blank,
    is_missing,
    listed,
    parsed,
    spelling,
)
from lora_med.data.shapes.dotted import value_at
from lora_med.data.shapes.row_error import RowError

Finding = TypeVar("Finding")
NO_GROUP = "none"  # data.columns.group=none: each text is its own group, on purpose
# Each field with the names under which files have it, ours first.
NAMES: dict[str, tuple[str, ...]] = {
    "uid": ("uid",),
    "group": ("group",),
    "text": ("text",),
    "title": ("title",),
    "section": ("section",),
    "label": ("label", "labels"),
    "messages": ("messages", "conversations", "conversation"),
    "system": ("system", "system_prompt"),
    "history": ("history",),
    "reasoning": ("reasoning", "reasoning_content", "thinking"),
    "instruction": ("instruction",),
    "input": ("input",),
    "output": ("output", "response", "completion", "answer"),
    "prompt": ("prompt",),
    "completion": ("completion", "response", "output", "answer"),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
    "question": ("question",),
    "answer": ("answer", "answers", "correct_answer", "response", "output"),
    "answer_idx": ("answer_idx", "answer_index", "answer_key", "answer_letter", "correct_option", "correct_index",
                   "correct", "cop", "label"),
    "contexts": ("contexts", "context"),
    "options": ("options", "choices", "answer_choices", "answer_options"),
    "explanation": ("explanation", "exp"),
    "subject": ("subject", "subject_name"),
}  # fmt: skip
ANNOTATED = ("spans", "entities", "tokens", "ner_tags")
FIELDS = (*NAMES, *ANNOTATED)


class Layout:
    """The columns of rows that have the same ones, and the candidates for each field among them."""

    def __init__(self, names: tuple[str, ...], mapping: Mapping[str, str], ignored: frozenset[str]) -> None:
        self.names = names
        self.mapping = mapping
        self.ignored = ignored
        self.has_dotted = any("." in column for column in mapping.values())
        taken = set(mapping.values())
        self._free = {name for name in names if name not in ignored and name not in taken}
        self._spellings: dict[str, list[str]] = {}
        for name in names:
            if name in self._free:
                self._spellings.setdefault(spelling(name), []).append(name)
        self._candidates: dict[str, tuple[str, ...]] = {}
        self._findings: dict[str | tuple[str, ...], Any] = {}

    def candidates(self, field_name: str) -> tuple[str, ...]:
        """The columns that may hold a field, the likeliest first; the one that `data.columns` names alone.

        Raises:
            RowError: two columns spell the field's name.
        """
        candidates = self._candidates.get(field_name)
        if candidates is None:
            candidates = self._candidates[field_name] = tuple(self._find(NAMES.get(field_name, (field_name,))))
        return candidates

    def _find(self, names: Sequence[str]) -> list[str]:
        for name in names:
            if name in self.mapping:
                return [self.mapping[name]]
        columns: list[str] = []
        for name in names:
            spelled = self.spelled(name)
            columns += [spelled] if spelled else []
        return columns

    def spelled(self, name: str) -> str | None:
        """The column of that name, or the only one in another spelling.

        Raises:
            RowError: there are two.
        """
        if name in self._free:
            return name
        columns = self._spellings.get(spelling(name), [])
        if len(columns) > 1:
            raise RowError(
                "missing_column",
                f"the columns {listed(columns)} both spell {name!r}: name the one in data.columns.{name}",
            )
        return columns[0] if columns else None

    def found(self, topic: str | tuple[str, ...], find: Callable[[], Finding]) -> Finding:
        """What `find` finds out about these columns, once for each topic."""
        if topic not in self._findings:
            self._findings[topic] = find()
        return self._findings[topic]

    def may_hold(self, field_name: str) -> bool:
        """Whether a field has a column, as far as the names tell: two that spell it, or a dotted one, may."""
        try:
            return bool(self.candidates(field_name))
        except RowError:
            return True

    def by_spelling(self) -> Mapping[str, Sequence[str]]:
        """The columns that no setting names, by their spelling."""
        return self._spellings


@dataclass(slots=True)
class Row:
    """The values of one row: `where` for messages, `position` for its uid, and what reading it used and left out.

    `used` maps columns to the fields they were used as; those `set_aside` hold nothing to learn. `turn_keys` are keys
    of conversation turns beside role and content. `parts` are parts of the record that were left out.
    """

    values: Mapping[str, Any]
    layout: Layout
    where: str
    position: str
    used: dict[str, str] = field(default_factory=dict)
    set_aside: set[str] = field(default_factory=set)
    turn_keys: dict[str, Any] = field(default_factory=dict)
    parts: list[PartDrop] = field(default_factory=list)
    class_names: Callable[[], tuple[str, ...]] = tuple  # of tags that are numbers

    def column(self, name: str) -> str:
        """The column of a field: the first candidate with content, else the first, else the field's own name."""
        candidates = self.layout.candidates(name)
        if len(candidates) == 1:
            return candidates[0]
        filled = (column for column in candidates if not is_blank(self._value(column)))
        return next(filled, candidates[0] if candidates else name)

    def _value(self, column: str) -> Any:
        """The value of a column, or of what a dotted name means inside one; None where there is none."""
        if column in self.values or "." not in column:
            return self.values.get(column)
        try:
            return value_at(self.values, column)
        except KeyError:
            return None

    def _holds(self, column: str) -> bool:
        if column in self.values or "." not in column:
            return column in self.values
        try:
            value_at(self.values, column)
        except KeyError:
            return False
        return True

    def is_used(self, column: str) -> bool:
        """Whether a column, or something inside it, was used."""
        if column in self.used or not self.layout.has_dotted:
            return column in self.used
        return any(name.startswith(f"{column}.") for name in self.used)

    def has(self, name: str) -> bool:
        """Whether a field has a value."""
        for column in self.layout.candidates(name):  # noqa: SIM110 - asked a dozen times a row, and `any` takes twice as long
            if not is_missing(self._value(column)):
                return True
        return False

    def fills(self, name: str) -> bool:
        """Whether a field has content."""
        for column in self.layout.candidates(name):  # noqa: SIM110 - as in `has`
            if not is_blank(self._value(column)):
                return True
        return False

    def has_column(self, name: str) -> bool:
        """Whether a field has a column, whatever it holds."""
        for column in self.layout.candidates(name):  # noqa: SIM110 - as in `has`
            if self._holds(column):
                return True
        return False

    def get(self, name: str) -> Any:
        """The value of a field.

        Raises:
            RowError: it has no column.
        """
        column = self.column(name)
        if column not in self.values and not self._holds(column):
            near = nearest(column, [known for known in self.layout.names if len(known) <= LONGEST_NAME])
            raise RowError(
                "missing_column",
                f"no column {column!r} for {name!r} among the {len(self.values)} columns "
                f"({listed(self.values, ROW_WORDS)}){f'; did you mean {near!r}?' if near else ''}",
            )
        self.used[column] = name
        return self.values[column] if column in self.values else self._value(column)

    def called(self, name: str) -> str:
        """The field's column, for messages."""
        return f"column {self.column(name)!r}"

    def text(self, name: str) -> str:
        """The text of a field; a number counts as its text, a blank one is an error."""
        value = self.get(name)
        if isinstance(value, str) and value.isascii() and value.strip():
            return value
        return checked_text(value, self.called(name))

    def optional(self, name: str) -> str:
        """The text of a field, or an empty one."""
        if not self.layout.candidates(name):
            return ""
        if not self.has(name):
            if self.has_column(name):
                self.get(name)
            return ""
        return checked_text(self.get(name), self.called(name), empty=True)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; a single text is a list of one, a mapping is its values, and `{text: ...}` its text."""
        if not self.has_column(name):
            return ()
        value, called = parsed(self.get(name)), self.called(name)
        if is_missing(value) or value == "":
            return ()
        if isinstance(value, dict):
            inner = value.get(name, value.get("text"))
            value = inner if isinstance(inner, list) else list(value.values())
        items = value if isinstance(value, list) else [value]
        bare = [item["text"] if isinstance(item, dict) and "text" in item else item for item in items]
        return tuple(
            checked_text(item, f"{called}, item {number}")
            for number, item in enumerate(bare, 1)
            if not is_missing(item)
        )

    def uid(self) -> str:
        """The identifier in the column `uid`, else the file and line."""
        return self._name("uid") or self.position

    def group(self, *parts: str) -> str:
        """The group in the column `group`, else a hash of `parts`, which must not be in two splits."""
        named = "" if self.layout.mapping.get("group", "").casefold() == NO_GROUP else self._name("group")
        return named or hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]

    def _name(self, name: str) -> str:
        if not self.layout.candidates(name):  # a field that `data.columns` names has one
            return ""
        if not self.has(name):
            if name in self.layout.mapping:
                self.get(name)
                raise RowError("bad_type", f"{self.called(name)}: expected an identifier, got nothing")
            if self.has_column(name):
                self.get(name)
            return ""
        value = self.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise RowError("bad_type", f"{self.called(name)}: expected a text or number, got {type(value).__name__}")
        return checked_text(str(value), self.called(name))

    def leave_out(self, reason: str) -> None:
        """Count a part of the record that is left out."""
        self.parts.append(PartDrop(reason, self.where))
