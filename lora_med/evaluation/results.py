"""The results of an evaluation as immutable values; report/write_report.py writes them to files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lora_med.evaluation.measures import Change, Measure, Numbers, Value
from lora_med.evaluation.statistics.calibration import Confidence
from lora_med.evaluation.tasks import SCORINGS, Scoring
from lora_med.metrics.custom_metric import CustomScore
from lora_med.metrics.significance import Interval, McNemar

BASE = "base"


@dataclass(frozen=True)
class Recall:
    """The recall of one label: `hits` of the `total` items that have it, and Wilson's interval of the share."""

    hits: int
    total: int
    interval: Interval


@dataclass(frozen=True)
class Answers:
    """What a subject chose: a label for each item (None: no valid answer), and over closed labels confusion and recall.

    The confusion table has true labels in rows; the column after the labels counts items without a valid answer.
    """

    predicted: tuple[str | None, ...]
    confusion: tuple[tuple[int, ...], ...]
    recall: Mapping[str, Recall]


@dataclass(frozen=True)
class Subject:
    """The base (`adapter` None) or one adapter, scored on all items.

    `table` is items x columns, whose sums the measures read. `facts` is what items.jsonl reports of each item, without
    its text. `changes` and `mcnemar` compare with the base and are empty for the base itself. `baseline_changes`
    compares with each baseline by the measure that the verdict rests on: better than the base is not enough. `custom`
    are the user's metrics. `written` are the written texts, empty where nothing was written or they may not be shown.
    """

    adapter: str | None
    values: Mapping[str, Value]
    changes: Mapping[str, Change]
    table: Numbers = field(repr=False)
    facts: tuple[Mapping[str, Any], ...] = field(repr=False)
    seconds: float
    answers: Answers | None = None
    mcnemar: McNemar | None = None
    confidence: Confidence | None = None
    baseline_changes: Mapping[str, Change] = field(default_factory=dict)
    custom: Mapping[str, CustomScore] = field(default_factory=dict)
    written: tuple[str, ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        """The adapter's name, or `base`."""
        return self.adapter if self.adapter is not None else BASE


@dataclass(frozen=True)
class Item:
    """A scored item without its text: sizes for texts, the options' labels and the answer for questions."""

    uid: str
    group: str
    tokens: int = 0
    size_bytes: int = 0
    labels: tuple[str, ...] = ()
    answer: str = ""


@dataclass(frozen=True)
class Sample:
    """One text by each subject: the prompt, the reference that follows it, and the outputs by subject name."""

    uid: str
    prompt: str
    reference: str
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class Baseline:
    """Answers that need no model, scored on the same items: an adapter that learned something beats them."""

    name: str
    values: Mapping[str, Value]


@dataclass(frozen=True)
class Evaluation:
    """Base and adapters on the same items: everything report.json holds, and the scores of each item.

    `layout` says what the columns of the subjects' tables are (see scorer.py). `notes` are sentences for readers.
    `prompt_options` are what the template does not say (see PromptOptions). `recipes` names adapters that differ in
    their seed only. `published` is how many items the files of a published split hold; `left_out` counts those not
    scored, by reason.
    """

    scoring: Scoring
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
    layout: Mapping[str, Any] = field(default_factory=dict)
    baselines: tuple[Baseline, ...] = ()
    notes: tuple[str, ...] = ()
    prompt_options: Mapping[str, Any] = field(default_factory=dict)
    recipes: tuple[tuple[str, ...], ...] = ()
    samples: tuple[Sample, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    published: int | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def coverage(self) -> str:
        """How many of a published split's items are scored, as a sentence; empty where the split is not published."""
        if self.published is None:
            return ""
        if len(self.items) == self.published:
            return f"All {self.published:,} published items are scored."
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(self.left_out.items()))
        return f"{len(self.items):,} of {self.published:,} published items are scored; left out: {reasons}."

    @property
    def labels(self) -> tuple[str, ...]:
        """The closed set of labels that were chosen from; empty where there is none."""
        return tuple(self.layout.get("labels", ()))

    @property
    def verdict_by(self) -> Measure:
        """The measure that the verdict in words rests on."""
        return verdict_measure(self.measures, self.scoring)

    @property
    def groups(self) -> int:
        """How many groups the items come from: what the intervals resample."""
        return len({item.group for item in self.items})


def verdict_measure(measures: Sequence[Measure], scoring: Scoring) -> Measure:
    """The measure that the verdict of a scoring rests on."""
    return next(measure for measure in measures if measure.name == SCORINGS[scoring].verdict_by)


def commonest(labels: Sequence[str]) -> str:
    """The most frequent label; among several, the first in the alphabet."""
    return max(sorted(set(labels)), key=list(labels).count)
