"""Bases that several threads load at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from transformers import PreTrainedModel

from lora_med.models.base import load_base
from tests.tiny import make_tiny


def test_bases_loaded_by_threads_at_once_keep_their_tied_heads(tmp_path: Path) -> None:
    folder, tie = make_tiny("gpt2", tmp_path), PreTrainedModel.tie_weights
    with ThreadPoolExecutor(8) as pool:
        bases = list(pool.map(lambda _: load_base(str(folder), dtype="float32"), range(24)))
    assert PreTrainedModel.tie_weights is tie
    models = [base.model for base in bases]
    assert all(model.get_output_embeddings().weight is model.get_input_embeddings().weight for model in models)
