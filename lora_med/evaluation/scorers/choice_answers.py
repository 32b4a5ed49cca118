"""Multiple choice: how questions are asked, and how answers are read.

A question may be asked once or in every cyclic order of its options. It is answered by the log-probability of each
option, or in writing. A written answer that is not clearly one option is invalid and counts as wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lora_med.data.record import Question, Record
from lora_med.errors import SettingsError
from lora_med.evaluation.likelihood.log_probabilities import score_options
from lora_med.evaluation.likelihood.shared_prefix_scoring import cut_left
from lora_med.evaluation.scorers.items import ChoiceItem, choice_items
from lora_med.metrics.choice import best, best_by_length, mean_over_orders, unrotated
from lora_med.models.generation import RunBatches, greedy, in_order
from lora_med.prompts.answers import read_choice, read_letter
from lora_med.prompts.few_shot import Shots
from lora_med.prompts.templates.templates import find_template

ANSWER_TOKENS = 16
MOST_LABELS = 50


@dataclass(frozen=True)
class ChoiceQuestions:
    """Questions, each in one or more orders of its options; `orders[i][0]` is `items[i]`, as the source has it."""

    items: tuple[ChoiceItem, ...]
    orders: tuple[tuple[ChoiceItem, ...], ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, if all items have the same labels; otherwise empty, as for options named by their own words."""
        labels = tuple(dict.fromkeys(label for item in self.items for label in item.labels))
        closed = len(labels) <= MOST_LABELS and all(set(item.labels) == set(labels) for item in self.items)
        return labels if closed else ()

    @property
    def rotated(self) -> bool:
        """Whether the options are asked in more than one order."""
        return any(len(order) > 1 for order in self.orders)

    @property
    def truth(self) -> tuple[str, ...]:
        """The right label of each item."""
        return tuple(item.answer for item in self.items)

    def flat(self) -> list[ChoiceItem]:
        """Every item in every order, one after another."""
        return [item for order in self.orders for item in order]


@dataclass(frozen=True)
class Choices:
    """What one subject chose of the options: one entry an item.

    `scores` has a number for each option: its log-probability, or the share of orders in which it was written. Over
    several orders it is the mean. `predicted` is a label, None where the answer is invalid. `by_length` is the label by
    log-probability per character. `changed` says whether the order changed the choice. `written` are the answers in
    the first order. A field that does not apply is empty.
    """

    predicted: tuple[str | None, ...]
    scores: tuple[tuple[float, ...], ...]
    by_length: tuple[str, ...] = ()
    changed: tuple[bool, ...] = ()
    written: tuple[str, ...] = ()


def pose_questions(
    records: Sequence[Record],
    template: str,
    model: Any,
    tokenizer: Any,
    *,
    shots: Shots | None = None,
    rotate: bool = False,
) -> ChoiceQuestions:
    """The records as questions, with solved examples in front if there are `shots`.

    With `rotate` each is asked in every cyclic order of its options.

    Raises:
        SettingsError: `rotate`, and the template does not show its options with letters.
        DataError: as `choice_items`.
    """
    if rotate and not find_template(template).lettered:
        raise SettingsError(
            f"the template {template!r} gives its options no letters, so their order cannot be changed",
            where="data.template",
            fix="a lettered template such as medqa, medmcqa, mmlu or choice",
        )
    asked_orders = [rotations(record) if rotate and isinstance(record, Question) else (record,) for record in records]
    flat = iter(
        choice_items(
            [question for order in asked_orders for question in order], template, model, tokenizer, shots=shots
        )
    )
    orders = tuple(tuple(next(flat) for _ in order) for order in asked_orders)
    return ChoiceQuestions(tuple(order[0] for order in orders), orders)


def rotations(record: Question) -> tuple[Question, ...]:
    """The question with its options rotated by 0, 1, 2, ... positions."""
    size = len(record.options)
    if record.right is None and record.answer not in record.options:
        return (record,)  # there is nothing to choose from; rendering reports it
    return tuple(
        replace(
            record,
            options=(*record.options[turn:], *record.options[:turn]),
            right=(record.right_option - turn) % size,
        )
        for turn in range(size)
    )


def score_choices(model: Any, questions: ChoiceQuestions, context: int, *, run: RunBatches = in_order) -> Choices:
    """The choices by log-probability: the option with the highest value after the prompt, over all orders."""
    rows = [(item.prompt_ids, item.option_ids) for item in questions.flat()]
    return choose(questions, score_options(model, rows, context, run=run))


def choose(questions: ChoiceQuestions, scores: Sequence[Sequence[float]]) -> Choices:
    """The choices by the log-probabilities of the options of `questions.flat()`."""
    orders = _in_orders(questions, scores)
    means = [mean_over_orders(order) for order in orders]
    lengths = any(len({len(label) for label in item.labels}) > 1 for item in questions.items)
    return Choices(
        predicted=tuple(item.labels[best(scored)] for item, scored in zip(questions.items, means, strict=True)),
        scores=tuple(map(tuple, means)),
        by_length=tuple(
            item.labels[best_by_length(scored, item.labels)]
            for item, scored in zip(questions.items, means, strict=True)
        )
        if lengths
        else (),
        changed=tuple(len({best(scored) for scored in order}) > 1 for order in orders) if questions.rotated else (),
    )


def answer_choices(
    model: Any,
    tokenizer: Any,
    questions: ChoiceQuestions,
    context: int,
    *,
    max_new_tokens: int = ANSWER_TOKENS,
    advance: Callable[[int], None] = lambda count: None,
    run: RunBatches = in_order,
) -> Choices:
    """The choices in writing, greedily; over several orders the option that was written most often.

    Among options written equally often, that of the first order wins. A question without a valid answer in any order is
    invalid. A prompt longer than `context` loses tokens after its first.
    """
    flat = questions.flat()
    prompts = [cut_left(item.prompt_ids, max(1, context - max_new_tokens)) for item in flat]
    tokens = greedy(model, tokenizer, prompts, max_new_tokens=max_new_tokens, advance=advance, run=run)
    texts = [tokenizer.decode(shares, skip_special_tokens=True) for shares in tokens]
    votes = [
        [float(label == shares) for label in item.labels]
        for item, shares in zip(flat, read_answers(flat, texts), strict=True)
    ]
    orders = _in_orders(questions, votes)
    means = [mean_over_orders(order) for order in orders]
    starts = np.cumsum([0, *(len(order) for order in questions.orders)])[:-1]
    return Choices(
        predicted=tuple(
            item.labels[_most_written(shares, order[0])] if any(shares) else None
            for item, order, shares in zip(questions.items, orders, means, strict=True)
        ),
        scores=tuple(map(tuple, means)),
        changed=tuple(len({tuple(shares) for shares in order}) > 1 for order in orders) if questions.rotated else (),
        written=tuple(texts[start] for start in starts),
    )


def _most_written(shares: Sequence[float], first: Sequence[float]) -> int:
    return max(range(len(shares)), key=lambda index: (shares[index], first[index]))


def read_answers(items: Sequence[ChoiceItem], texts: Sequence[str]) -> list[str | None]:
    """The label that each written answer gives, None where no label is clear."""
    return [
        read_letter(text, item.labels, item.texts) if item.texts else read_choice(text, item.labels)
        for item, text in zip(items, texts, strict=True)
    ]


def _in_orders(questions: ChoiceQuestions, flat: Sequence[Sequence[float]]) -> list[list[list[float]]]:
    """Scores by item, order and option, from one list of scores for each item in each order."""
    rows = iter(flat)
    return [unrotated([next(rows) for _ in order]) for order in questions.orders]
