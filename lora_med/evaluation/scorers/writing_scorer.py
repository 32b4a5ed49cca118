"""Texts to be written as a task for the runner, with baselines that copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lora_med.data.record import Record
from lora_med.evaluation.measures import Measure, Numbers
from lora_med.evaluation.results import Item
from lora_med.evaluation.scorer import Answered
from lora_med.evaluation.scorers.writing_answers import (
    BERT,
    COLUMN_OF,
    COLUMNS,
    lead_answers,
    nearest_answers,
    write_answers,
    writing_items,
    writing_measures,
    writing_table,
)
from lora_med.metrics.overlap import Encoder
from lora_med.models.base import Base
from lora_med.models.generation import RunBatches
from lora_med.prompts.render import fitting

SIMILARITY_NOTE = "Similarity to a reference does not show whether a text is true; the measures below it check that."


class WritingScorer:
    """Texts to be written from a source; see `Scorer`."""

    def __init__(
        self,
        base: Base,
        records: Sequence[Record],
        template: str,
        context: int,
        *,
        training: Sequence[Record],
        bert: Encoder | None = None,
    ) -> None:
        self._base, self._context, self._bert = base, context, bert
        self._to_answer = writing_items(records, template, base.tokenizer)
        usable = fitting(training, template) if training else []
        self._training = writing_items(usable, template, base.tokenizer) if usable else []
        longest = max(item.answer_tokens for item in (*self._to_answer, *self._training))
        self._limit = max(1, min(longest + longest // 2, context // 2))
        self.items = tuple(Item(item.uid, item.group) for item in self._to_answer)

    @property
    def layout(self) -> Mapping[str, Any]:
        """The columns by name."""
        return {"columns": [*COLUMNS, *([BERT] if self._bert else [])]}

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The measures of `writing_measures`."""
        return writing_measures(with_bert=self._bert is not None)

    @property
    def references(self) -> tuple[str, ...]:
        """The texts that people wrote."""
        return tuple(item.reference for item in self._to_answer)

    @property
    def prompts(self) -> tuple[str, ...]:
        """The sources."""
        return tuple(item.source for item in self._to_answer)

    @property
    def notes(self) -> tuple[str, ...]:
        """How many prompts and answers the context cuts, and what similarity does not show."""
        shortened = sum(len(item.prompt_ids) + self._limit > self._context for item in self._to_answer)
        long_references = sum(item.answer_tokens > self._limit for item in self._to_answer)
        sentences = [SIMILARITY_NOTE]
        if shortened:
            sentences.append(f"{shortened} prompts with their answers were longer than the context and were cut.")
        if long_references:
            sentences.append(f"{long_references} references are longer than the {self._limit} tokens of an answer.")
        if not self._training:
            sentences.append("No training split is known, so copying the nearest training text is not scored.")
        return tuple(sentences)

    def outputs(self, run: RunBatches) -> list[str]:
        """The written texts."""
        model, tokenizer, limit = self._base.model, self._base.tokenizer, self._limit
        return write_answers(model, tokenizer, self._to_answer, context=self._context, max_new_tokens=limit, run=run)

    def answered(self, outputs: Sequence[str]) -> Answered:
        """The written texts, each compared with its reference and its source."""
        table = writing_table(self._to_answer, outputs, self._bert)
        facts = tuple(
            {"rouge_l": round(row[COLUMN_OF["rouge_l"]], 6), "words": int(row[COLUMN_OF["output_words"]])}
            for row in table
        )
        return Answered(table, facts, predictions=tuple(outputs), written=tuple(outputs))

    def baselines(self) -> Mapping[str, Numbers]:
        """Copying the beginning of the source, and the training text of the nearest source."""
        copied = {"Copying the source's first words": lead_answers(self._to_answer, self._training)}
        if self._training:
            copied["Copying the nearest training text"] = nearest_answers(self._to_answer, self._training)
        return {name: writing_table(self._to_answer, outputs, self._bert) for name, outputs in copied.items()}
