"""What the evidence pages show of a report: items filtered, ordered, and each with its difference to the base."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lora_med.errors import DataError, InputMissingError, IntegrityError
from lora_med.evaluation.measures import Measure
from lora_med.evaluation.results import BASE, verdict_measure
from lora_med.evaluation.scorers.registry import measures_of
from lora_med.review.item_texts import ItemText, read_item_texts
from lora_med.review.report_folder import ReportEvaluation, ReportFolder, open_report, outputs_of, written_by

logger = logging.getLogger(__name__)
SHOWN = ("open", "registered")  # access classes whose texts may be shown
OUTCOMES = {
    "": "all items",
    "gained": "adapter right, base wrong; or better",
    "lost": "base right, adapter wrong; or better",
    "same": "no difference",
}
ORDERS = {"": "as in the report", "gain": "largest gain first", "loss": "largest loss first"}


@dataclass(frozen=True)
class EvaluationEvidence:
    """One evaluation with the prompts of its items, where the files were given and the access class allows it."""

    evaluation: ReportEvaluation
    texts: Mapping[str, ItemText] = field(repr=False)
    gains: Mapping[str, Sequence[float]] = field(repr=False)
    measure: Mapping[str, Any]

    def selection(self, adapter: str, outcome: str = "", order: str = "", search: str = "") -> list[int]:
        """The numbers of the items that a reader asked for."""
        gains = self.gains[adapter]
        keep = {
            "gained": lambda gain: gain > 0,
            "lost": lambda gain: gain < 0,
            "same": lambda gain: gain == 0,
        }.get(outcome, lambda gain: True)
        wanted = search.casefold()
        chosen = [
            number
            for number, item in enumerate(self.evaluation.items)
            if keep(gains[number]) and (not wanted or wanted in self._searched(item).casefold())
        ]
        if order in ("gain", "loss"):
            chosen.sort(key=lambda number: gains[number], reverse=order == "gain")
        return chosen

    def _searched(self, item: Mapping[str, Any]) -> str:
        prompt = self.texts.get(item["uid"])
        written = [written_by(item, name) or "" for name in (BASE, *self.evaluation.adapters)]
        return "\n".join([item["uid"], *written, *([prompt.prompt, prompt.reference] if prompt else [])])


@dataclass(frozen=True)
class Evidence:
    """A report and its evaluations."""

    report: ReportFolder
    evaluations: tuple[EvaluationEvidence, ...]


def load_evidence(path: Path, data: Sequence[str]) -> Evidence:
    """A report to show; `data` are the evaluated files, for the prompts.

    Of several evaluations the files may be those of one; of the others it is logged that they show no prompts.

    Raises:
        InputMissingError, IntegrityError, DataError: as `open_report` and `read_item_texts`.
    """
    report = open_report(path)
    texts, refusals = [], []
    for evaluation in report.evaluations:
        try:
            texts.append(read_item_texts(evaluation, data) if data and evaluation.access in SHOWN else {})
        except (DataError, InputMissingError) as error:
            refusals.append((evaluation.name, error))
            texts.append({})
    if refusals and not any(texts):
        raise refusals[0][1]
    for name, error in refusals:
        logger.warning("no prompts are shown for %s: %s", name, error.what)
    pairs = zip(report.evaluations, texts, strict=True)
    return Evidence(report, tuple(_evaluation(evaluation, prompts) for evaluation, prompts in pairs))


def _evaluation(evaluation: ReportEvaluation, texts: Mapping[str, ItemText]) -> EvaluationEvidence:
    measure = _measure(evaluation)
    sign = -1.0 if measure.lower_is_better else 1.0

    def scores(subject: str) -> Any:
        sums = [outputs_of(item, subject)["sums"] for item in evaluation.items]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.nan_to_num(measure.of_sums(np.array(sums, dtype=np.float64)))

    before = scores(BASE)
    gains = {name: (sign * (scores(name) - before)).tolist() for name in (BASE, *evaluation.adapters)}
    return EvaluationEvidence(evaluation, texts, gains, {"name": measure.name, "label": measure.label})


def _measure(evaluation: ReportEvaluation) -> Measure:
    """The measure that the verdict rests on."""
    scoring: Any = evaluation.entry["scoring"]
    try:
        return verdict_measure(measures_of(scoring, evaluation.entry["layout"]), scoring)
    except (KeyError, TypeError, StopIteration) as error:
        raise IntegrityError(
            f"the layout of a {scoring!r} evaluation is not one that this version writes",
            where=str(evaluation.folder / "report.json"),
            fix="run lora-med eval again",
        ) from error
