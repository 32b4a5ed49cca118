"""Which items of an evaluation a reader asks for: by outcome, subject, confidence and words, in an order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_med.metrics.calibration_error import softmax
from lora_med.review.report_folder import ReportEvaluation, outputs_of

OUTCOMES = {
    "": "all items",
    "gained": "adapter right, base wrong; or better",
    "lost": "base right, adapter wrong; or better",
    "same": "no difference",
}
ORDERS = {"": "as in the report", "gain": "largest gain first", "loss": "largest loss first"}
CONFIDENCE_ORDERS = {"unsure": "least confident first", "sure": "most confident first"}
CONFIDENCES = {
    "": "any confidence",
    "low": "under 50%",
    "middle": "50% to under 80%",
    "high": "80% and more",
}
BELOW_THRESHOLD = {"refer": "below the threshold of abstention"}
BOUNDS = {"low": (0.0, 0.5), "middle": (0.5, 0.8), "high": (0.8, 2.0)}


@dataclass(frozen=True)
class ItemFilter:
    """What a reader asks for; an empty field, or a word that is none of the choices, asks for everything."""

    adapter: str = ""
    outcome: str = ""
    order: str = ""
    subject: str = ""
    confidence: str = ""
    search: str = ""

    @classmethod
    def of_query(cls, query: Mapping[str, str]) -> ItemFilter:
        """The filter in the query of an address."""
        return cls(**{name: query.get(name, "") for name in cls.__dataclass_fields__})

    def has_outcome(self, gain: float) -> bool:
        """Whether an item with this gain has the outcome."""
        return {"gained": gain > 0, "lost": gain < 0, "same": gain == 0}.get(self.outcome, True)

    def has_confidence(self, confidence: float | None, threshold: float | None) -> bool:
        """Whether an answer with this confidence is among those asked for."""
        if self.confidence == "refer" and threshold is not None:
            return confidence is not None and confidence < threshold
        low, high = BOUNDS.get(self.confidence, (None, None))
        return low is None or high is None or (confidence is not None and low <= confidence < high)


@dataclass(frozen=True)
class Confidences:
    """The confidence of one subject's choice on each item, and its threshold of abstention where one was fitted.

    It is the probability of the chosen option, at the temperature that was fitted on validation items, else at 1.
    """

    values: tuple[float | None, ...]
    threshold: float | None

    @property
    def is_known(self) -> bool:
        """Whether any item has one."""
        return any(value is not None for value in self.values)


def confidences(evaluation: ReportEvaluation, subject: str) -> Confidences:
    """The confidences of the base or an adapter; none where the report holds no log-probabilities of options."""
    entries = [each for each in evaluation.entry["subjects"] if (each["adapter"] or "base") == subject]
    stated: Any = entries[0].get("confidence") if entries else None
    fitted = stated.get("fitted") if isinstance(stated, Mapping) else None
    temperature, threshold = (fitted["temperature"], fitted["threshold"]) if fitted else (1.0, None)
    return Confidences(
        tuple(_confidence(outputs_of(item, subject), temperature) for item in evaluation.items), threshold
    )


def _confidence(outputs: Mapping[str, Any], temperature: float) -> float | None:
    scores = outputs.get("log_probabilities")
    if not isinstance(scores, list) or not scores:
        return None
    return float(softmax(scores, temperature).max())
