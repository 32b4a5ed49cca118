"""The proofs of a merge: chosen by the available memory, measured, and refused where the difference is too large."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lora_med.adapters.store.card import Card
from lora_med.adapters.store.published import Published
from lora_med.errors import SettingsError
from lora_med.merge.fold.fold import NAMES
from lora_med.merge.fold.merge_plan import Plan
from lora_med.merge.proof.heldout_nll import HeldOut
from lora_med.merge.proof.logits import COMPUTED_IN_16_BITS, TOLERANCES, Agreement, Tolerance
from lora_med.merge.proof.references import (
    Reference,
    check_agreement,
    compute_reference,
    evaluate_merged,
    fitting_dtype,
)
from lora_med.merge.proof.tensor_check import TensorProof, recompute

ON_DISK = "on_disk"  # onto the dequantized values of a base that is quantized on disk
ORIGINAL, DEQUANTIZED = "original base + adapter", "dequantized base + adapter"


@dataclass(frozen=True)
class ReferenceOutputs:
    """The inputs of a proof from before the fold: which proofs to make, the reference logits, nll of base + adapter."""

    by_tensors: bool
    reference: Reference | None
    nll: Mapping[str, float]


@dataclass(frozen=True)
class Proof:
    """The results of a merge's proofs; None for a proof that was not made."""

    agreement: Agreement | None
    reference: Reference | None
    allowed: Tolerance | None
    tensors: TensorProof | None
    nll: Mapping[str, float]
    texts: HeldOut | None

    def as_json(self) -> dict[str, Any]:
        """The certificate's entries."""
        results = {"probes": self.agreement, "tensors": self.tensors}
        probe = None
        if self.agreement is not None and self.reference is not None:
            how = {"computed_in": self.reference.dtype, "base_quantized_to": self.reference.quantization}
            probe = {**asdict(self.agreement), **how}
        heldout = None
        if self.texts is not None:
            heldout = {"file": self.texts.name, "texts": len(self.texts.texts), "nll": dict(self.nll)}
        return {
            "verified_by": [name for name, result in results.items() if result is not None],
            "probe": probe,
            "tolerance": None if self.allowed is None else asdict(self.allowed),
            "tensors": None if self.tensors is None else asdict(self.tensors),
            "heldout": heldout,
        }


def training_dtype(card: Card) -> str:
    """The dtype of the adapter's base during training; float32 where the card names none that can be merged in."""
    return card.base.dtype if card.base.dtype in NAMES else "float32"


def reference_outputs(
    adapter: Published, plan: Plan, *, verify: str, onto: str, texts: HeldOut | None
) -> ReferenceOutputs:
    """Compute the outputs of base + adapter before the fold, if the requested proofs need them.

    Args:
        verify: `auto`, `probes`, `tensors` or `none`.
        onto: `original`, ON_DISK, or `dequantized`: then the base is quantized as it was while the adapter was trained.
        texts: held-out texts; they are scored under the full and under the quantized base.

    Raises:
        SettingsError: a proof needs the model in memory, and it does not fit.
    """
    card, by_tensors = adapter.card, verify in ("auto", "tensors")
    if verify not in ("auto", "probes") and texts is None:
        return ReferenceOutputs(by_tensors=by_tensors, reference=None, nll={})
    dtype = fitting_dtype(plan.outputs, plan.stored_dtype)
    if dtype is None:
        if verify == "auto" and texts is None:
            return ReferenceOutputs(by_tensors=by_tensors, reference=None, nll={})
        raise SettingsError(
            "the model does not fit into this machine's memory, so its logits cannot be computed",
            where="--verify probes" if texts is None else "--heldout",
            fix="--verify tensors, without --heldout",
        )
    original = DEQUANTIZED if onto == ON_DISK else ORIGINAL
    quantization_and_dtype = {original: ("none", dtype)}
    quantized = f"base in {card.base.quantization} + adapter"
    if card.base.quantization != "none":
        quantization_and_dtype[quantized] = (card.base.quantization, training_dtype(card))
    main = quantized if onto == "dequantized" else original
    references = {
        name: compute_reference(adapter, quantization, computed_in, texts)
        for name, (quantization, computed_in) in quantization_and_dtype.items()
        if name == main or texts is not None
    }
    nll = {name: reference.nll for name, reference in references.items() if reference.nll is not None}
    return ReferenceOutputs(by_tensors=by_tensors, reference=references[main], nll=nll)


def prove(
    plan: Plan,
    out: Path,
    before: ReferenceOutputs,
    *,
    dtype: str | None,
    texts: HeldOut | None,
    tolerance: Tolerance | None,
) -> Proof:
    """Make the proofs on the merged files in `out`.

    Raises:
        IntegrityError: the merge differs from base + adapter by more than the tolerance.
    """
    tensors = recompute(plan, out, dtype=NAMES[dtype] if dtype else None) if before.by_tensors else None
    if before.reference is None:
        return Proof(agreement=None, reference=None, allowed=None, tensors=tensors, nll={}, texts=None)
    agreement, nll = evaluate_merged(out, before.reference, texts)
    allowed = tolerance or _tolerance(dtype or plan.stored_dtype, before.reference.dtype)
    check_agreement(agreement, allowed, before.reference.dtype)
    nll_by_model = dict(before.nll) | ({"merged": nll} if nll is not None else {})
    return Proof(
        agreement=agreement,
        reference=before.reference,
        allowed=allowed,
        tensors=tensors,
        nll=nll_by_model,
        texts=texts,
    )


def _tolerance(stored_as: str, computed_in: str) -> Tolerance:
    """The tolerance of rounding the weights, or the wider one where the sums are rounded too."""
    return TOLERANCES[stored_as] if computed_in in ("float32", "float64") else COMPUTED_IN_16_BITS
