"""Texts to be written as a task for the runner, with what copying would score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lora_med.data.record import Record
from lora_med.evaluation.measures import Measure, Numbers
from lora_med.evaluation.results import Item
from lora_med.evaluation.scorer import Answered
from lora_med.evaluation.scorers.writing_answers import (
    BERT,
    COLUMNS,
    PLACE,
    lead_answers,
    nearest_answers,
    write_answers,
    writing_items,
    writing_measures,
    writing_table,
)
from lora_med.metrics.overlap import Encoder
from lora_med.models.base import Base
from lora_med.prompts.render import fitting

LIKE_NOTHING_ELSE = (
    "The likeness to a reference does not tell whether a text is true; the measures below it look for that."
)


class WritingScorer:
    """Texts to be written from a source; see `Work`."""

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
        self._asked = writing_items(records, template, base.tokenizer)
        fit = fitting(training, template) if training else []
        self._training = writing_items(fit, template, base.tokenizer) if fit else []
        longest = max(item.answer_tokens for item in (*self._asked, *self._training))
        self._limit = max(1, min(longest + longest // 2, context // 2))
        self.items = tuple(Item(one.uid, one.group) for one in self._asked)

    @property
    def layout(self) -> Mapping[str, Any]:
        """The columns by name."""
        return {"columns": [*COLUMNS, *([BERT] if self._bert else [])]}

    @property
    def measures(self) -> tuple[Measure, ...]:
        """As `writing_measures` gives them."""
        return writing_measures(with_bert=self._bert is not None)

    @property
    def references(self) -> tuple[str, ...]:
        """The texts that people wrote."""
        return tuple(one.reference for one in self._asked)

    @property
    def prompts(self) -> tuple[str, ...]:
        """The sources."""
        return tuple(one.source for one in self._asked)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the context did to prompts and answers, and what likeness is worth."""
        cut = sum(len(one.prompt_ids) + self._limit > self._context for one in self._asked)
        long = sum(one.answer_tokens > self._limit for one in self._asked)
        found = [LIKE_NOTHING_ELSE]
        if cut:
            found.append(f"{cut} prompts with their answers were longer than the context and were cut.")
        if long:
            found.append(f"{long} references are longer than the {self._limit} tokens of an answer.")
        if not self._training:
            found.append("No training part is known, so copying the nearest training text is not scored.")
        return tuple(found)

    def answer(self) -> Answered:
        """The texts written."""
        model, tokenizer = self._base.model, self._base.tokenizer
        outputs = write_answers(model, tokenizer, self._asked, context=self._context, max_new_tokens=self._limit)
        table = writing_table(self._asked, outputs, self._bert)
        facts = tuple(
            {"rouge_l": round(row[PLACE["rouge_l"]], 6), "words": int(row[PLACE["output_words"]])} for row in table
        )
        return Answered(table, facts, predictions=tuple(outputs), written=tuple(outputs))

    def baselines(self) -> Mapping[str, Numbers]:
        """Copying the beginning of the source, and the training text of the nearest source."""
        copied = {"Copying the source's first words": lead_answers(self._asked, self._training)}
        if self._training:
            copied["Copying the nearest training text"] = nearest_answers(self._asked, self._training)
        return {name: writing_table(self._asked, outputs, self._bert) for name, outputs in copied.items()}
