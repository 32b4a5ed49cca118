"""Whether an adapter is better or worse on validation than what its training began from, as its card holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_med.metrics.significance import Verdict

LOSS = "eval_loss"
PLACES = 2, 4  # decimals of the two values; more where two would hide the difference
STATED = {"better": "it is better than", "worse": "it is worse than", "cannot tell": "it cannot be told from"}


@dataclass(frozen=True)
class OnValidation:
    """The validation metric that chose the adapter, beside its value at step 0.

    `interval` is the 95% interval of the difference, over items; None for a loss, whose two values are compared as they
    are. `items` is the number of items behind a score; None for a loss.
    """

    metric: str
    start: float
    value: float
    verdict: Verdict
    interval: tuple[float, float] | None = None
    items: int | None = None

    @classmethod
    def of(cls, scores: Mapping[str, Any]) -> OnValidation | None:
        """What the scores of a card or a trainer state; None where nothing was compared with step 0."""
        chosen = scores.get("validation")
        if not isinstance(chosen, Mapping) or "verdict" not in chosen:
            return None
        metric = next(name for name in chosen if name.startswith("eval_"))
        interval = chosen.get("interval")
        return cls(
            metric,
            start=chosen["start"],
            value=chosen[metric],
            verdict=chosen["verdict"],
            interval=None if interval is None else (interval[0], interval[1]),
            items=chosen.get("items"),
        )

    def as_json(self) -> dict[str, Any]:
        """What is added to the chosen metric in the card."""
        interval = {} if self.interval is None else {"interval": list(self.interval)}
        return {"start": self.start, "verdict": self.verdict, **interval}

    def sentence(self, parent: str | None = None) -> str:
        """The verdict in words, such as `on validation it is worse than its base: 10.00 against 3.15`.

        Args:
            parent: the adapter that was trained further, if the run did not begin at the base.
        """
        places = PLACES[round(self.value, PLACES[0]) == round(self.start, PLACES[0])]
        name = "" if self.metric == LOSS else f"{self.metric.removeprefix('eval_')} "
        origin = "its base" if parent is None else f"the adapter {parent} that it continues"
        stated = f"on validation {STATED[self.verdict]} {origin}: {name}{self.value:.{places}f} against "
        stated += f"{self.start:.{places}f}"
        if self.interval is not None:
            low, high = self.interval
            stated += f" (95% of the difference {low:+.{places}f} to {high:+.{places}f}, {self.items} items)"
        return stated


def compare_losses(start: float, value: float) -> Verdict:
    """The verdict on two losses of the same rows."""
    return "cannot tell" if value == start else "better" if value < start else "worse"
