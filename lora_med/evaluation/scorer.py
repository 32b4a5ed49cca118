"""The shape that every kind of task has for the runner: items, answers under the active adapter, tables, baselines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from lora_med.evaluation.measures import Measure, Numbers
from lora_med.evaluation.results import Answers, Item
from lora_med.evaluation.statistics.calibration import Confidence


@dataclass(frozen=True)
class Answered:
    """What one subject made of all items, in their order.

    `table` is items x columns, as the task's measures read it; `facts` is what items.jsonl says of each item, no text.
    `right` tells for choices which are correct; `predictions` are the answers as texts, empty where nothing is
    answered; `written` are the texts as they were written, which may be shown where access is open.
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
    """A task's items on one loaded base. `layout` is what `measures_of` needs to know of the tables, as JSON values."""

    @property
    def items(self) -> tuple[Item, ...]:
        """What is kept of each item."""
        ...

    @property
    def layout(self) -> Mapping[str, Any]:
        """What the columns of the tables are."""
        ...

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What is measured of the tables."""
        ...

    @property
    def references(self) -> tuple[str, ...]:
        """The right answers as texts, for metrics of the user's own; empty where nothing is answered."""
        ...

    @property
    def prompts(self) -> tuple[str, ...]:
        """What each answer follows, as text, to be shown beside it; empty where samples are written on their own."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that a reader of the scores should know."""
        ...

    def answer(self) -> Answered:
        """The answers under the adapter that is active."""
        ...

    def baselines(self) -> Mapping[str, Numbers]:
        """Tables of answers that take no model, by what gives them."""
        ...
