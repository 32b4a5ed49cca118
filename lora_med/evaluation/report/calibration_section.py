"""The section of a report on calibration: a table, the reliability diagram, and risk against coverage."""

from __future__ import annotations

from lora_med.evaluation.report.charts import reliability, risk_curves
from lora_med.evaluation.report.page import Cell, Figure, Table, text_row
from lora_med.evaluation.results import Evaluation
from lora_med.evaluation.sentences import number
from lora_med.evaluation.statistics.calibration import Confidence

TERMS = (
    ("ECE", "expected calibration error: how far confidence and accuracy differ, over 15 bins of equal width."),
    ("ECE, equal", "the same error over 15 bins with equal numbers of items."),
    ("Brier", "mean squared error of the probabilities, over all options (0 to 2)."),
    ("nll", "negative log-likelihood of the correct option, in nats."),
    ("risk", "the mean error rate over all coverages: all shares of questions that the model may answer."),
)


def confidence_table(evaluation: Evaluation) -> Table:
    """Calibration of base and adapters; a second row where a temperature was fitted on validation items."""
    columns = (Cell("calibration"), *(Cell(name, "number") for name in ("ECE", "ECE, equal", "Brier", "nll", "risk")))
    confidences = [
        (subject.name, subject.confidence) for subject in evaluation.subjects if subject.confidence is not None
    ]
    rows = []
    for name, confidence in confidences:
        for title, calibration in ((name, confidence.plain), (f"{name}, scaled", confidence.scaled)):
            if calibration is not None:
                values = (
                    calibration.error,
                    calibration.error_by_items,
                    calibration.brier,
                    calibration.nll,
                    calibration.area,
                )
                rows.append(text_row(title, *(Cell(number(value), "number") for value in values)))
    notes = [_abstention(name, confidence) for name, confidence in confidences]
    return Table(columns, tuple(rows), " ".join(filter(None, notes)), TERMS)


def _abstention(name: str, confidence: Confidence) -> str:
    """Sentences on the fitted temperature and on abstention below the fitted threshold; empty where none was fitted."""
    if confidence.fitted is None:
        return ""
    fitted = confidence.fitted
    temperature = f"{name}: temperature {number(fitted.temperature)}, fitted on {fitted.items} validation items."
    if fitted.threshold is None:
        return f"{temperature} No threshold there limits errors to {fitted.risk:.0%}: abstain on every question."
    if confidence.referral is None or confidence.referral.risk is None:
        return f"{temperature} No answer here reaches a confidence of {fitted.threshold:.2f}: abstain on all."
    return (
        f"{temperature} At a confidence of {fitted.threshold:.2f} or more, at most {fitted.risk:.0%} of the validation "
        f"answers were wrong. Here {confidence.referral.coverage:.0%} of the answers reach it, and "
        f"{confidence.referral.risk:.0%} of these are wrong. Abstain on the others and refer them to a clinician."
    )


def confidence_figures(evaluation: Evaluation, index: int) -> tuple[Figure, ...]:
    """The reliability diagram of each subject, and the error rate as fewer questions are answered."""
    confidences = {
        subject.name: subject.confidence for subject in evaluation.subjects if subject.confidence is not None
    }
    if not confidences:
        return ()
    bins = {name: confidence.plain.reliability for name, confidence in confidences.items()}
    curves = {name: confidence.plain.curve for name, confidence in confidences.items()}
    return (
        Figure(
            reliability(bins, name=f"reliability{index}"),
            "Accuracy of the answers with similar confidence. On the dashed line confidence equals accuracy.",
        ),
        Figure(
            risk_curves(curves, name=f"risk{index}"),
            "Error rate if the model answers only the questions of highest confidence and abstains on the rest.",
        ),
    )
