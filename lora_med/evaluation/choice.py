"""Multiple choice: how questions are asked, how they are answered, and what is measured of the answers.

A question may be asked once or in every cyclic order of its options. It is answered by the log-probability of each
option, or in writing, where what is not clearly one option is invalid and counts as wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lora_med.data.record import Question, Record
from lora_med.errors import SettingsError
from lora_med.evaluation.branches import cut_left
from lora_med.evaluation.measures import Measure, Numbers
from lora_med.evaluation.score import score_options
from lora_med.evaluation.tasks import ChoiceItem, choice_items
from lora_med.metrics.choice import best, best_by_length, mean_over_orders, unrotated
from lora_med.metrics.classify import f1_of_confusion
from lora_med.models.generation import greedy
from lora_med.prompts.answers import read_choice, read_letter
from lora_med.prompts.shots import Shots
from lora_med.prompts.templates import find_template

ANSWER_TOKENS = 16
MOST_LABELS = 26


@dataclass(frozen=True)
class Asked:
    """Questions, each in one or more orders of its options; `orders[i][0]` is `items[i]`, as the source has it."""

    items: tuple[ChoiceItem, ...]
    orders: tuple[tuple[ChoiceItem, ...], ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, if all items have the same ones; empty if they do not, as with the options' own words."""
        found = tuple(dict.fromkeys(label for item in self.items for label in item.labels))
        closed = len(found) <= MOST_LABELS and all(set(item.labels) == set(found) for item in self.items)
        return found if closed else ()

    @property
    def rotated(self) -> bool:
        """Whether the options stand in more than one order."""
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

    `scores` has a number for each option: its log-probability, or the share of orders in which it was written; over
    several orders the mean. `predicted` is a label, None where the answer is invalid. `by_length` is the label by
    log-probability per character; `changed` says whether the order changed the choice; `written` are the answers in the
    first order. A field that does not apply is empty.
    """

    predicted: tuple[str | None, ...]
    scores: tuple[tuple[float, ...], ...]
    by_length: tuple[str, ...] = ()
    changed: tuple[bool, ...] = ()
    written: tuple[str, ...] = ()


def ask(
    records: Sequence[Record],
    template: str,
    model: Any,
    tokenizer: Any,
    *,
    shots: Shots | None = None,
    rotate: bool = False,
) -> Asked:
    """The records as questions, with solved examples in front if there are `shots`.

    With `rotate` each is asked in every cyclic order of its options.

    Raises:
        SettingsError: `rotate`, and the template does not show its options with letters.
        DataError: as `choice_items`.
    """
    if rotate and not find_template(template).lettered:
        raise SettingsError(
            f"the template {template!r} does not letter its options, so their order cannot be changed",
            where="data.template",
            fix="a lettered template such as medqa, medmcqa, mmlu or choice",
        )
    turned = [rotations(record) if rotate and isinstance(record, Question) else (record,) for record in records]
    flat = iter(choice_items([one for order in turned for one in order], template, model, tokenizer, shots=shots))
    orders = tuple(tuple(next(flat) for _ in order) for order in turned)
    return Asked(tuple(order[0] for order in orders), orders)


def rotations(record: Question) -> tuple[Question, ...]:
    """The question with its options moved up by 0, 1, 2, ... places, those at the top to the end."""
    size = len(record.options)
    if record.right is None and record.answer not in record.options:
        return (record,)  # no question to choose in, as whoever renders it will say
    return tuple(
        replace(
            record,
            options=(*record.options[turn:], *record.options[:turn]),
            right=(record.right_option - turn) % size,
        )
        for turn in range(size)
    )


def score_choices(model: Any, asked: Asked, context: int) -> Choices:
    """The choices by log-probability: the option that is likeliest after the prompt, over all orders asked."""
    rows = [(item.prompt_ids, item.option_ids) for item in asked.flat()]
    return choose(asked, score_options(model, rows, context))


def choose(asked: Asked, scores: Sequence[Sequence[float]]) -> Choices:
    """The choices by the log-probabilities of the options of `asked.flat()`."""
    orders = _in_orders(asked, scores)
    means = [mean_over_orders(order) for order in orders]
    lengths = any(len({len(label) for label in item.labels}) > 1 for item in asked.items)
    return Choices(
        predicted=tuple(item.labels[best(one)] for item, one in zip(asked.items, means, strict=True)),
        scores=tuple(map(tuple, means)),
        by_length=tuple(
            item.labels[best_by_length(one, item.labels)] for item, one in zip(asked.items, means, strict=True)
        )
        if lengths
        else (),
        changed=tuple(len({best(one) for one in order}) > 1 for order in orders) if asked.rotated else (),
    )


def answer_choices(
    model: Any,
    tokenizer: Any,
    asked: Asked,
    context: int,
    *,
    max_new_tokens: int = ANSWER_TOKENS,
    advance: Callable[[int], None] = lambda count: None,
) -> Choices:
    """The choices in writing, greedily; over several orders the option that was written most often.

    Of options written equally often the one of the first order wins if it is among them. No valid answer in any order
    is invalid. A prompt longer than `context` loses tokens after its first.
    """
    flat = asked.flat()
    prompts = [cut_left(item.prompt_ids, max(1, context - max_new_tokens)) for item in flat]
    tokens = greedy(model, tokenizer, prompts, max_new_tokens=max_new_tokens, advance=advance)
    texts = [tokenizer.decode(one, skip_special_tokens=True) for one in tokens]
    votes = [
        [float(label == one) for label in item.labels]
        for item, one in zip(flat, read_answers(flat, texts), strict=True)
    ]
    orders = _in_orders(asked, votes)
    means = [mean_over_orders(order) for order in orders]
    starts = np.cumsum([0, *(len(order) for order in asked.orders)])[:-1]
    return Choices(
        predicted=tuple(
            item.labels[_most_written(one, order[0])] if any(one) else None
            for item, order, one in zip(asked.items, orders, means, strict=True)
        ),
        scores=tuple(map(tuple, means)),
        changed=tuple(len({tuple(one) for one in order}) > 1 for order in orders) if asked.rotated else (),
        written=tuple(texts[start] for start in starts),
    )


def _most_written(shares: Sequence[float], first: Sequence[float]) -> int:
    return max(range(len(shares)), key=lambda place: (shares[place], first[place]))


def read_answers(items: Sequence[ChoiceItem], texts: Sequence[str]) -> list[str | None]:
    """The label that each written answer gives, None where it gives none clearly."""
    return [
        read_letter(text, item.labels, item.texts) if item.texts else read_choice(text, item.labels)
        for item, text in zip(items, texts, strict=True)
    ]


def _in_orders(asked: Asked, flat: Sequence[Sequence[float]]) -> list[list[list[float]]]:
    """Scores by item, order and option, out of one list of scores by place for each item in each order."""
    rows = iter(flat)
    return [unrotated([next(rows) for _ in order]) for order in asked.orders]


def option_table(asked: Asked, choices: Choices) -> Numbers:
    """Items x columns, as `option_measures` reads them.

    Over a closed set of labels (true label, answer) flattened, the last answer being none; else right and one for each
    item. Then whether by length it is right, whether it is invalid, and whether the order changed it.
    """
    labels, count = asked.labels, len(asked.items)
    if labels:
        place = {label: index for index, label in enumerate(labels)}
        first = np.zeros((count, len(labels) * (len(labels) + 1)))
        for row, (right, got) in enumerate(zip(asked.truth, choices.predicted, strict=True)):
            answer = len(labels) if got is None else place[got]
            first[row, place[right] * (len(labels) + 1) + answer] = 1
    else:
        hits = [a == b for a, b in zip(asked.truth, choices.predicted, strict=True)]
        first = np.column_stack([hits, np.ones(count)]).astype(np.float64)
    by_length = [a == b for a, b in zip(asked.truth, choices.by_length or [None] * count, strict=True)]
    invalid = [one is None for one in choices.predicted]
    rest = np.column_stack([by_length, invalid, choices.changed or [False] * count]).astype(np.float64)
    return np.hstack([first, rest])


def option_measures(asked: Asked, *, written: bool = False) -> tuple[Measure, ...]:
    """What is measured of the choices; accuracy comes first, and measures that say nothing of these items are left out.

    Recall is given for each label that occurs in a closed set, macro-F1 over the whole set.
    """
    labels = asked.labels
    lengths = any(len({len(label) for label in item.labels}) > 1 for item in asked.items)

    def share(column: int) -> Callable[[Numbers], Numbers]:
        return lambda sums: sums[..., column] / _total(sums, len(labels))

    found = [
        Measure("accuracy", "accuracy", "", False, lambda sums: _hits(sums, len(labels)) / _total(sums, len(labels)))
    ]
    if lengths and not written:
        found.append(Measure("accuracy_by_length", "accuracy by length", "", False, share(-3)))
    if labels:
        found.append(Measure("macro_f1", "macro-F1", "", False, lambda sums: _macro_f1(sums, len(labels))))
        found += [_recall(labels, label) for label in labels if label in asked.truth]
    if written:
        found.append(Measure("invalid_rate", "invalid answers", "share", True, share(-2)))
    if asked.rotated:
        found.append(Measure("order_sensitivity", "changed by the order", "share", True, share(-1)))
    return tuple(found)


def _confusion(sums: Numbers, labels: int) -> Numbers:
    return sums[..., :-3].reshape(*sums.shape[:-1], labels, labels + 1)


def _hits(sums: Numbers, labels: int) -> Numbers:
    return np.trace(_confusion(sums, labels), axis1=-2, axis2=-1) if labels else sums[..., 0]


def _total(sums: Numbers, labels: int) -> Numbers:
    return sums[..., :-3].sum(-1) if labels else sums[..., 1]


def _macro_f1(sums: Numbers, labels: int) -> Numbers:
    table = _confusion(sums, labels)
    square = np.concatenate([table, np.zeros_like(table[..., :1, :])], axis=-2)  # no item is truly without an answer
    return f1_of_confusion(square)[..., :labels].mean(-1)


def _recall(labels: Sequence[str], label: str) -> Measure:
    place = list(labels).index(label)

    def of_sums(sums: Numbers) -> Numbers:
        row = _confusion(sums, len(labels))[..., place, :]
        total = row.sum(-1)
        return np.divide(row[..., place], total, out=np.zeros_like(total), where=total > 0)

    return Measure(f"recall_{label}", f"recall of {label}", "", False, of_sums)
