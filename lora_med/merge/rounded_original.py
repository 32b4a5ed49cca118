"""The full-precision original of a base that is quantized on disk: an adapter may be merged onto it after a proof.

The proof: every dequantized weight is within one step of the format from the original's, the steps being those of each
group's own scale, and every other tensor is the original's in the dtype of the quantized base. A method that moves
weights further (GPTQ's compensation of errors, AWQ's scaling of inputs) fails it: then the base's function is not that
of its original within rounding, and the merge belongs onto the dequantized values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lora_med.adapters.store.base_match import check_base
from lora_med.adapters.store.published import AdapterFiles, Published, open_files, open_published, with_base
from lora_med.adapters.store.store import find_adapter
from lora_med.errors import InputMissingError, IntegrityError
from lora_med.files import read_json
from lora_med.models.files.resolve import resolve_base
from lora_med.models.files.weight_files import Stored, read_headers
from lora_med.models.fingerprint import fingerprint, folder_with
from lora_med.models.on_disk.dequantized_base import transposed_weights
from lora_med.models.on_disk.quantized_tensors import QuantizedWeight, quantized_tensors, read_tensor
from lora_med.models.on_disk.stored_quantization import StoredQuantization, stored_quantization

MOST_STEPS = 1.01  # a scale that was rounded itself moves the largest number of a group by a little more than half
DEQUANTIZED = "leave --base out: the merge goes onto the base's own dequantized values"


@dataclass(frozen=True)
class Rounding:
    """The proof that a quantized base is its original's rounding; `largest_error` is in steps of the format.

    `base` and `trained_on` describe the quantized base that the adapter was trained on.
    """

    base: Mapping[str, Any]
    trained_on: str
    quantization: str
    weights: int
    tensors_quantized: int
    tensors_equal: int
    largest_error: float

    def as_json(self) -> dict[str, Any]:
        """The certificate's entry."""
        facts = {"quantization": self.quantization, "weights": self.weights, "largest_error": self.largest_error}
        return {"base": dict(self.base), **facts, "quantized": self.tensors_quantized, "equal": self.tensors_equal}


def open_for_merge(
    name: str, store: Path | str, base: str | None, revision: str | None
) -> tuple[Published, Rounding | None]:
    """The adapter as `open_published` gives it, or on the proved original of its quantized base, with that proof.

    Raises:
        BaseMismatchError: the base is another one, or has another tokenizer or template than the quantized one.
        IntegrityError: the quantized base is not the rounding of `base`; it names the figures.
        InputMissingError: as `open_published`; or the quantized base, which the proof reads, is not here.
    """
    if base is None:
        return open_published(name, store, None, revision), None
    adapter = open_files(find_adapter(name, store))
    folder, commit = resolve_base(base, revision)
    own = fingerprint(folder)
    card = adapter.card
    is_other = own.weights != card.base.fingerprint.weights
    if "method" not in card.base.origin or not is_other or stored_quantization(folder) is not None:
        return with_base(adapter, base, revision), None
    if set(card.base.fingerprint.differing(own)) != {"weights"}:
        check_base(own, base, card, adapter.folder)
    quantized = _quantized_base(adapter)
    stored = stored_quantization(quantized.base)
    assert stored is not None, "its fingerprint is that of a base that is quantized on disk"
    rounding = prove_rounding(quantized.base, stored, folder, quantized)
    identity = replace(card.base, name=base, revision=commit, fingerprint=own, quantization="none", origin={})
    card = replace(card, base=identity, data=quantized.data)
    opened = Published(adapter.folder, card, adapter.contents, folder, base, commit)
    return opened, rounding


def _quantized_base(adapter: AdapterFiles) -> Published:
    try:
        return with_base(adapter)
    except InputMissingError as error:
        here = folder_with(adapter.card.base.fingerprint)
        if here is not None:
            return with_base(adapter, str(here))
        raise InputMissingError(
            f"the proof reads the quantized base {adapter.card.base.name!r}, and it is not here",
            where=error.where,
            fix=f"lora-med adapters verify {adapter.name} --base FOLDER-OF-THE-QUANTIZED-BASE, then merge again",
        ) from error


def prove_rounding(quantized: Path, stored: StoredQuantization, original: Path, adapter: Published) -> Rounding:
    """Compare every tensor of the quantized base with the original's.

    Raises:
        IntegrityError: the one is not the other's rounding.
    """
    tensors = quantized_tensors(quantized, stored)
    originals = read_headers(original)
    _check_names(tensors.kept, {weight.name for weight in tensors.weights}, originals, original)
    transposed = transposed_weights(quantized)
    largest, worst, beyond, count = 0.0, "", 0, 0
    for weight in tensors.weights:
        errors = _errors(weight, originals[weight.name], weight.name in transposed)
        error = float(errors.max()) if errors.numel() else 0.0
        beyond, count = beyond + int((errors > MOST_STEPS).sum()), count + errors.numel()
        if not error <= largest:
            largest, worst = error, weight.name
    if beyond:
        raise IntegrityError(
            f"the quantized base is not the rounding of its original: {beyond:,} of {count:,} weights differ by more "
            f"than one step of {stored}, the most by {largest:.3g} steps, in {worst!r}",
            where=str(original),
            fix=DEQUANTIZED,
        )
    equal = [_check_equal(kept, originals[name], original) for name, kept in tensors.kept.items() if name in originals]
    base = adapter.card.base
    return Rounding(
        base={"name": base.name, "revision": base.revision, "weights": base.fingerprint.weights},
        trained_on=base.quantization,
        quantization=str(stored),
        weights=count,
        tensors_quantized=len(tensors.weights),
        tensors_equal=len(equal),
        largest_error=round(largest, 4),
    )


def _check_names(
    kept: Mapping[str, Stored], quantized: set[str], originals: Mapping[str, Stored], folder: Path
) -> None:
    """Both must have the same tensors, but for a head that is tied, and biases of zeros that some tools add."""
    own = {*kept, *quantized}
    added = [name for name in kept if name not in originals and not _is_zero_bias(name, kept[name])]
    strange = [*added, *(name for name in quantized if name not in originals)]
    strange += [name for name in originals if name not in own]
    if read_json(folder / "config.json").get("tie_word_embeddings") is not False:
        strange = [name for name in strange if name != "lm_head.weight"]
    if strange:
        raise IntegrityError(
            f"the quantized base is not the rounding of its original: one of them lacks {len(strange)} tensors, such "
            f"as {sorted(strange)[0]!r}",
            where=str(folder),
            fix=DEQUANTIZED,
        )


def _is_zero_bias(name: str, stored: Stored) -> bool:
    return name.endswith(".bias") and not bool(read_tensor(stored).count_nonzero())


def _errors(weight: QuantizedWeight, original: Stored, transposed: bool) -> torch.Tensor:
    """The distance of each dequantized weight from the original's, in steps; infinite where a step is 0."""
    values = weight.values()
    exact = read_tensor(original).float()
    exact = exact.T if transposed else exact
    if exact.shape != values.numbers.shape:
        raise IntegrityError(
            f"{weight.name!r} is {list(values.numbers.shape)}, the original's {list(exact.shape)}",
            where=str(original.file),
            fix=DEQUANTIZED,
        )
    distance = (values.numbers - exact).abs_()
    errors = distance / values.steps()
    return torch.where(distance == 0, torch.zeros(()), errors).nan_to_num_(nan=math.inf)


def _check_equal(kept: Stored, original: Stored, folder: Path) -> str:
    own, exact = read_tensor(kept), read_tensor(original)
    if own.shape != exact.shape or not torch.equal(exact.to(own.dtype), own):
        raise IntegrityError(
            f"the quantized base is not the rounding of its original: {kept.name!r}, which is not quantized, differs",
            where=str(folder),
            fix=DEQUANTIZED,
        )
    return kept.name
