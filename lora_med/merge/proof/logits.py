"""Proof of a merge: the merged model's logits against base + adapter, on probe texts, computed the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lora_med.errors import IntegrityError

# The adapter changes continuations of medical text, so most probes are medical; a general one is added.
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
    """The largest allowed difference of a merge from base + adapter, as a mean KL divergence in nats.

    It is at most `mean_kl`. It may exceed `negligible` only up to `share_of_effect` of the adapter's own effect.
    """

    mean_kl: float
    share_of_effect: float
    negligible: float


# Rounding weights to 8 (bf16) or 11 (fp16) bits moves the logits: on micro by 4e-6 and 7e-8, on stories260K, which was
# trained in fp32, by 4e-4 and 6e-6. A wrong scale or layer differs by the order of the adapter's effect (2e-3 to 3).
TOLERANCES = {
    "float32": Tolerance(1e-6, 0.01, 1e-9),
    "float64": Tolerance(1e-6, 0.01, 1e-9),
    "float16": Tolerance(1e-4, 0.02, 1e-5),
    "bfloat16": Tolerance(2e-3, 0.05, 1e-4),
}
# Where fp32 does not fit in memory, the sums of both models are rounded too: 8e-5 and 4e-3 on the same two.
COMPUTED_IN_16_BITS = Tolerance(4e-2, 0.2, 1e-3)


@dataclass(frozen=True)
class Agreement:
    """The difference of the merged model from base + adapter over all probe positions; KL from the latter, in nats.

    `flips` counts the positions whose first choice differs. `adapter_effect_kl` is the mean KL from base + adapter to
    the bare base: the effect that the merge must preserve.
    """

    positions: int
    largest_logit_difference: float
    mean_kl: float
    largest_kl: float
    same_first_choice: float
    flips: int
    adapter_effect_kl: float

    def within(self, allowed: Tolerance) -> bool:
        """Whether the merge is within the tolerance."""
        limit = max(allowed.negligible, allowed.share_of_effect * self.adapter_effect_kl)
        return self.mean_kl <= min(allowed.mean_kl, limit)


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
    """KL(reference || other) at each position, in fp64, so that rounding does not hide differences of fp32 weights."""
    expected = torch.log_softmax(reference.double(), -1)
    actual = torch.log_softmax(other.double(), -1)
    return (expected.exp() * (expected - actual)).sum(-1).clamp_min(0)


def compare(adapted: Sequence[torch.Tensor], merged: Sequence[torch.Tensor], bare: Sequence[torch.Tensor]) -> Agreement:
    """The agreement of merged logits with those of base + adapter; `bare` gives the adapter's own effect.

    Raises:
        IntegrityError: the vocabularies differ, or a value is not finite.
    """
    expected, actual, before = torch.cat(list(adapted)), torch.cat(list(merged)), torch.cat(list(bare))
    if expected.shape != actual.shape or not torch.isfinite(actual).all() or not torch.isfinite(expected).all():
        raise IntegrityError(
            f"the merged model gives logits {tuple(actual.shape)}, base + adapter {tuple(expected.shape)}, "
            "or one of their values is not finite"
        )
    divergence = _divergence(expected, actual)
    return Agreement(
        positions=len(expected),
        largest_logit_difference=float((expected - actual).abs().max()),
        mean_kl=float(divergence.mean()),
        largest_kl=float(divergence.max()),
        flips=int((expected.argmax(-1) != actual.argmax(-1)).sum()),
        same_first_choice=float((expected.argmax(-1) == actual.argmax(-1)).double().mean()),
        adapter_effect_kl=float(_divergence(expected, before).mean()),
    )
