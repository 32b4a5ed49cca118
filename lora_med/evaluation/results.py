"""What an evaluation found, as immutable values; report.py turns them into files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from lora_med.evaluation.confidence import Confidence
from lora_med.evaluation.measures import Change, Measure, Value
from lora_med.metrics.significance import Interval, McNemar

BASE = "base"
Task = Literal["text", "choice"]


@dataclass(frozen=True)
class Recall:
    """How many of the items with a label were answered so, and Wilson's interval of the share."""

    found: int
    of: int
    interval: Interval


@dataclass(frozen=True)
class Answers:
    """What a subject chose: one label an item, the confusion table (truth in rows), recall of each label.

    `over_majority` is its accuracy less that of always giving the commonest answer: better than the base is not enough.
    """

    predicted: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    recall: Mapping[str, Recall]
    over_majority: Change


@dataclass(frozen=True)
class Subject:
    """The base (`adapter` None) or one adapter, scored on all items.

    `scores` has one entry an item: the nll of a text, or the log-probability of each option. `changes` and `mcnemar`
    compare with the base and are empty for the base itself.
    """

    adapter: str | None
    values: Mapping[str, Value]
    changes: Mapping[str, Change]
    scores: tuple[tuple[float, ...], ...]
    seconds: float
    answers: Answers | None = None
    mcnemar: McNemar | None = None
    confidence: Confidence | None = None

    @property
    def name(self) -> str:
        """The adapter's name, or `base`."""
        return self.adapter if self.adapter is not None else BASE


@dataclass(frozen=True)
class Item:
    """What is kept of a scored item: no text. Sizes for `text`, the options' labels and the answer for `choice`."""

    uid: str
    group: str
    tokens: int = 0
    size_bytes: int = 0
    labels: tuple[str, ...] = ()
    answer: str = ""


@dataclass(frozen=True)
class Sample:
    """A text each subject wrote: the prompt, what really follows, and the outputs by subject name."""

    uid: str
    prompt: str
    reference: str
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class Evaluation:
    """Base and adapters on the same items: everything report.json holds, and the scores of each item."""

    task: Task
    source: str
    split: str
    template: str
    access: str
    base: Mapping[str, object]
    items: tuple[Item, ...]
    measures: tuple[Measure, ...]
    subjects: tuple[Subject, ...]
    bootstrap_samples: int
    seed: int
    labels: tuple[str, ...] = ()
    cut_prompts: int = 0
    samples: tuple[Sample, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""

    @property
    def groups(self) -> int:
        """How many groups the items come from: what the intervals resample."""
        return len({item.group for item in self.items})

    @property
    def majority(self) -> tuple[str, float]:
        """The commonest answer and the share of items it is right for; `("", 0.0)` for text."""
        answers = [item.answer for item in self.items if item.answer]
        if not answers:
            return "", 0.0
        best = commonest(answers)
        return best, answers.count(best) / len(answers)


def commonest(labels: Sequence[str]) -> str:
    """The label that occurs most often; of several, the first in the alphabet."""
    return max(sorted(set(labels)), key=list(labels).count)
