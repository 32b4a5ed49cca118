"""The part of a report on confidence: a table, the reliability diagram, and risk against coverage."""

from __future__ import annotations

from lora_med.evaluation.report.charts import reliability, risk_curves
from lora_med.evaluation.report.page import Cell, Figure, Table, text_row
from lora_med.evaluation.results import Evaluation
from lora_med.evaluation.sentences import number
from lora_med.evaluation.statistics.calibration import Confidence

NOTE = (
    "ECE: expected calibration error, over 15 bins of equal width and of equal numbers of items; Brier over all "
    "options (0 to 2); nll of the right option in nats; risk: the mean error rate over all coverages."
)


def confidence_table(evaluation: Evaluation) -> Table:
    """Calibration of base and adapters; a second row where a temperature was fitted on validation items."""
    columns = (Cell("confidence"), *(Cell(name, "number") for name in ("ECE", "ECE, equal", "Brier", "nll", "risk")))
    rows = []
    for subject in evaluation.subjects:
        if subject.confidence is None:
            continue
        found = subject.confidence
        for name, one in ((subject.name, found.plain), (f"{subject.name}, scaled", found.scaled)):
            if one is not None:
                values = (one.error, one.error_by_items, one.brier, one.nll, one.area)
                rows.append(text_row(name, *(Cell(number(value), "number") for value in values)))
    said = [_fitted(subject.name, one) for subject in evaluation.subjects if (one := subject.confidence) is not None]
    return Table(columns, tuple(rows), " ".join([NOTE, *filter(None, said)]))


def _fitted(name: str, found: Confidence) -> str:
    if found.fitted is None:
        return ""
    fitted = found.fitted
    said = f"{name}: temperature {number(fitted.temperature)}, from {fitted.items} validation items"
    if fitted.threshold is None:
        return f"{said}; no threshold there kept errors at {fitted.risk:.0%}, so every question is one to refer."
    if found.referral is None or found.referral.risk is None:
        return f"{said}; none of these answers is as sure as {fitted.threshold:.2f}, so all are to refer."
    return (
        f"{said}; answers surer than {fitted.threshold:.2f} ({fitted.risk:.0%} errors there) are "
        f"{found.referral.coverage:.0%} of these and wrong in {found.referral.risk:.0%}; refer the others."
    )


def confidence_figures(evaluation: Evaluation, place: int) -> tuple[Figure, ...]:
    """The reliability diagram of each subject, and how errors fall as fewer questions are answered."""
    found = {subject.name: subject.confidence for subject in evaluation.subjects if subject.confidence is not None}
    if not found:
        return ()
    diagrams = reliability({name: one.plain.reliability for name, one in found.items()}, name=f"reliability{place}")
    curves = risk_curves({name: one.plain.curve for name, one in found.items()}, name=f"risk{place}")
    return (
        Figure(diagrams, "Share of right answers among those of like confidence; on the line it is as sure as right."),
        Figure(curves, "Error rate if only the surest share of the questions is answered and the rest referred."),
    )
