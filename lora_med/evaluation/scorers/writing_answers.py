"""Texts to be written from a source, such as summaries and notes: answers, their table, measures, and baselines.

A table has a row for each item: 1, likeness to the reference (metrics/overlap.py), words of output and reference,
whether nothing was written, and the counts of faithfulness to the source (metrics/faithfulness.py); where it was asked
for, BERTScore stands behind them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

import numpy as np
import scipy

from lora_med.data.record import Pair, Record
from lora_med.errors import DataError
from lora_med.evaluation.likelihood.shared_prefix_scoring import cut_left
from lora_med.evaluation.measures import Measure, Numbers
from lora_med.metrics.content_words import content_words
from lora_med.metrics.faithfulness import Faithfulness, faithfulness
from lora_med.metrics.overlap import Encoder, bert_scores, overlaps
from lora_med.models.generation import greedy
from lora_med.prompts.render import render
from lora_med.prompts.row import Row
from lora_med.prompts.tokens import tokenize_rows

LIKENESS = ("rouge_1", "rouge_2", "rouge_l", "chrf")
SIZES = ("output_words", "reference_words", "empty")
COUNTS = tuple(one.name for one in fields(Faithfulness))
COLUMNS = ("items", *LIKENESS, *SIZES, *COUNTS)
BERT = "bertscore"
PLACE = {name: place for place, name in enumerate(COLUMNS)}


@dataclass(frozen=True, slots=True)
class WritingItem:
    """What is to be written: the prompt's tokens, the source and the reference as texts, the reference's tokens."""

    uid: str
    group: str
    prompt_ids: tuple[int, ...]
    source: str
    reference: str
    answer_tokens: int


def writing_items(records: Sequence[Record], template: str, tokenizer: Any) -> list[WritingItem]:
    """One item a record, in the tokens that training would have seen.

    Raises:
        DataError: there is no record, or one has nothing as its reference.
    """
    if not records:
        raise DataError("no records to write from", fix="check data.paths and the split")
    rows = render(records, template)
    found: list[WritingItem] = []
    for record, row, tokens in zip(records, rows, tokenize_rows(rows, tokenizer), strict=True):
        if not row.completion.strip():
            raise DataError(f"record {row.uid}: there is no reference to compare with", fix="leave it out")
        first = tokens.trained.index(True)
        ids, size = tuple(tokens.input_ids[:first]), len(tokens.input_ids) - first
        found.append(WritingItem(row.uid, row.group, ids, _source(record, row), row.completion.strip(), size))
    return found


def _source(record: Record, row: Row) -> str:
    """What the text is to be written from, without the words of the template."""
    if isinstance(record, Pair):
        return "\n".join([*(content for _, content in record.history), record.input])
    asked = row.turns[-2][1] if row.turns else row.prompt
    start, end = row.context
    return asked[start:end] if end else asked


def write_answers(
    model: Any,
    tokenizer: Any,
    items: Sequence[WritingItem],
    *,
    context: int,
    max_new_tokens: int,
    advance: Callable[[int], None] = lambda count: None,
) -> list[str]:
    """What the model, under the adapter that is active, writes after each prompt: the likeliest tokens.

    A prompt that leaves no room in `context` for the answer loses tokens after its first.
    """
    prompts = [cut_left(item.prompt_ids, context - max_new_tokens) for item in items]
    tokens = greedy(model, tokenizer, prompts, max_new_tokens=max_new_tokens, advance=advance)
    return [tokenizer.decode(one, skip_special_tokens=True).strip() for one in tokens]


def writing_table(items: Sequence[WritingItem], outputs: Sequence[str], bert: Encoder | None = None) -> Numbers:
    """Items x COLUMNS, and with an encoder BERTScore behind them, as `writing_measures` read them.

    Raises:
        DependencyMissingError: as `overlaps`.
    """
    likeness = overlaps(outputs, [item.reference for item in items])
    table = np.zeros((len(items), len(COLUMNS)))
    for row, item, output, alike in zip(table, items, outputs, likeness, strict=True):
        counts = faithfulness(item.source, output, item.reference)
        words = len(output.split()), len(item.reference.split())
        row[:] = (1, *astuple(alike), *words, not output.strip(), *astuple(counts))
    if bert is None:
        return table
    return np.column_stack([table, bert_scores(outputs, [item.reference for item in items], bert)])


def writing_measures(*, with_bert: bool = False) -> tuple[Measure, ...]:
    """Likeness to the reference first, then faithfulness to the source, then length and empty answers."""
    last = Measure(BERT, "BERTScore", "", False, lambda sums: sums[..., len(COLUMNS)] / sums[..., 0])

    def mean(name: str, label: str) -> Measure:
        return Measure(name, label, "", False, lambda sums: sums[..., PLACE[name]] / sums[..., 0])

    def share(name: str, label: str, part: str, whole: str) -> Measure:
        def of(sums: Numbers) -> Numbers:
            return sums[..., PLACE[whole]]

        return Measure(name, label, "share", True, lambda sums: _divided(sums[..., PLACE[part]], of(sums)), of=of)

    def empty(sums: Numbers) -> tuple[float, float]:
        return float(sums[PLACE["empty"]]), float(sums[0])

    return (
        mean("rouge_1", "ROUGE-1"),
        mean("rouge_2", "ROUGE-2"),
        mean("rouge_l", "ROUGE-L"),
        mean("chrf", "chrF"),
        *([last] if with_bert else []),
        Measure("faults_share", "facts not in the source", "share", True, _faults, of=_facts),
        share("unsupported_quantities", "numbers and doses not in the source", "unsupported_quantities", "quantities"),
        share("unsupported_words", "words not in the source", "unsupported_words", "words"),
        share("flipped_findings", "findings with the denial turned round", "flipped_findings", "findings"),
        share("flipped_sides", "findings on another side", "flipped_sides", "sides"),
        share("unsupported_persons", "sexes the source does not tell", "unsupported_persons", "persons"),
        share("missing_headings", "headings left out", "missing_headings", "headings"),
        Measure(
            "length_ratio",
            "words against the reference",
            "ratio",
            None,
            lambda sums: _divided(sums[..., PLACE["output_words"]], sums[..., PLACE["reference_words"]]),
        ),
        Measure(
            "empty_rate", "empty answers", "share", True, lambda sums: sums[..., PLACE["empty"]] / sums[..., 0], empty
        ),
    )


def _faults(sums: Numbers) -> Numbers:
    """What is at fault of all that the source should support, as `Faithfulness.faults` and `facts` count them."""
    parts = ("unsupported_quantities", "unsupported_words", "flipped_findings", "flipped_sides")
    return _divided(sums[..., [PLACE[name] for name in parts]].sum(-1), _facts(sums))


def _facts(sums: Numbers) -> Numbers:
    return sums[..., [PLACE[name] for name in ("quantities", "words", "findings", "sides")]].sum(-1)


def _divided(part: Numbers, whole: Numbers) -> Numbers:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def lead_answers(items: Sequence[WritingItem], training: Sequence[WritingItem]) -> list[str]:
    """The source's first words, as many as the median reference of the training part has (else of the items)."""
    known = training or items
    size = int(statistics.median(len(item.reference.split()) for item in known))
    return [" ".join(item.source.split()[:size]) for item in items]


def nearest_answers(items: Sequence[WritingItem], training: Sequence[WritingItem]) -> list[str]:
    """The reference of the training record whose source is nearest: cosine of its content words' tf-idf."""
    place: dict[str, int] = {}
    both = [_counts(item.source, place) for item in (*training, *items)]
    lines = [line for line, counts in enumerate(both) for _ in counts]
    columns = [column for counts in both for column in counts]
    values = [1 + np.log(count) for counts in both for count in counts.values()]
    whole: Any = scipy.sparse.csr_matrix((values, (lines, columns)), shape=(len(both), max(1, len(place))))
    rarity = np.log(len(both) / np.maximum(1, np.asarray((whole > 0).sum(axis=0)).ravel())) + 1
    weighted: Any = whole @ scipy.sparse.diags(rarity)
    length = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    unit: Any = scipy.sparse.diags(np.divide(1, length, out=np.zeros_like(length), where=length > 0)) @ weighted
    alike = (unit[len(training) :] @ unit[: len(training)].T).toarray()
    return [training[int(row.argmax())].reference for row in alike]


def _counts(text: str, place: dict[str, int]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for word in content_words(text):
        column = place.setdefault(word, len(place))
        counts[column] = counts.get(column, 0) + 1
    return counts
