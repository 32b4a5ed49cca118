"""The exact change that an adapter makes to each weight of its base: W -> factor * (W + up @ down), in fp64.

LoRA and rsLoRA have no factor. DoRA's factor is its magnitude divided by the norm of the updated weights, for each
output. It depends on the base's weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_med.adapters.tensors.contents import LowRank, read_contents
from lora_med.adapters.tensors.expert_update import expert_factors
from lora_med.adapters.tensors.target_tensors import find_tensor, is_conv1d, stored_transposed
from lora_med.adapters.tensors.weight_update import finite, row_factor
from lora_med.errors import IntegrityError, SettingsError
from lora_med.files import read_json
from lora_med.models.files.weight_files import Stored, open_stored, read_headers, read_rows
from lora_med.models.on_disk.dequantized_base import values_folder
from lora_med.models.structure.tensor_names import DiskNames


@dataclass(frozen=True)
class Delta:
    """One layer's change in fp64: `up` (outputs, r), scaled, `down` (r, inputs), `factor` and `bias` (outputs) or None.

    `embedding` is true if the layer is an embedding; its inputs are tokens.
    """

    up: Any
    down: Any
    factor: Any
    bias: Any
    embedding: bool

    def dense(self, weight: Any = None) -> Any:
        """factor * (W + up @ down) - W, (outputs, inputs); `weight` is required if there is a factor."""
        product = self.up @ self.down
        return product if self.factor is None else self.factor[:, None] * (weight + product) - weight


@dataclass(frozen=True)
class BaseWeights:
    """The weights of a base's layers, read on demand."""

    tensors: Mapping[str, Stored]
    conv1d: bool
    folder: Path
    names: DiskNames

    def read(self, low_rank: LowRank) -> Any:
        """The weight of an update's layer as (outputs, inputs), fp64.

        Raises:
            IntegrityError: the base lacks the layer, or its shape differs.
        """
        name = find_tensor(f"{low_rank.layer}.weight", self.tensors, self.names) or self._tied(low_rank)
        stored = self.tensors[name]
        transposed = stored_transposed(stored.dtype, stored.shape, low_rank, self.conv1d, self.folder)
        with open(stored.file, "rb") as handle:
            weight = read_rows(handle, stored).double()
        return weight.T if transposed else weight

    def _tied(self, low_rank: LowRank) -> str:
        ends = ("embed_tokens.weight", "wte.weight")
        embedding = next((name for name in self.tensors if name.endswith(ends)), None)
        if embedding is None or low_rank.layer != "lm_head":
            raise IntegrityError(f"the base has no tensor for layer {low_rank.layer!r}", where=str(self.folder))
        return embedding


def open_base(folder: Path) -> BaseWeights:
    """The weights of the base in `folder`, dequantized now if quantized on disk; otherwise only headers are read."""
    folder = values_folder(folder)
    tensors = read_headers(folder)
    return BaseWeights(tensors, is_conv1d(read_json(folder / "config.json")), folder, DiskNames(folder, tensors))


def read_updates(
    adapter: Path, files: Mapping[str, bytes] | None = None, *, base_folder: Path | None = None
) -> dict[str, LowRank]:
    """The updates of an adapter by layer.

    Args:
        files: the bytes of its files by name, if they are already in memory; no file is then opened.
        base_folder: the base's, which is read if the adapter updates routed experts.

    Raises:
        SettingsError: it holds more than updates, so it is not only a change of weights.
    """
    contents = read_contents(adapter, files, base_folder=base_folder)
    if not contents.plain:
        raise SettingsError(
            f"adapter {adapter.name!r} holds full layers or trained tokens, which cannot be combined or compared",
            where=str(adapter),
            fix=f"merge it: lora-med merge {adapter.name} --out FOLDER",
        )
    return dict(contents.low_rank)


def expert_deltas(low_rank: LowRank) -> list[Delta]:
    """The change that an update of routed experts makes, one for each expert.

    Raises:
        IntegrityError: a value is not finite.
    """
    up, down = (factor.double() for factor in expert_factors(low_rank))
    pairs = zip(up * low_rank.scale, down, strict=True)
    return [Delta(outer, inner, None, None, False) for outer, inner in pairs]


def delta_of(low_rank: LowRank, weight: Any) -> Delta:
    """The change that an update makes; `weight` (outputs, inputs) is used only for DoRA.

    Raises:
        IntegrityError: a value is not finite.
    """
    with open_stored(low_rank.up) as handle:
        up = finite(read_rows(handle, low_rank.up), low_rank.up).double() * low_rank.scale
        down = finite(read_rows(handle, low_rank.down), low_rank.down).double()
        bias = None
        if low_rank.bias is not None:
            bias = finite(read_rows(handle, low_rank.bias), low_rank.bias).double() * low_rank.scale
        factor = None
        if low_rank.magnitude is not None:
            magnitude = finite(read_rows(handle, low_rank.magnitude), low_rank.magnitude).double().reshape(-1)
            factor = row_factor(magnitude, (weight + up @ down).norm(dim=1))
    return Delta(up, down, factor, bias, "lora_embedding_" in low_rank.down.name)
