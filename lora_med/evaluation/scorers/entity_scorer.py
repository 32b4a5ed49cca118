"""Named entities as a task for the runner, with a dictionary baseline."""

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
from lora_med.models.generation import RunBatches
from lora_med.prompts.templates.entity_json import write_list

LEAST_LETTERS = 3  # a shorter mention, such as a chemical symbol, matches too much text of another meaning
WORD = re.compile(r"\w+|[^\w\s]")


class EntityScorer:
    """Texts whose entities are to be written as JSON; see `Scorer`."""

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
        self._to_answer = entity_items(records, template, base.model, base.tokenizer)
        self._types = entity_types(self._to_answer)
        self._limit = answer_limit(self._to_answer, context)
        self._seen_in_training = seen_mentions(training)
        self._dictionary = DictionaryBaseline(training) if self._seen_in_training else None
        self.items = tuple(Item(item.uid, item.group) for item in self._to_answer)

    @property
    def layout(self) -> Mapping[str, Any]:
        """The types of the gold mentions, and whether unseen mentions are scored separately."""
        return {"types": list(self._types), "unseen": bool(self._seen_in_training)}

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The measures of `entity_measures`."""
        return entity_measures(self._types, with_unseen=bool(self._seen_in_training))

    @property
    def references(self) -> tuple[str, ...]:
        """The gold lists as JSON."""
        return tuple(item.gold_answer for item in self._to_answer)

    @property
    def prompts(self) -> tuple[str, ...]:
        """The texts."""
        return tuple(item.text for item in self._to_answer)

    @property
    def notes(self) -> tuple[str, ...]:
        """What no answer can score, and where unseen mentions come from."""
        coverage = answer_coverage(self._to_answer, context=self._context, max_new_tokens=self._limit)
        sentences = [f"A list without offsets can reach {coverage.placed} of {coverage.mentions} gold mentions."]
        if coverage.cut_prompts:
            sentences.append(
                f"{coverage.cut_prompts} prompts with their answers were longer than the context and were cut."
            )
        if coverage.long_answers:
            sentences.append(
                f"{coverage.long_answers} gold lists are longer than the {self._limit} tokens of an answer."
            )
        if not self._seen_in_training:
            sentences.append("No training split is known, so unseen mentions are not scored separately.")
        return tuple(sentences)

    def outputs(self, run: RunBatches) -> list[str]:
        """The written lists."""
        return answer_entities(
            self._base.model,
            self._base.tokenizer,
            self._to_answer,
            context=self._context,
            max_new_tokens=self._limit,
            types=self._types if self._constrained else None,
            run=run,
        )

    def answered(self, outputs: Sequence[str]) -> Answered:
        """The written lists, each compared with the gold mentions."""
        table = entity_table(self._to_answer, outputs, self._types, self._seen_in_training)
        facts = tuple({"hallucinated": int(row[-REST]), "valid_json": not row[-1]} for row in table)
        return Answered(table, facts, predictions=tuple(outputs), written=tuple(outputs))

    def baselines(self) -> Mapping[str, Numbers]:
        """The dictionary baseline: marking every text that training marked."""
        if self._dictionary is None:
            return {}
        answers = [self._dictionary.answer(item.text) for item in self._to_answer]
        return {
            "Dictionary baseline: entities marked in training": entity_table(
                self._to_answer, answers, self._types, self._seen_in_training
            )
        }


class DictionaryBaseline:
    """The mentions of training records, each with its most frequent type; matched word by word, the longest first."""

    def __init__(self, training: Sequence[Record]) -> None:
        counts: dict[tuple[str, ...], Counter[str]] = {}
        for record in training:
            for span in record.spans if isinstance(record, Annotated) else ():
                if len(span.text.strip()) >= LEAST_LETTERS:
                    counts.setdefault(_words(span.text), Counter())[span.type] += 1
        self._types = {words: kinds.most_common(1)[0][0] for words, kinds in counts.items()}
        self._longest = max(map(len, self._types), default=0)

    def answer(self, text: str) -> str:
        """The list of mentions in the order of the text, in the form of an answer."""
        matches = list(WORD.finditer(text))
        words = [match.group().casefold() for match in matches]
        spans: list[tuple[str, str]] = []
        index = 0
        while index < len(words):
            sizes = range(min(self._longest, len(words) - index), 0, -1)
            size = next((size for size in sizes if tuple(words[index : index + size]) in self._types), 0)
            if size:
                start, end = matches[index].start(), matches[index + size - 1].end()
                spans.append((self._types[tuple(words[index : index + size])], text[start:end]))
            index += size or 1
        return write_list(spans)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.casefold() for word in WORD.findall(text))
