"""Tiny bases of each family for llama.cpp: a vocabulary with merges, and the settings that its converter reads.

The converter reads names of settings from the folders that each family's authors published. transformers 5 writes
some of them under other names, or not at all. `PUBLISHED` adds them; a model is computed by the same numbers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.export.engines import merging_tokenizer
from tests.tiny_families import make_family

# Sizes of the configuration that llama.cpp takes for granted in a family.
SIZES: dict[str, dict[str, Any]] = {
    "mamba2": {"vocab_size": 272},  # a multiple of 16
    "phi": {"intermediate_size": 256},  # four times the width
    "qwen3_moe": {"norm_topk_prob": True},
    "llama4_text": {"num_hidden_layers": 4},  # every fourth layer has no rotation
}
# Settings in the config.json of the published models.
PUBLISHED: dict[str, dict[str, Any]] = {
    "bloom": {"seq_length": 2048},
}
SPECIAL = {"glm4": ["<|endoftext|>", "<|user|>", "<|observation|>"]}


def make_gguf_base(family: str, folder: Path) -> Path:
    """Write the base into `folder` and return its absolute path."""
    special = SPECIAL.get(family, [])
    tokenizer = merging_tokenizer(words=262)
    tokenizer.add_tokens(special, special_tokens=True)
    more = {**SIZES.get(family, {}), **({"vocab_size": len(tokenizer)} if special else {})}
    make_family(family, folder, tokenizer=tokenizer, loud=True, **more)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, **PUBLISHED.get(family, {})}, indent=2))
    return folder.resolve()
