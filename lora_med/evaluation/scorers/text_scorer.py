"""Texts as a task: the log-likelihood of every token, over all and by section."""

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
from lora_med.prompts.render import render

MOST_SECTIONS, LEAST_ITEMS = 6, 10  # a section of fewer items tells little


class TextScorer:
    """Texts under log-likelihood; see `Work`."""

    references: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __init__(self, base: Base, records: Sequence[Record], template: str, context: int) -> None:
        self._base, self._context = base, context
        self._scored = text_items(records, template, base.model, base.tokenizer)
        self._places = _section_places(self._scored, records, template, base.tokenizer)
        counts = Counter(name for places in self._places for name in places)
        self._sections = tuple(name for name, count in counts.most_common(MOST_SECTIONS) if count >= LEAST_ITEMS)
        self.items = tuple(Item(one.uid, one.group, one.tokens, one.size_bytes) for one in self._scored)

    @property
    def layout(self) -> Mapping[str, Any]:
        """The sections that have columns of their own."""
        return {"sections": list(self._sections)}

    @property
    def measures(self) -> tuple[Measure, ...]:
        """nll, perplexity, bits per byte, and the nll of each section."""
        return text_measures(self._sections)

    def answer(self) -> Answered:
        """The nll of each text."""
        rows = [(one.input_ids, one.first) for one in self._scored]
        found = token_nll(self._base.model, rows, self._context)
        for item, values in zip(self._scored, found, strict=True):
            values[[place - item.first for place in item.unscored]] = 0.0
        nll = [float(values.sum()) for values in found]
        table = text_table(nll, [one.tokens for one in self._scored], [one.size_bytes for one in self._scored])
        whole = np.hstack([table, self._by_section(found)])
        return Answered(whole, tuple({"nll": one} for one in nll))

    def baselines(self) -> Mapping[str, Numbers]:
        """None."""
        return {}

    def _by_section(self, found: Sequence[Numbers]) -> Numbers:
        """Items x (nll, tokens) of each section."""
        table = np.zeros((len(found), 2 * len(self._sections)))
        for row, item, values, places in zip(table, self._scored, found, self._places, strict=True):
            for column, name in enumerate(self._sections):
                scored = [place for place in places.get(name, ()) if place not in item.unscored]
                row[2 * column] = values[[place - item.first for place in scored]].sum()
                row[2 * column + 1] = len(scored)
        return table


def _section_places(
    items: Sequence[TextItem], records: Sequence[Record], template: str, tokenizer: Any
) -> list[dict[str, list[int]]]:
    """For each item the places of its tokens by section; empty where a text has none or is tokenized in parts."""
    passages = {record.uid: record for record in records if isinstance(record, Passage) and record.sections}
    if not passages or not getattr(tokenizer, "is_fast", False):
        return [{} for _ in items]
    rows = {row.uid: row for row in render(list(passages.values()), template) if not row.prompt and not row.turns}
    found: list[dict[str, list[int]]] = []
    for item in items:
        row = rows.get(item.uid)
        if row is None:
            found.append({})
            continue
        encoded = tokenizer(row.completion, add_special_tokens=False, return_offsets_mapping=True)
        start = len(item.input_ids) - len(encoded["input_ids"])
        same = start >= 0 and list(item.input_ids[start:]) == encoded["input_ids"]
        ends = [end for _, end in encoded["offset_mapping"]] if same else []
        found.append(_by_name(passages[item.uid], row.completion, ends, max(item.first, start), start))
    return found


def _by_name(record: Passage, text: str, ends: Sequence[int], first: int, start: int) -> dict[str, list[int]]:
    """Places of the tokens that end within each section's text."""
    found: dict[str, list[int]] = {}
    after = 0
    for section in record.sections:
        name = section.category or section.label
        begin = text.find(section.text, after)
        if begin < 0:
            continue
        after = begin + len(section.text)
        if name:
            inside = [start + place for place, end in enumerate(ends) if begin < end <= after]
            found.setdefault(name, []).extend(place for place in inside if place >= first)
    return {name: places for name, places in found.items() if places}
