"""Texts as a task: the log-likelihood of every token, in all and by section."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lora_med.data.record import Passage, Record
from lora_med.evaluation.likelihood.log_probabilities import token_nll
from lora_med.evaluation.measures import Measure, Numbers, text_measures, text_table
from lora_med.evaluation.results import Item
from lora_med.evaluation.scorer import Answered
from lora_med.evaluation.scorers.items import TextItem, text_items
from lora_med.models.base import Base
from lora_med.models.generation import RunBatches
from lora_med.prompts.render import render

MOST_SECTIONS, LEAST_ITEMS = 6, 10  # fewer items of a section say too little


class TextScorer:
    """Texts scored by log-likelihood; see `Scorer`."""

    references: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __init__(self, base: Base, records: Sequence[Record], template: str, context: int) -> None:
        self._base, self._context = base, context
        self._scored = text_items(records, template, base.model, base.tokenizer)
        self._offsets = _section_offsets(self._scored, records, template, base.tokenizer)
        counts = Counter(name for offsets in self._offsets for name in offsets)
        self._sections = tuple(name for name, count in counts.most_common(MOST_SECTIONS) if count >= LEAST_ITEMS)
        self.items = tuple(Item(item.uid, item.group, item.tokens, item.size_bytes) for item in self._scored)

    @property
    def layout(self) -> Mapping[str, Any]:
        """The sections that have columns of their own."""
        return {"sections": list(self._sections)}

    @property
    def measures(self) -> tuple[Measure, ...]:
        """nll, perplexity, bits per byte, and the nll of each section."""
        return text_measures(self._sections)

    def outputs(self, run: RunBatches) -> list[Numbers]:
        """The nll of each token of each text."""
        rows = [(item.input_ids, item.first) for item in self._scored]
        return token_nll(self._base.model, rows, self._context, run=run)

    def answered(self, outputs: Sequence[Numbers]) -> Answered:
        """The nll of each text."""
        token_values = [values.copy() for values in outputs]
        for item, values in zip(self._scored, token_values, strict=True):
            values[[offset - item.first for offset in item.unscored]] = 0.0
        nll = [float(values.sum()) for values in token_values]
        table = text_table(nll, [item.tokens for item in self._scored], [item.size_bytes for item in self._scored])
        with_sections = np.hstack([table, self._by_section(token_values)])
        return Answered(with_sections, tuple({"nll": item} for item in nll))

    def baselines(self) -> Mapping[str, Numbers]:
        """None."""
        return {}

    def _by_section(self, token_values: Sequence[Numbers]) -> Numbers:
        """Items x (nll, tokens) of each section."""
        table = np.zeros((len(token_values), 2 * len(self._sections)))
        for row, item, values, offsets in zip(table, self._scored, token_values, self._offsets, strict=True):
            for column, name in enumerate(self._sections):
                scored = [offset for offset in offsets.get(name, ()) if offset not in item.unscored]
                row[2 * column] = values[[offset - item.first for offset in scored]].sum()
                row[2 * column + 1] = len(scored)
        return table


def _section_offsets(
    items: Sequence[TextItem], records: Sequence[Record], template: str, tokenizer: Any
) -> list[dict[str, list[int]]]:
    """For each item its token offsets by section; empty for a text without sections or tokenized in pieces."""
    passages = {record.uid: record for record in records if isinstance(record, Passage) and record.sections}
    if not passages or not getattr(tokenizer, "is_fast", False):
        return [{} for _ in items]
    rows = {row.uid: row for row in render(list(passages.values()), template) if not row.prompt and not row.turns}
    offsets_of_items: list[dict[str, list[int]]] = []
    for item in items:
        row = rows.get(item.uid)
        if row is None:
            offsets_of_items.append({})
            continue
        encoded = tokenizer(row.completion, add_special_tokens=False, return_offsets_mapping=True)
        start = len(item.input_ids) - len(encoded["input_ids"])
        matches = start >= 0 and list(item.input_ids[start:]) == encoded["input_ids"]
        ends = [end for _, end in encoded["offset_mapping"]] if matches else []
        offsets_of_items.append(
            _offsets_by_section(passages[item.uid], row.completion, ends, max(item.first, start), start)
        )
    return offsets_of_items


def _offsets_by_section(
    record: Passage, text: str, ends: Sequence[int], first: int, start: int
) -> dict[str, list[int]]:
    """Offsets of the tokens that end within each section's text."""
    offsets_of_section: dict[str, list[int]] = {}
    after = 0
    for section in record.sections:
        name = section.category or section.label
        begin = text.find(section.text, after)
        if begin < 0:
            continue
        after = begin + len(section.text)
        if name:
            inside = [start + number for number, end in enumerate(ends) if begin < end <= after]
            offsets_of_section.setdefault(name, []).extend(number for number in inside if number >= first)
    return {name: offsets for name, offsets in offsets_of_section.items() if offsets}
