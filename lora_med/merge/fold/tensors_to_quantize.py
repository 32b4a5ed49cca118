"""The tensors of a base that transformers quantizes while it loads them."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from lora_med.adapters.tensors.target_tensors import find_tensor
from lora_med.models.skeleton import skeleton
from lora_med.models.structure.quantized_layers import quantized_layers
from lora_med.models.structure.tensor_names import DiskNames


def tensors_to_quantize(base: Path, tensors: Container[str], disk: DiskNames) -> dict[str, bool]:
    """The names of the weights that are quantized, and whether each is transposed first."""
    layers = quantized_layers(skeleton(base))
    transposed_by_name = {find_tensor(f"{layer.name}.weight", tensors, disk): layer.transposed for layer in layers}
    return {name: transposed for name, transposed in transposed_by_name.items() if name is not None}
