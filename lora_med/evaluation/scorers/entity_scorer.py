"""Named entities as a task for the runner, with what marking by heart would score."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lora_med.data.record import Annotated, Record
from lora_med.evaluation.measures import Measure, Numbers
from lora_med.evaluation.results import Item
from lora_med.evaluation.scorer import Answered
from lora_med.evaluation.scorers.entity_answers import (
    REST,
    answer_coverage,
    answer_entities,
    answer_limit,
    entity_items,
    entity_measures,
    entity_table,
    entity_types,
    seen_mentions,
)
from lora_med.models.base import Base
from lora_med.prompts.templates.entity_json import write_list

LEAST_LETTERS = 3  # a shorter mention, such as a symbol of a chemical, stands in too many words of other meaning
WORD = re.compile(r"\w+|[^\w\s]")


class EntityScorer:
    """Texts whose entities are to be written as JSON; see `Work`."""

    def __init__(
        self,
        base: Base,
        records: Sequence[Record],
        template: str,
        context: int,
        *,
        constrained: bool,
        training: Sequence[Record],
    ) -> None:
        self._base, self._context, self._constrained = base, context, constrained
        self._asked = entity_items(records, template, base.model, base.tokenizer)
        self._types = entity_types(self._asked)
        self._limit = answer_limit(self._asked, context)
        self._seen = seen_mentions(training)
        self._heart = DictionaryBaseline(training) if self._seen else None
        self.items = tuple(Item(one.uid, one.group) for one in self._asked)

    @property
    def layout(self) -> Mapping[str, Any]:
        """The types of the gold mentions, and whether those unseen in training are told apart."""
        return {"types": list(self._types), "unseen": bool(self._seen)}

    @property
    def measures(self) -> tuple[Measure, ...]:
        """As `entity_measures` gives them."""
        return entity_measures(self._types, with_unseen=bool(self._seen))

    @property
    def references(self) -> tuple[str, ...]:
        """The gold lists as JSON."""
        return tuple(one.gold_answer for one in self._asked)

    @property
    def prompts(self) -> tuple[str, ...]:
        """The texts."""
        return tuple(one.text for one in self._asked)

    @property
    def notes(self) -> tuple[str, ...]:
        """What no answer can score, and where unseen mentions come from."""
        coverage = answer_coverage(self._asked, context=self._context, max_new_tokens=self._limit)
        found = [f"{coverage.placed} of {coverage.mentions} gold mentions are within reach of a list without offsets."]
        if coverage.cut_prompts:
            found.append(
                f"{coverage.cut_prompts} prompts with their answers were longer than the context and were cut."
            )
        if coverage.long_answers:
            found.append(f"{coverage.long_answers} gold lists are longer than the {self._limit} tokens of an answer.")
        if not self._seen:
            found.append("No training part is known, so unseen mentions are not told apart.")
        return tuple(found)

    def answer(self) -> Answered:
        """The lists written."""
        written = answer_entities(
            self._base.model,
            self._base.tokenizer,
            self._asked,
            context=self._context,
            max_new_tokens=self._limit,
            types=self._types if self._constrained else None,
        )
        table = entity_table(self._asked, written, self._types, self._seen)
        facts = tuple({"hallucinated": int(row[-REST]), "valid_json": not row[-1]} for row in table)
        return Answered(table, facts, predictions=tuple(written), written=tuple(written))

    def baselines(self) -> Mapping[str, Numbers]:
        """Marking what training marked, wherever it stands."""
        if self._heart is None:
            return {}
        answers = [self._heart.answer(one.text) for one in self._asked]
        return {
            "Dictionary baseline: entities marked in training": entity_table(
                self._asked, answers, self._types, self._seen
            )
        }


class DictionaryBaseline:
    """The mentions of training records, each with its commonest type; found again word by word, the longest first."""

    def __init__(self, training: Sequence[Record]) -> None:
        counts: dict[tuple[str, ...], Counter[str]] = {}
        for record in training:
            for span in record.spans if isinstance(record, Annotated) else ():
                if len(span.text.strip()) >= LEAST_LETTERS:
                    counts.setdefault(_words(span.text), Counter())[span.type] += 1
        self._types = {words: kinds.most_common(1)[0][0] for words, kinds in counts.items()}
        self._longest = max(map(len, self._types), default=0)

    def answer(self, text: str) -> str:
        """The list of the mentions, in the order of the text, as an answer is written."""
        found = list(WORD.finditer(text))
        words = [one.group().casefold() for one in found]
        spans: list[tuple[str, str]] = []
        place = 0
        while place < len(words):
            sizes = range(min(self._longest, len(words) - place), 0, -1)
            size = next((size for size in sizes if tuple(words[place : place + size]) in self._types), 0)
            if size:
                start, end = found[place].start(), found[place + size - 1].end()
                spans.append((self._types[tuple(words[place : place + size])], text[start:end]))
            place += size or 1
        return write_list(spans)


def _words(text: str) -> tuple[str, ...]:
    return tuple(one.casefold() for one in WORD.findall(text))
