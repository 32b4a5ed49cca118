"""Texts to be written from a source, such as summaries and notes: answers, their table, measures, and baselines.

A table has a row for each item: 1, similarity to the reference (metrics/overlap.py), words of output and reference,
whether the answer is empty, and the counts of faithfulness to the source (metrics/faithfulness.py). BERTScore is the
last column where it was requested.
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
from lora_med.models.generation import RunBatches, greedy, in_order
from lora_med.prompts.render import render
from lora_med.prompts.row import Row
from lora_med.prompts.tokens_and_labels import tokenize_rows

SIMILARITY = ("rouge_1", "rouge_2", "rouge_l", "chrf")
SIZES = ("output_words", "reference_words", "empty")
COUNTS = tuple(member.name for member in fields(Faithfulness))
COLUMNS = ("items", *SIMILARITY, *SIZES, *COUNTS)
BERT = "bertscore"
COLUMN_OF = {name: column for column, name in enumerate(COLUMNS)}


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
    """One item for each record, in the tokens that training would see.

    Raises:
        DataError: there is no record, or a reference is empty.
    """
    if not records:
        raise DataError("no records to write from", fix="check data.paths and the split")
    rows = render(records, template)
    items: list[WritingItem] = []
    for record, row, tokens in zip(records, rows, tokenize_rows(rows, tokenizer), strict=True):
        if not row.completion.strip():
            raise DataError(f"record {row.uid}: there is no reference to compare with", fix="leave it out")
        first = tokens.trained.index(True)
        ids, size = tuple(tokens.input_ids[:first]), tokens.answer_end - first
        items.append(WritingItem(row.uid, row.group, ids, source_of(record, row), row.completion.strip(), size))
    return items


def source_of(record: Record, row: Row) -> str:
    """The text to write from, without the words of the template."""
    if isinstance(record, Pair):
        return "\n".join([*(content for _, content in record.history), record.input])
    prompt = row.turns[-2][1] if row.turns else row.prompt
    start, end = row.context
    return prompt[start:end] if end else prompt


def write_answers(
    model: Any,
    tokenizer: Any,
    items: Sequence[WritingItem],
    *,
    context: int,
    max_new_tokens: int,
    advance: Callable[[int], None] = lambda count: None,
    run: RunBatches = in_order,
) -> list[str]:
    """What the model with its active adapter writes after each prompt, by the likeliest tokens.

    If prompt and answer exceed `context`, the prompt loses tokens after its first.
    """
    prompts = [cut_left(item.prompt_ids, context - max_new_tokens) for item in items]
    tokens = greedy(model, tokenizer, prompts, max_new_tokens=max_new_tokens, advance=advance, run=run)
    return [tokenizer.decode(answer, skip_special_tokens=True).strip() for answer in tokens]


def writing_table(items: Sequence[WritingItem], outputs: Sequence[str], bert: Encoder | None = None) -> Numbers:
    """Items x COLUMNS, and with an encoder BERTScore as the last column, as `writing_measures` reads them.

    Raises:
        DependencyMissingError: as `overlaps`.
    """
    similarities = overlaps(outputs, [item.reference for item in items])
    table = np.zeros((len(items), len(COLUMNS)))
    for row, item, output, similarity in zip(table, items, outputs, similarities, strict=True):
        counts = faithfulness(item.source, output, item.reference)
        words = len(output.split()), len(item.reference.split())
        row[:] = (1, *astuple(similarity), *words, not output.strip(), *astuple(counts))
    if bert is None:
        return table
    return np.column_stack([table, bert_scores(outputs, [item.reference for item in items], bert)])


def writing_measures(*, with_bert: bool = False) -> tuple[Measure, ...]:
    """Similarity to the reference first, then faithfulness to the source, then length and empty answers."""
    last = Measure(BERT, "BERTScore", "", False, lambda sums: sums[..., len(COLUMNS)] / sums[..., 0])

    def mean(name: str, label: str) -> Measure:
        return Measure(name, label, "", False, lambda sums: sums[..., COLUMN_OF[name]] / sums[..., 0])

    def share(name: str, label: str, numerator: str, denominator: str) -> Measure:
        def of(sums: Numbers) -> Numbers:
            return sums[..., COLUMN_OF[denominator]]

        return Measure(
            name, label, "share", True, lambda sums: _divided(sums[..., COLUMN_OF[numerator]], of(sums)), of=of
        )

    def empty(sums: Numbers) -> tuple[float, float]:
        return float(sums[COLUMN_OF["empty"]]), float(sums[0])

    return (
        mean("rouge_1", "ROUGE-1"),
        mean("rouge_2", "ROUGE-2"),
        mean("rouge_l", "ROUGE-L"),
        mean("chrf", "chrF"),
        *([last] if with_bert else []),
        Measure("faults_share", "facts not in the source", "share", True, _unsupported_share, of=_facts),
        share("unsupported_quantities", "numbers and doses not in the source", "unsupported_quantities", "quantities"),
        share("unsupported_words", "words not in the source", "unsupported_words", "words"),
        share(
            "flipped_findings", "findings denied in one text and affirmed in the other", "flipped_findings", "findings"
        ),
        share("flipped_sides", "findings on another side", "flipped_sides", "sides"),
        share("unsupported_persons", "sexes the source does not state", "unsupported_persons", "persons"),
        share("missing_headings", "headings left out", "missing_headings", "headings"),
        Measure(
            "length_ratio",
            "words against the reference",
            "ratio",
            None,
            lambda sums: _divided(sums[..., COLUMN_OF["output_words"]], sums[..., COLUMN_OF["reference_words"]]),
        ),
        Measure(
            "empty_rate",
            "empty answers",
            "share",
            True,
            lambda sums: sums[..., COLUMN_OF["empty"]] / sums[..., 0],
            empty,
        ),
    )


def _unsupported_share(sums: Numbers) -> Numbers:
    """The unsupported share of all facts in the output, counted as `Faithfulness.faults` and `facts`."""
    columns = ("unsupported_quantities", "unsupported_words", "flipped_findings", "flipped_sides")
    return _divided(sums[..., [COLUMN_OF[name] for name in columns]].sum(-1), _facts(sums))


def _facts(sums: Numbers) -> Numbers:
    return sums[..., [COLUMN_OF[name] for name in ("quantities", "words", "findings", "sides")]].sum(-1)


def _divided(numerator: Numbers, denominator: Numbers) -> Numbers:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def lead_answers(items: Sequence[WritingItem], training: Sequence[WritingItem]) -> list[str]:
    """The source's first words, as many as the median training reference has (without training, the median item)."""
    references = training or items
    size = int(statistics.median(len(item.reference.split()) for item in references))
    return [" ".join(item.source.split()[:size]) for item in items]


def nearest_answers(items: Sequence[WritingItem], training: Sequence[WritingItem]) -> list[str]:
    """The reference of the training record with the nearest source: cosine of the content words' tf-idf."""
    column_of: dict[str, int] = {}
    counted = [_counts(item.source, column_of) for item in (*training, *items)]
    lines = [line for line, counts in enumerate(counted) for _ in counts]
    columns = [column for counts in counted for column in counts]
    values = [1 + np.log(count) for counts in counted for count in counts.values()]
    word_counts: Any = scipy.sparse.csr_matrix((values, (lines, columns)), shape=(len(counted), max(1, len(column_of))))
    idf = np.log(len(counted) / np.maximum(1, np.asarray((word_counts > 0).sum(axis=0)).ravel())) + 1
    tf_idf: Any = word_counts @ scipy.sparse.diags(idf)
    norms = np.sqrt(np.asarray(tf_idf.multiply(tf_idf).sum(axis=1)).ravel())
    normalized: Any = scipy.sparse.diags(np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)) @ tf_idf
    cosines = (normalized[len(training) :] @ normalized[: len(training)].T).toarray()
    return [training[int(row.argmax())].reference for row in cosines]


def _counts(text: str, column_of: dict[str, int]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for word in content_words(text):
        column = column_of.setdefault(word, len(column_of))
        counts[column] = counts.get(column, 0) + 1
    return counts
