"""The interface of every kind of task to the runner: items, answers of the active adapter, tables, baselines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from lora_med.evaluation.measures import Measure, Numbers
from lora_med.evaluation.results import Answers, Item
from lora_med.evaluation.statistics.calibration import Confidence
from lora_med.models.generation import RunBatches


@dataclass(frozen=True)
class Answered:
    """One subject's answers to all items, in their order.

    `table` is items x columns, as the task's measures read it. `facts` is what items.jsonl reports of each item,
    without text. `right` marks the correct choices. `predictions` are the answers as texts, empty where nothing is
    answered. `written` are the written texts, which may be shown where access is open.
    """

    table: Numbers = field(repr=False)
    facts: tuple[Mapping[str, Any], ...]
    predictions: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    right: tuple[bool, ...] = ()
    answers: Answers | None = None
    confidence: Confidence | None = None
    seconds: float = 0.0


class Scorer(Protocol):
    """A task's items on one loaded base. `layout` describes the tables to `measures_of`, as JSON values."""

    @property
    def items(self) -> tuple[Item, ...]:
        """The items without their texts."""
        ...

    @property
    def layout(self) -> Mapping[str, Any]:
        """The meaning of the tables' columns."""
        ...

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The measures of the tables."""
        ...

    @property
    def references(self) -> tuple[str, ...]:
        """The right answers as texts, for metrics of the user's own; empty where nothing is answered."""
        ...

    @property
    def prompts(self) -> tuple[str, ...]:
        """The text before each answer, to be shown beside it; empty where samples are written separately."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that a reader of the scores should know."""
        ...

    def outputs(self, run: RunBatches) -> Any:
        """What the model with its active adapter gives for all items; `run` runs its batches."""
        ...

    def answered(self, outputs: Any) -> Answered:
        """Outputs as answers, without the model."""
        ...

    def baselines(self) -> Mapping[str, Numbers]:
        """Tables of answers that need no model, by the baseline's name."""
        ...
