"""A question and its answer: open, with several accepted answers, or one option of several."""

from __future__ import annotations

import re
from collections.abc import Callable

from lora_med.data.record import Question
from lora_med.data.shapes.columns.cells import checked_text, is_blank, is_missing, parsed
from lora_med.data.shapes.columns.row_columns import Row
from lora_med.data.shapes.questions.answer_options import Options, read_options
from lora_med.data.shapes.questions.right_option import NO_ANSWER, Form, right_index, whole_number
from lora_med.data.shapes.row_error import Rejected, RowError

LISTED = re.compile(r"\s*\n\s*Answer Choices:(?P<choices>.*)\Z", re.DOTALL)
FormOf = Callable[[Row, str, Options], Form]


def question(row: Row, form_of: FormOf) -> Question:
    """A question with its contexts, options and answer. `form_of` says how an answer column names the right option.

    Raises:
        Rejected: the file has no answer to it.
        RowError: a value that does not fit.
    """
    asked, options, contexts = row.text("question"), read_options(row), row.texts("contexts")
    together = contexts or (asked,)
    impossible = next((name for name in row.values if name == "is_impossible"), None)
    if impossible:
        row.used[impossible] = "unanswerable"
        if row.values[impossible] is True:
            raise Rejected("unanswerable")
    if not options:
        answer, right = open_answer(row), None
    else:
        index = _right(row, options, form_of)
        answer = options.texts[index]
        right = index if options.texts.count(answer) > 1 else None
        asked = _without_choices(asked, options)
    return Question(
        row.uid(),
        row.group(*together),
        "custom",
        asked,
        answer,
        contexts,
        options.texts,
        row.optional("explanation"),
        right,
        row.optional("subject"),
    )


def open_answer(row: Row) -> str:
    """The answer in words; of several the first, the others counted as left out.

    Raises:
        Rejected: a list without an answer, as SQuAD has for questions that its text does not answer.
    """
    value, name = parsed(row.get("answer")), row.called("answer")
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        value = value["text"]
    if not isinstance(value, list):
        return checked_text(value if isinstance(value, dict) else row.get("answer"), name)
    return first_of(row, value, name)


def first_of(row: Row, values: list[object], name: str) -> str:
    """The first of several texts, the others that differ counted as left out."""
    bare = [item["text"] if isinstance(item, dict) and "text" in item else item for item in values]
    if not bare:
        raise Rejected("unanswerable")
    texts = [checked_text(item, f"{name}, item {number}") for number, item in enumerate(bare, 1)]
    for _ in dict.fromkeys(text.strip().casefold() for text in texts if text.strip() != texts[0].strip()):
        row.leave_out("further_answer")
    return texts[0]


def answer_fields(row: Row) -> list[str]:
    """The fields that name the right option: its text or letter in `answer`, its letter or number in `answer_idx`."""
    return [name for name in ("answer", "answer_idx") if row.has(name)]


def answer_value(row: Row, name: str) -> object:
    """The value that names the right option; a list of one is its member."""
    value = parsed(row.get(name))
    if isinstance(value, list):
        if len(value) > 1:
            raise RowError("bad_type", f"{row.called(name)}: expected one right option, got a list of {len(value)}")
        return value[0] if value else None
    return row.get(name)


def _right(row: Row, options: Options, form_of: FormOf) -> int:
    fields = answer_fields(row)
    if row.values.get("kind") == "question" and whole_number(row.values.get("right")) is not None:
        row.used["right"] = "answer"
        row.get("answer")
        return right_index(options, row.values["right"], "from_0", "column 'right'")
    if not fields:
        return right_index(options, answer_value(row, "answer"), "words", row.called("answer"))
    indices: dict[str, int] = {}
    for name in fields:
        value = answer_value(row, name)
        if whole_number(value) == NO_ANSWER:
            raise Rejected("empty_answer")
        indices[row.called(name)] = right_index(options, value, form_of(row, name, options), row.called(name))
    if len(set(indices.values())) > 1:
        raise RowError("bad_type", f"{' and '.join(indices)} name different options")
    return next(iter(indices.values()))


def _without_choices(asked: str, options: Options) -> str:
    """The question without the options written after it, as MedXpertQA has them: `Answer Choices: (A) ... (B) ...`."""
    listed = LISTED.search(asked)
    if (
        listed
        and all(text.strip() in listed["choices"] for text in options.texts)
        and not is_blank(asked[: listed.start()])
    ):
        return asked[: listed.start()]
    return asked


def is_question(row: Row) -> bool:
    """Whether a row has a question and what answers it: an answer, or options and the right one's letter or number."""
    if not row.has("question"):
        return False
    return row.fills("answer") or (row.has("answer_idx") and _offers(row))


def _offers(row: Row) -> bool:
    try:
        return len(read_options(row)) > 0
    except RowError:
        return not is_missing(row.values.get(row.column("options")))
