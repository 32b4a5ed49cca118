"""Outputs of base + adapter before the merge, on probes and held-out texts; one model in memory at a time."""

from __future__ import annotations

import gc
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from lora_med.adapters.runtime.attach import attach_opened
from lora_med.adapters.store.published import Published
from lora_med.errors import IntegrityError
from lora_med.merge.fold.merge_plan import Output
from lora_med.merge.proof.heldout_nll import HeldOut, heldout_nll
from lora_med.merge.proof.logits import PROBES, Agreement, Tolerance, compare, probe_ids, probe_logits
from lora_med.models.base import STANDARD, Base, load_base
from lora_med.models.tokens.vocabulary import add_tokens

MEMORY_SHARE = 0.6  # share of the free memory that the weights may take


@dataclass(frozen=True)
class Reference:
    """Logits of base + adapter and of the bare base on the probes, how they were computed, and held-out nll, if any.

    `texts` are the probes, among them one for each token that the adapter trained; `rows` are their ids.
    """

    texts: tuple[str, ...]
    rows: list[list[int]]
    adapted: list[torch.Tensor]
    bare: list[torch.Tensor]
    quantization: str
    dtype: str
    nll: float | None


def fitting_dtype(outputs: Mapping[str, Output], stored_as: str) -> str | None:
    """float32, the most sensitive comparison, or else the stored dtype; None if neither fits into memory."""
    numbers = sum(math.prod(output.shape) for output in outputs.values())
    free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else psutil.virtual_memory().available
    width = {"float32": 4, "float64": 8}.get(stored_as, 2)
    if 4 * numbers < MEMORY_SHARE * free:
        return "float32"
    return stored_as if width * numbers < MEMORY_SHARE * free else None


def compute_reference(adapter: Published, quantization: str, dtype: str, heldout: HeldOut | None) -> Reference:
    """Load the base, attach the adapter, and compute the logits of both; then free the model."""
    base: Base = load_base(
        adapter.base_name, quantization=quantization, dtype=dtype, attention=STANDARD, revision=adapter.revision
    )
    if adapter.card.tokens:  # of the bare base too, so that the logits have the same words
        add_tokens(base, adapter.card.tokens)
    texts = (*PROBES, *(f"{PROBES[0]} {token} {PROBES[1]}" for token in adapter.card.tokens))
    rows = probe_ids(base.tokenizer, texts)
    device = next(base.model.parameters()).device
    bare = probe_logits(base.model, rows, device)
    model = attach_opened(base, adapter)
    adapted = probe_logits(model, rows, device)
    nll = None if heldout is None else heldout_nll(model, base.tokenizer, heldout.texts, device)
    del model, base
    gc.collect()
    return Reference(texts, rows, adapted, bare, quantization, dtype, nll)


def evaluate_merged(folder: Path, reference: Reference, heldout: HeldOut | None) -> tuple[Agreement, float | None]:
    """The agreement of the merged model in `folder` on the same probes, and its nll on the held-out texts.

    Raises:
        IntegrityError: its tokenizer is not the base's, or its logits are not finite.
    """
    merged = load_base(str(folder), quantization="none", dtype=reference.dtype, attention=STANDARD)
    if probe_ids(merged.tokenizer, reference.texts) != reference.rows:
        raise IntegrityError("the merged model's tokenizer tokenizes the probes differently from the base's")
    device = next(merged.model.parameters()).device
    agreement = compare(reference.adapted, probe_logits(merged.model, reference.rows, device), reference.bare)
    nll = None if heldout is None else heldout_nll(merged.model, merged.tokenizer, heldout.texts, device)
    return agreement, nll


def check_agreement(agreement: Agreement, allowed: Tolerance, dtype: str) -> None:
    """Refuse a merged model that is not equal to base + adapter.

    Raises:
        IntegrityError: with both figures of the comparison.
    """
    if agreement.within(allowed):
        return
    raise IntegrityError(
        f"the merged model is not base + adapter: mean KL {agreement.mean_kl:.3g} nats over {agreement.positions} "
        f"positions, largest logit difference {agreement.largest_logit_difference:.3g}; allowed is at most "
        f"{allowed.mean_kl:.3g} and {allowed.share_of_effect:.0%} of the adapter's effect of "
        f"{agreement.adapter_effect_kl:.3g}",
        where=f"computed in {dtype}; nothing was written",
        fix="merge with --dtype float32",
    )
