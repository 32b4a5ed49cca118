"""Records and a prompt template in, items to score out: `text` for running text, `choice` for questions with options.

Tokens are made by the same functions that make them for training, so what is scored is what was trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lora_med.data.formats.placeholders import TAG_WITH_SPACE
from lora_med.data.record import Question, Record
from lora_med.errors import DataError
from lora_med.models.generation import stop_ids
from lora_med.prompts.few_shot import Shots, render_with_shots
from lora_med.prompts.render import render
from lora_med.prompts.row import Row, Template
from lora_med.prompts.templates.templates import find_template
from lora_med.prompts.tokens_and_labels import Tokens, tokenize_rows


@dataclass(frozen=True, slots=True)
class TextItem:
    """A text as tokens; those from index `first` on are scored, except the indices in `unscored`.

    `size_bytes` is the scored text's length in UTF-8.
    """

    uid: str
    group: str
    input_ids: tuple[int, ...]
    first: int
    size_bytes: int
    unscored: frozenset[int] = frozenset()

    @property
    def tokens(self) -> int:
        """How many tokens are scored."""
        return len(self.input_ids) - self.first - len(self.unscored)


@dataclass(frozen=True, slots=True)
class ChoiceItem:
    """A question as prompt tokens, and each option's tokens; `answer` is one of `labels`, which name the options.

    `texts` are the options' words where the labels are letters. `subject` is the question's subject, where the source
    names it.
    """

    uid: str
    group: str
    prompt_ids: tuple[int, ...]
    option_ids: tuple[tuple[int, ...], ...]
    labels: tuple[str, ...]
    answer: str
    texts: tuple[str, ...] = ()
    subject: str = ""


def text_items(records: Sequence[Record], template: str, model: Any, tokenizer: Any) -> list[TextItem]:
    """One item for each record: every token of the text after BOS; the end token is no part of the text.

    Where the tokenizer adds no BOS, its BOS or end token comes first, so that the first word is scored too. For a
    template with a prompt only the answer's tokens are scored. Typed tags are input but not scored, because they are
    never trained.

    Raises:
        DataError: nothing is left to score.
    """
    stops = set(stop_ids(model, tokenizer))
    rows = render(records, template)
    items: list[TextItem] = []
    for row, tokens in zip(rows, tokenize_rows(rows, tokenizer), strict=True):
        item = _text_item(row, tokens, stops, tokenizer)
        if item.tokens and item.size_bytes:
            items.append(item)
    if not items:
        raise DataError(f"none of {len(records)} records has text to score", fix="check data.paths and the template")
    return items


def _text_item(row: Row, tokens: Tokens, stops: set[int], tokenizer: Any) -> TextItem:
    end = tokens.answer_end or len(tokens.input_ids)
    ids, trained = list(tokens.input_ids[:end]), list(tokens.trained[:end])
    first = trained.index(True) if True in trained else len(ids)
    if ids[-1] in stops:
        ids.pop()
    if first == 0 and ids and ids[0] == tokenizer.bos_token_id:
        first = 1
    if first == 0:
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        ids, trained, first = [start, *ids], [False, *trained], 1
    unscored = frozenset(index for index in range(first, len(ids)) if not trained[index])
    size = len(TAG_WITH_SPACE.sub("", row.completion).encode("utf-8"))
    return TextItem(row.uid, row.group, tuple(ids), min(first, len(ids)), size, unscored)


def choice_items(
    records: Sequence[Record], template: str, model: Any, tokenizer: Any, *, shots: Shots | None = None
) -> list[ChoiceItem]:
    """One item for each record: the prompt, and each option's tokens as in training, without the end token.

    `shots` puts solved examples before each question.

    Raises:
        DataError: a record's answer is none of its options, or there is no record.
    """
    found = find_template(template)
    stops = set(stop_ids(model, tokenizer))
    if not records:
        raise DataError("no records to score", fix="check data.paths and the split")
    rows = render_with_shots(records, template, shots)
    options = [_options(found, record) for record in records]
    for row, offered in zip(rows, options, strict=True):
        if len(offered) < 2:
            raise DataError(f"record {row.uid}: a question of {len(offered)} options is always answered right")
        if row.completion not in offered:
            raise DataError(f"record {row.uid}: the answer is none of its {len(offered)} options")
    filled = (_answered_with(row, option) for row, offered in zip(rows, options, strict=True) for option in offered)
    tokens = iter(tokenize_rows(filled, tokenizer))
    items: list[ChoiceItem] = []
    for record, row, offered in zip(records, rows, options, strict=True):
        pieces = [_split(next(tokens), stops) for _ in offered]
        if any(prompt != pieces[0][0] for prompt, _ in pieces):
            raise DataError(f"record {row.uid}: the options do not share one prompt", fix="check the template")
        labels = tuple(option.strip() for option in offered)
        texts = record.options if found.lettered and isinstance(record, Question) else ()
        answer = labels[offered.index(row.completion)]
        ids = tuple(option for _, option in pieces)
        subject = record.subject if isinstance(record, Question) else ""
        items.append(ChoiceItem(row.uid, row.group, pieces[0][0], ids, labels, answer, texts, subject))
    return items


def _options(template: Template, record: Record) -> tuple[str, ...]:
    return template.options(record) if template.options is not None else ()


def _answered_with(row: Any, option: str) -> Any:
    turns = (*row.turns[:-1], (row.turns[-1][0], option)) if row.turns else ()
    return replace(row, completion=option, turns=turns)


def _split(tokens: Tokens, stops: set[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    first = tokens.trained.index(True)
    end = tokens.answer_end
    end -= tokens.input_ids[end - 1] in stops
    return tuple(tokens.input_ids[:first]), tuple(tokens.input_ids[first:end])
