"""DoRA on a base with rows of zeros, of which Llama-3.1-8B has 511: PEFT divides 0 by 0 there.

DoRA scales each row of the updated weight to a learned magnitude. A row of zeros has no direction to scale: its factor
is 0 here, so the row stays zero, and neither its magnitude nor its row of B receives a gradient. The merge, the proof
and the adapter pool use the same factor (`row_factor`).
"""

from __future__ import annotations

from typing import Any


def keep_zero_rows() -> None:
    """Let PEFT's DoRA layers of this process give rows of zeros the factor 0, not NaN."""
    from peft.tuners.lora.dora import DoraLinearLayer

    original = DoraLinearLayer.get_weight_norm
    if getattr(original, "keeps_zero_rows", False):
        return

    def get_weight_norm(
        self: Any, weight: Any, lora_weight: Any, scaling: float, adapter_name: str | None = None
    ) -> Any:
        norm = original(self, weight, lora_weight, scaling, adapter_name=adapter_name)
        # Without an adapter's name it initializes the magnitudes, which are 0 there: 0 / infinity is 0.
        return norm if adapter_name is None else norm.masked_fill(norm == 0, float("inf"))

    get_weight_norm.keeps_zero_rows = True  # pyright: ignore[reportFunctionMemberAccess]
    DoraLinearLayer.get_weight_norm = get_weight_norm
