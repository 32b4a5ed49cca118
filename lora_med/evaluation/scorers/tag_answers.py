"""Named entities by a head that tags tokens, scored in the same tables as the entities that a model writes.

A tagger gives offsets itself, so no mention is placed, hallucinated or invalid. prompts/entity_tags.py lists what tags
cannot express. A base without an adapter tags nothing, because its head is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from lora_med.data.record import Annotated, Record, Span
from lora_med.errors import DataError, SettingsError
from lora_med.evaluation.likelihood.batch_size import fitting
from lora_med.evaluation.measures import Measure, Numbers
from lora_med.evaluation.scorers.entity_answers import REST, WIDTH, entity_measures, gold_mentions, mention_counts
from lora_med.metrics.spans import Mention
from lora_med.models.base import Base
from lora_med.models.generation import RunBatches, in_order, run_rows
from lora_med.prompts.entity_tags import Piece, cut_pieces, read_tags, whole_words

BATCH_TOKENS = 8192
OF_WRITING = ("hallucinated_rate", "invalid_json_rate")  # measures of answers that are written


@dataclass(frozen=True, slots=True)
class TagItem:
    """A text in pieces of tokens, and its gold mentions."""

    uid: str
    group: str
    text: str
    pieces: tuple[Piece, ...]
    gold: tuple[Mention, ...]


def tag_items(records: Sequence[Record], tokenizer: Any, max_length: int) -> list[TagItem]:
    """One item for each record, its text cut as it was for training.

    Raises:
        SettingsError: a record is no annotated text.
        DataError: no record, or none with an annotated mention.
    """
    annotated = [record for record in records if isinstance(record, Annotated)]
    if len(annotated) < len(records):
        raise SettingsError("tags are scored on annotated texts", where="data.source", fix="lora-med data list")
    if not any(record.spans for record in annotated):
        raise DataError(
            f"none of {len(records)} records has an annotated mention", fix="check data.paths: the gold must be there"
        )
    return [
        TagItem(
            record.uid,
            record.group,
            record.text,
            tuple(cut_pieces(record, tokenizer, max_length)),
            gold_mentions(record),
        )
        for record in annotated
    ]


def answer_tags(
    model: Any,
    tokenizer: Any,
    items: Sequence[TagItem],
    labels: Sequence[str],
    *,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], None] = lambda count: None,
    run: RunBatches = in_order,
) -> list[list[Span]]:
    """The mentions of each text by the likeliest tag of each token, as whole words, with the active adapter.

    Args:
        batch_tokens: the most tokens in a batch, padding included; a CPU takes fewer.
        advance: called with the number of items done, at the end of each.
        run: runs the batches.
    """
    from lora_med.models.attention.row_logits import row_logits  # it loads torch

    batch_tokens = fitting(batch_tokens, model.device)
    pieces = [piece for item in items for piece in item.pieces]

    def tag(batch: list[int]) -> list[list[int]]:
        logits = row_logits(model, [pieces[number].input_ids for number in batch], tokenizer.pad_token_id)
        return [row.argmax(-1).tolist() for row in logits]

    tags = run_rows(run, _batches([len(piece.input_ids) for piece in pieces], batch_tokens), tag)
    mentions, number = [], 0
    for item in items:
        spans: list[Span] = []
        for piece in item.pieces:
            spans += read_tags(piece, tags[number], labels, item.text)
            number += 1
        mentions.append(whole_words(spans, item.text))
        advance(1)
    return mentions


def _batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Piece numbers by batch, the longest first; a piece over the limit has its own batch."""
    remaining = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    batches: list[list[int]] = []
    while remaining:
        size = max(1, batch_tokens // lengths[remaining[0]])
        batches.append(remaining[:size])
        remaining = remaining[size:]
    return batches


def tag_table(
    items: Sequence[TagItem], answers: Sequence[Sequence[Span]], types: Sequence[str], seen: Set[str] = frozenset()
) -> Numbers:
    """Items x the columns of `entity_table`, so that tagging and writing adapters can be compared.

    Args:
        answers: the mentions of each item, from `answer_tags`.
        types: those that `tag_measures` received.
        seen: casefolded mentions of the training records.
    """
    table = np.zeros((len(items), WIDTH * (len(types) + 1) + REST))
    for row, item, spans in zip(table, items, answers, strict=True):
        predicted = [Mention(item.uid, span.type, span.text, (span.start, span.end)) for span in spans]
        row[:-REST] = mention_counts(item.gold, predicted, types, seen)
        row[-REST:] = 0, 1, 0
    return table


def tag_measures(types: Sequence[str], *, with_unseen: bool) -> tuple[Measure, ...]:
    """The measures of `entity_measures` that apply to tags too."""
    return tuple(
        measure for measure in entity_measures(types, with_unseen=with_unseen) if measure.name not in OF_WRITING
    )


def score_tags(model: Any, base: Base, records: Sequence[Record], max_length: int) -> dict[str, float]:
    """Measure -> value on the records, to four decimals, for a card; empty where there is nothing to score.

    Args:
        base: from `load_tagger`; its labels are those of the head.
    """
    if not any(isinstance(record, Annotated) and record.spans for record in records):
        return {}
    items = tag_items(records, base.tokenizer, max_length)
    types = sorted({mention.type for item in items for mention in item.gold})
    model.eval()
    sums = tag_table(items, answer_tags(model, base.tokenizer, items, base.labels), types).sum(axis=0)
    return {measure.name: round(float(measure.of_sums(sums)), 4) for measure in tag_measures(types, with_unseen=False)}
