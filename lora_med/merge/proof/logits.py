"""Proof of a merge: the merged model's logits against base + adapter, on probe texts, both computed alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lora_med.errors import IntegrityError

# The adapter changes what comes after medical beginnings, so the probes are such; general ones stand beside them.
PROBES = (
    "Background: Hypertension is a leading cause of stroke. We compared two doses of amlodipine in 312 patients.",
    "Results: Mortality at 30 days was 4.1% in the treatment group and 6.3% in the control group (p = 0.02).",
    "Question: Does metformin lower the risk of cancer in people with type 2 diabetes?\nAnswer:",
    "Abstract: The patient, a 54-year-old woman, came with chest pain and shortness of breath for two days.",
    "What are the symptoms of iron deficiency anaemia? Tiredness, pale skin, and",
    "Doctor: How long have you had this cough? Patient: For about three weeks, and it is worse at night.",
    "The gene BRCA1 encodes a protein that repairs DNA; mutations raise the risk of breast and ovarian cancer.",
    "Once upon a time there was a small village near the sea, and the people who lived there were happy.",
)


@dataclass(frozen=True)
class Tolerance:
    """The most that a merge may differ from base + adapter, as a mean KL divergence in nats.

    Never over `mean_kl`; and over `negligible` only up to `share_of_effect` of what the adapter itself does.
    """

    mean_kl: float
    share_of_effect: float
    negligible: float


# Rounding weights to 8 (bf16) or 11 (fp16) bits moves the logits: on micro by 4e-6 and 7e-8, on stories260K, which was
# trained in fp32, by 4e-4 and 6e-6. A wrong scale or layer is off by the order of the adapter's effect (2e-3 to 3).
TOLERANCES = {
    "float32": Tolerance(1e-6, 0.01, 1e-9),
    "float64": Tolerance(1e-6, 0.01, 1e-9),
    "float16": Tolerance(1e-4, 0.02, 1e-5),
    "bfloat16": Tolerance(2e-3, 0.05, 1e-4),
}
# Where fp32 does not fit, the sums of both models are rounded too: 8e-5 and 4e-3 on the same two.
COMPUTED_IN_16_BITS = Tolerance(4e-2, 0.2, 1e-3)


@dataclass(frozen=True)
class Agreement:
    """How near the merged model is to base + adapter over all probe positions; KL from the latter, in nats.

    `flips` are the positions whose first choice is another; `adapter_effect_kl` is the mean KL from base + adapter to
    the bare base: what the merge had to keep.
    """

    positions: int
    largest_logit_difference: float
    mean_kl: float
    largest_kl: float
    same_first_choice: float
    flips: int
    adapter_effect_kl: float

    def within(self, allowed: Tolerance) -> bool:
        """Whether the merge may be kept."""
        near = max(allowed.negligible, allowed.share_of_effect * self.adapter_effect_kl)
        return self.mean_kl <= min(allowed.mean_kl, near)


def probe_ids(tokenizer: Any, probes: Sequence[str] = PROBES) -> list[list[int]]:
    """The probe texts as token ids, BOS included where the tokenizer adds one."""
    return [tokenizer(text)["input_ids"] for text in probes]


def probe_logits(run: Callable[..., Any], rows: Sequence[Sequence[int]], device: torch.device) -> list[torch.Tensor]:
    """Logits at every position of each row: (tokens, vocabulary), fp32 on the CPU."""
    with torch.inference_mode():
        return [
            run(input_ids=torch.tensor([list(row)], device=device), use_cache=False).logits[0].float().cpu()
            for row in rows
        ]


def _divergence(reference: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """KL(reference || other) at each position, in fp64 so that rounding does not hide what fp32 weights differ by."""
    right = torch.log_softmax(reference.double(), -1)
    got = torch.log_softmax(other.double(), -1)
    return (right.exp() * (right - got)).sum(-1).clamp_min(0)


def compare(adapted: Sequence[torch.Tensor], merged: Sequence[torch.Tensor], bare: Sequence[torch.Tensor]) -> Agreement:
    """The agreement of merged logits with those of base + adapter, beside those of the bare base.

    Raises:
        IntegrityError: the vocabularies differ, or a value is not finite.
    """
    right, got, before = torch.cat(list(adapted)), torch.cat(list(merged)), torch.cat(list(bare))
    if right.shape != got.shape or not torch.isfinite(got).all() or not torch.isfinite(right).all():
        raise IntegrityError(f"the merged model gives logits {tuple(got.shape)}, base + adapter {tuple(right.shape)}")
    divergence = _divergence(right, got)
    return Agreement(
        positions=len(right),
        largest_logit_difference=float((right - got).abs().max()),
        mean_kl=float(divergence.mean()),
        largest_kl=float(divergence.max()),
        flips=int((right.argmax(-1) != got.argmax(-1)).sum()),
        same_first_choice=float((right.argmax(-1) == got.argmax(-1)).double().mean()),
        adapter_effect_kl=float(_divergence(right, before).mean()),
    )
