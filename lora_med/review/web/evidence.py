"""What the evidence pages show of a report: items filtered, ordered, and each with its difference to the base."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lora_med.errors import DataError, InputMissingError, IntegrityError
from lora_med.evaluation.measures import Measure
from lora_med.evaluation.results import BASE, verdict_measure
from lora_med.evaluation.scorers.registry import measures_of
from lora_med.review.item_filter import CONFIDENCE_ORDERS, Confidences, ItemFilter, confidences
from lora_med.review.item_texts import ItemReading, ItemText, read_fitting_texts
from lora_med.review.report_folder import ReportEvaluation, ReportFolder, open_report, outputs_of, written_by
from lora_med.review.text_permission import may_show

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationEvidence:
    """One evaluation with the prompts of its items, where the files were given and the access class allows it."""

    evaluation: ReportEvaluation
    texts: Mapping[str, ItemText] = field(repr=False)
    gains: Mapping[str, Sequence[float]] = field(repr=False)
    confidences: Mapping[str, Confidences] = field(repr=False)
    measure: Mapping[str, Any]

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        """The subjects of the items, where the files of the prompts name them."""
        return tuple(sorted({text.subject for text in self.texts.values() if text.subject}))

    def selection(self, wanted: ItemFilter) -> list[int]:
        """The numbers of the items that a reader asked for."""
        gains, sure = self.gains[wanted.adapter], self.confidences[wanted.adapter]
        words = wanted.search.casefold()
        chosen = [
            number
            for number, item in enumerate(self.evaluation.items)
            if wanted.has_outcome(gains[number])
            and wanted.has_confidence(sure.values[number], sure.threshold)
            and (wanted.subject not in self.subjects or self._subject(item) == wanted.subject)
            and (not words or words in self._searched(item).casefold())
        ]
        if wanted.order in ("gain", "loss"):
            chosen.sort(key=lambda number: gains[number], reverse=wanted.order == "gain")
        elif wanted.order in CONFIDENCE_ORDERS and sure.is_known:
            chosen.sort(key=lambda number: sure.values[number] or 0.0, reverse=wanted.order == "sure")
        return chosen

    def _subject(self, item: Mapping[str, Any]) -> str:
        text = self.texts.get(item["uid"])
        return "" if text is None else text.subject

    def _searched(self, item: Mapping[str, Any]) -> str:
        prompt = self.texts.get(item["uid"])
        written = [written_by(item, name) or "" for name in (BASE, *self.evaluation.adapters)]
        return "\n".join([item["uid"], *written, *([prompt.prompt, prompt.reference] if prompt else [])])


@dataclass(frozen=True)
class Evidence:
    """A report and its evaluations."""

    report: ReportFolder
    evaluations: tuple[EvaluationEvidence, ...]


def load_evidence(
    path: Path,
    data: Sequence[str],
    permission: str | None = None,
    reading_of: Callable[[ReportEvaluation], ItemReading] = lambda evaluation: ItemReading(),
) -> Evidence:
    """A report to show; `data` are the evaluated files, for the prompts, read as `reading_of` says.

    Of several evaluations the files may be those of one; of the others it is logged that they show no prompts. Those of
    credentialed items are shown only with a `permission`: who allows it, in writing.

    Raises:
        NotPermittedError: the permission is too short to be one.
        InputMissingError, IntegrityError, DataError: as `open_report` and `read_fitting_texts`.
    """
    report = open_report(path)
    texts, refusals = [], []
    for evaluation in report.evaluations:
        try:
            texts.append(_texts(evaluation, data, permission, reading_of))
        except (DataError, InputMissingError) as error:
            refusals.append((evaluation.name, error))
            texts.append({})
    if refusals and not any(texts):
        raise refusals[0][1]
    for name, error in refusals:
        logger.warning("no prompts are shown for %s: %s", name, error.what)
    pairs = zip(report.evaluations, texts, strict=True)
    return Evidence(report, tuple(_evaluation(evaluation, prompts) for evaluation, prompts in pairs))


def _texts(
    evaluation: ReportEvaluation,
    data: Sequence[str],
    permission: str | None,
    reading_of: Callable[[ReportEvaluation], ItemReading],
) -> dict[str, ItemText]:
    if not data or not may_show(evaluation.access, f"showing the prompts of {evaluation.name} on a page", permission):
        return {}
    return read_fitting_texts(evaluation, data, reading_of(evaluation))


def _evaluation(evaluation: ReportEvaluation, texts: Mapping[str, ItemText]) -> EvaluationEvidence:
    measure = _measure(evaluation)
    sign = -1.0 if measure.lower_is_better else 1.0

    def scores(subject: str) -> Any:
        sums = [outputs_of(item, subject)["sums"] for item in evaluation.items]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.nan_to_num(measure.of_sums(np.array(sums, dtype=np.float64)))

    before = scores(BASE)
    gains = {name: (sign * (scores(name) - before)).tolist() for name in (BASE, *evaluation.adapters)}
    sure = {name: confidences(evaluation, name) for name in (BASE, *evaluation.adapters)}
    return EvaluationEvidence(evaluation, texts, gains, sure, {"name": measure.name, "label": measure.label})


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
