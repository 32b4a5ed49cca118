"""A real small Llama that we did not make, where it is at hand: identity, 4 bits, an adapter there and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lora_med.adapters.runtime.attach import attach
from lora_med.adapters.store.verify import verify
from lora_med.models.base import load_base
from tests.adapters.conftest import logits, put, train

STORIES = Path(__file__).parents[3] / "shared" / "data" / "models" / "stories260K"


@pytest.mark.skipif(not STORIES.is_dir(), reason="the real small models are not here")
def test_an_adapter_of_a_real_base_comes_back_the_same(tmp_path: Path) -> None:
    base = load_base(str(STORIES), quantization="4bit")
    assert base.tokenizer.pad_token_id not in (None, base.tokenizer.eos_token_id)
    text = "Once upon a time, there was a little girl named Lily."
    assert base.tokenizer.decode(base.tokenizer(text).input_ids, skip_special_tokens=True).strip() == text
    model = train(base, store=tmp_path)
    folder = put(model, base, "stories", tmp_path)
    assert verify(folder, str(STORIES)).intact
    fresh = attach(load_base(str(STORIES), quantization="4bit"), "stories", tmp_path)
    assert torch.equal(logits(fresh), logits(model))
