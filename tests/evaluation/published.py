"""A published adapter with random weights, for tests that need one and not its training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lora_med.adapters.runtime.attach import attach_new
from lora_med.adapters.store.card import DataFacts
from lora_med.adapters.store.store import publish
from lora_med.config.schema import LoraSettings
from lora_med.models.base import Base, load_base


def publish_random(
    base_folder: Path,
    name: str,
    store: Path,
    *,
    seed: int = 1,
    quantization: str = "none",
    source: str = "custom",
    template: str = "text",
    access: str = "open",
    settings: dict[str, Any] | None = None,
    **lora: Any,
) -> Path:
    """Publish adapter `name` of rank 4 whose weights are large enough to matter; returns its folder."""
    base = load_base(str(base_folder), quantization=quantization, dtype="float32")
    options = {"seed": seed, "source": source, "template": template, "access": access, "settings": settings}
    return publish_on(base, name, store, **options, **lora)


def publish_on(
    base: Base,
    name: str,
    store: Path,
    *,
    seed: int = 1,
    source: str = "custom",
    template: str = "text",
    access: str = "open",
    settings: dict[str, Any] | None = None,
    **lora: Any,
) -> Path:
    """The same for a base that is loaded."""
    model = attach_new(base, LoraSettings(r=4, lora_alpha=8, **lora), seed=seed)
    torch.manual_seed(seed)
    for key, weight in model.named_parameters():
        if "lora_A" in key or "lora_B" in key:
            weight.data = torch.randn_like(weight) * 0.15
    return publish(
        model,
        base=base,
        name=name,
        store=store,
        template=template,
        data=DataFacts(source, "CC BY 4.0", access),
        settings=settings or {},
    )
