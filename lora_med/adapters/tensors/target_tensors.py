"""The target tensor of an adapter's update in the base, and whether the base stores it as (in, out)."""

from __future__ import annotations

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from lora_med.adapters.tensors.contents import LowRank
from lora_med.errors import IntegrityError
from lora_med.models.files.weight_files import FLOATS
from lora_med.models.structure.tensor_names import DiskNames

CONV1D_MODELS = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")


def is_conv1d(config: Mapping[str, Any]) -> bool:
    """Whether a base's config.json describes a family whose linear layers are stored as (in, out)."""
    return config.get("model_type") in CONV1D_MODELS


def find_tensor(name: str, tensors: Container[str], disk: DiskNames | None = None) -> str | None:
    """The base's name of a tensor; some checkpoints, such as the original GPT-2, omit the first part.

    Args:
        disk: the names in the base's files, where these may differ further.
    """
    direct = next((candidate for candidate in (name, name.partition(".")[2]) if candidate in tensors), None)
    mapped = disk.of(name) if direct is None and disk is not None else None
    return mapped if mapped is not None and mapped in tensors else direct


def stored_transposed(dtype: str, shape: tuple[int, ...], low_rank: LowRank, conv1d: bool, adapter: Path) -> bool:
    """Whether the base stores (in, out), by its shape; for a square layer, by the model family.

    Raises:
        IntegrityError: the update fits in neither orientation.
    """
    down, up = low_rank.down, low_rank.up
    wanted = (up.shape[0], down.shape[1])
    if dtype in FLOATS and shape == wanted == wanted[::-1]:
        return conv1d or "lora_embedding" in up.name
    if dtype in FLOATS and shape in (wanted, wanted[::-1]):
        return shape != wanted
    raise IntegrityError(
        f"layer {low_rank.layer!r}: an update {up.shape} x {down.shape} does not fit the base's {dtype} {shape}",
        where=str(adapter),
        fix="this adapter was trained on another base",
    )
