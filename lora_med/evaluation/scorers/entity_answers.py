"""Named entities as a task: the model writes a JSON list, which gets offsets in the text, and offsets are compared.

A table has a row for each item. For each type the row has the counts that F1 needs (see metrics/spans.py). A last block
of counts is for predictions of types that the task does not have: they are wrong, and lower the precision. If a mention
is named more often than it occurs in the text, the excess counts as hallucinated.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from lora_med.data.record import Annotated, Record
from lora_med.errors import DataError, SettingsError
from lora_med.evaluation.likelihood.constrained_json import entity_list, unconstrained
from lora_med.evaluation.likelihood.shared_prefix_scoring import cut_left
from lora_med.evaluation.measures import Measure, Numbers
from lora_med.metrics.spans import Mention, collapsed, f1_of_counts, micro, relaxed, strict, unseen
from lora_med.models.generation import RunBatches, greedy, in_order
from lora_med.prompts.render import render
from lora_med.prompts.templates.entity_json import Entities, read_entities, write_entities
from lora_med.prompts.tokens_and_labels import tokenize_rows

# For each type four times (hits, gold, predicted). For the item: hallucinated mentions, 1 answer, 1 if it is invalid.
STRICT, RELAXED, UNSEEN, COLLAPSED = (slice(first, first + 3) for first in (0, 3, 6, 9))
WIDTH, REST = 12, 3
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EntityItem:
    """A text as prompt tokens, its gold mentions, and the gold list as the template writes it, with its tokens."""

    uid: str
    group: str
    prompt_ids: tuple[int, ...]
    text: str
    gold: tuple[Mention, ...]
    gold_answer: str
    answer_tokens: int


@dataclass(frozen=True, slots=True)
class AnswerCoverage:
    """What no answer can score, because of its form: the gold list itself matches `placed` of `mentions` gold mentions.

    The other mentions end in blanks, or are where the search from left to right does not look. `cut_prompts` counts the
    prompts that lost their beginning because of the context. `long_answers` counts the items whose gold list has more
    tokens than an answer may have.
    """

    mentions: int
    placed: int
    cut_prompts: int
    long_answers: int


def entity_items(records: Sequence[Record], template: str, model: Any, tokenizer: Any) -> list[EntityItem]:
    """One item for each record, in the tokens that training would see.

    Raises:
        SettingsError: the template takes another kind of record.
        DataError: no record, or none with an annotated mention.
    """
    rows = render(records, template)
    annotated = [record for record in records if isinstance(record, Annotated)]
    if len(annotated) < len(records):
        raise SettingsError(f"the template {template!r} does not ask for named entities", where="data.template")
    if not any(record.spans for record in annotated):
        raise DataError(
            f"none of {len(records)} records has an annotated mention", fix="check data.paths: the gold must be there"
        )
    items: list[EntityItem] = []
    for record, row, tokens in zip(annotated, rows, tokenize_rows(rows, tokenizer), strict=True):
        first = tokens.trained.index(True)
        items.append(
            EntityItem(
                uid=row.uid,
                group=row.group,
                prompt_ids=tuple(tokens.input_ids[:first]),
                text=record.text,
                gold=gold_mentions(record),
                gold_answer=write_entities(record),
                answer_tokens=tokens.answer_end - first,
            )
        )
    return items


def gold_mentions(record: Annotated) -> tuple[Mention, ...]:
    """The record's mentions as they are scored, under its uid."""
    return tuple(Mention(record.uid, span.type, span.text.strip(), (span.start, span.end)) for span in record.spans)


def entity_types(items: Iterable[EntityItem]) -> tuple[str, ...]:
    """The types of the gold mentions, sorted: those that macro-F1 averages and that a constrained answer may use."""
    return tuple(sorted({mention.type for item in items for mention in item.gold}))


def seen_mentions(records: Iterable[Record]) -> frozenset[str]:
    """The casefolded mentions of training records; all other mentions are unseen."""
    return frozenset(
        span.text.strip().casefold() for record in records if isinstance(record, Annotated) for span in record.spans
    )


def answer_limit(items: Sequence[EntityItem], context: int) -> int:
    """How many tokens an answer may have: 1.5 times the longest gold list, at most half of the context.

    One limit serves all items, so that it reveals no single answer's length.
    """
    longest = max(item.answer_tokens for item in items)
    return max(1, min(longest + longest // 2, context // 2))


def answer_coverage(items: Sequence[EntityItem], *, context: int, max_new_tokens: int) -> AnswerCoverage:
    """Counts of what cannot be scored, whatever a model answers."""
    counts = [micro(strict(item.gold, _predicted(item, read_entities(item.gold_answer, item.text)))) for item in items]
    return AnswerCoverage(
        mentions=sum(counted.gold for counted in counts),
        placed=sum(counted.hits for counted in counts),
        cut_prompts=sum(len(item.prompt_ids) + max_new_tokens > context for item in items),
        long_answers=sum(item.answer_tokens > max_new_tokens for item in items),
    )


def answer_entities(
    model: Any,
    tokenizer: Any,
    items: Sequence[EntityItem],
    *,
    context: int,
    max_new_tokens: int,
    types: Sequence[str] | None = None,
    advance: Callable[[int], None] = lambda count: None,
    run: RunBatches = in_order,
) -> list[str]:
    """What the model with its active adapter writes after each prompt, by the likeliest tokens.

    Args:
        context: the longest row in tokens, prompt and answer; a longer prompt loses its beginning.
        types: restrict every answer to a JSON list of these types (needs llguidance); None restricts nothing.
        advance: called with the number of items done, batch by batch of those that this process runs.
        run: runs the batches.

    Raises:
        DependencyMissingError: `types` are given and llguidance is not installed.
    """
    prompts = [cut_left(item.prompt_ids, context - max_new_tokens) for item in items]
    rule = unconstrained if types is None else entity_list(model, tokenizer, types)
    tokens = greedy(model, tokenizer, prompts, max_new_tokens=max_new_tokens, processors=rule, advance=advance, run=run)
    unfinished = sum(len(answer) >= max_new_tokens for answer in tokens)
    if unfinished:
        logger.info("%d of %d answers stopped at %d tokens", unfinished, len(items), max_new_tokens)
    return [tokenizer.decode(answer, skip_special_tokens=True) for answer in tokens]


def entity_table(
    items: Sequence[EntityItem], answers: Sequence[str], types: Sequence[str], seen: Set[str] = frozenset()
) -> Numbers:
    """Items x (counts of each type, counts of other types, hallucinated mentions, answers, invalid answers).

    Args:
        answers: one text for each item, from `answer_entities`; the items' `gold_answer` gives the best possible table.
        types: those that `entity_measures` received.
        seen: casefolded mentions of the training records.
    """
    table = np.zeros((len(items), WIDTH * (len(types) + 1) + REST))
    for row, item, answer in zip(table, items, answers, strict=True):
        entities = read_entities(answer, item.text)
        row[:-REST] = mention_counts(item.gold, _predicted(item, entities), types, seen)
        row[-REST:] = len(entities.hallucinated), 1, not entities.sound
    return table


def mention_counts(
    gold: Sequence[Mention], predicted: Sequence[Mention], types: Sequence[str], seen: Set[str]
) -> Numbers:
    """One item's counts for each type, then for all other types; in each, STRICT, RELAXED, UNSEEN and COLLAPSED."""
    counts = np.zeros((len(types) + 1, WIDTH))
    row_of_type = {kind: number for number, kind in enumerate(types)}
    for columns, counted in (
        (STRICT, strict(gold, predicted)),
        (RELAXED, relaxed(gold, predicted)),
        (UNSEEN, strict(unseen(gold, seen), unseen(predicted, seen))),
        (COLLAPSED, collapsed(gold, predicted)),
    ):
        for kind, total in counted.items():
            counts[row_of_type.get(kind, len(types)), columns] += (total.hits, total.gold, total.predicted)
    return counts.ravel()


def entity_measures(types: Sequence[str], *, with_unseen: bool) -> tuple[Measure, ...]:
    """Strict F1 first, then precision, recall, types and looser readings, and how answers went wrong.

    Args:
        with_unseen: include F1 on unseen mentions, for tables made with the mentions of training.
    """
    by_type = [
        Measure(f"f1_{kind}", f"F1, {kind}", "", False, _f1_of_type(number)) for number, kind in enumerate(types)
    ]
    return (
        Measure("micro_f1", "strict F1", "", False, _micro(STRICT)),
        Measure("precision", "strict precision", "", False, lambda sums: _ratio(sums, 0, 2)),
        Measure("recall", "strict recall", "", False, lambda sums: _ratio(sums, 0, 1)),
        Measure("macro_f1", "strict macro-F1", "", False, lambda sums: _strict_by_type(sums).mean(-1)),
        *by_type,
        *([Measure("unseen_f1", "strict F1 on mentions unseen in training", "", False, _micro(UNSEEN))] * with_unseen),
        Measure("relaxed_f1", "relaxed F1 (overlap, same type)", "", False, _micro(RELAXED)),
        Measure("collapsed_f1", "F1 on unique (type, text) of each document", "", False, _micro(COLLAPSED)),
        Measure("hallucinated_rate", "mentions that are not in the text", "", True, _hallucinated, of=_mentions),
        Measure(
            "invalid_json_rate",
            "answers that are not the JSON list",
            "",
            True,
            lambda sums: sums[..., -1] / sums[..., -2],
        ),
    )


def _predicted(item: EntityItem, entities: Entities) -> list[Mention]:
    placed = [Mention(item.uid, span.type, span.text, (span.start, span.end)) for span in entities.spans]
    return placed + [Mention(item.uid, kind, text, None) for kind, text in entities.hallucinated]


def _blocks(sums: Numbers) -> Numbers:
    return sums[..., :-REST].reshape(*sums.shape[:-1], -1, WIDTH)


def _micro(columns: slice) -> Callable[[Numbers], Numbers]:
    return lambda sums: f1_of_counts(_blocks(sums).sum(-2)[..., columns])


def _strict_by_type(sums: Numbers) -> Numbers:
    """Strict F1 of each type of the task: (..., types)."""
    return f1_of_counts(_blocks(sums)[..., :-1, STRICT])


def _f1_of_type(number: int) -> Callable[[Numbers], Numbers]:
    return lambda sums: _strict_by_type(sums)[..., number]


def _ratio(sums: Numbers, numerator: int, denominator: int) -> Numbers:
    counts = _blocks(sums).sum(-2)[..., STRICT]
    return _divided(counts[..., numerator], counts[..., denominator])


def _hallucinated(sums: Numbers) -> Numbers:
    return _divided(sums[..., -REST], _mentions(sums))


def _mentions(sums: Numbers) -> Numbers:
    """The number of predicted mentions."""
    return _blocks(sums).sum(-2)[..., STRICT][..., 2]


def _divided(numerator: Numbers, denominator: Numbers) -> Numbers:
    return np.divide(numerator, denominator, out=np.zeros_like(denominator), where=denominator > 0)
