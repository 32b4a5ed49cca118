"""Every method on every kind of base against PEFT's own logits, alone and row by row in one batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lora_med.adapters.runtime.attach import attach
from lora_med.adapters.runtime.pool import AdapterPool
from lora_med.adapters.runtime.swap import load_many, use
from lora_med.models.base import Base, load_base
from tests.adapters.conftest import logits, put, train
from tests.adapters.test_swap import NAMES, logits_with, truth_of
from tests.tiny import make_model, make_tiny

METHODS = {
    "dora": {"use_dora": True},
    "plain": {},
    "rslora": {"use_rslora": True, "r": 8, "lora_alpha": 12},
    "patterns": {
        "rank_pattern": {".*(q_proj|c_attn)": 2},
        "alpha_pattern": {".*(q_proj|c_attn)": 7},
        "layers_to_transform": [1],
    },
}


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bases of three families, gpt2 with biases, each with an adapter of every method in `<family>_store`."""
    folder = tmp_path_factory.mktemp("families")
    for family in ("llama", "gpt2", "qwen3"):
        make_tiny(family, folder / family)
        if family == "gpt2":  # the biases of a new model are all zero
            model = make_model(family)
            for number, (name, one) in enumerate(model.named_parameters()):
                if name.endswith("bias"):
                    torch.nn.init.normal_(one, generator=torch.Generator().manual_seed(number))
            model.save_pretrained(folder / family)
        for name, lora in METHODS.items():
            base = load_base(str(folder / family), quantization="none", dtype="float32")
            put(train(base, store=folder / f"{family}_store", **lora), base, name, folder / f"{family}_store")
    return folder


@pytest.mark.parametrize(
    ("quantization", "dtype", "tolerance"),
    [("none", "float32", 1e-5), ("none", "bfloat16", 0.02), ("4bit", "float32", 1e-5), ("4bit", "bfloat16", 0.02)],
)
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_every_method_gives_pefts_logits_alone_and_in_a_mixed_batch(
    family: str, quantization: str, dtype: str, tolerance: float, families: Path
) -> None:
    def load() -> Base:
        return load_base(str(families / family), quantization=quantization, dtype=dtype)

    truth = truth_of(load, list(METHODS), families / f"{family}_store")
    with load_many(load(), list(METHODS), families / f"{family}_store") as pool:
        names = [None, *METHODS, None, "dora"]
        for name in METHODS:
            assert (truth[name] - truth[None]).abs().max() > 0.1
            assert (logits_with(pool, name) - truth[name]).abs().max() < tolerance
        for tokens in (1, 6, 20):  # a decoding step, few tokens, and rows long enough to be run adapter by adapter
            ids = torch.randint(5, 260, (len(names), tokens), generator=torch.Generator().manual_seed(tokens))
            with torch.inference_mode():
                bare = pool.model(input_ids=ids).logits
                with use(pool, names) as model:
                    mixed = model(input_ids=ids).logits
                for row, name in enumerate(names):
                    with use(pool, name) as model:
                        alone = model(input_ids=ids).logits[row]
                    assert (mixed[row] - alone).abs().max() < tolerance
                    if name is None:
                        assert torch.equal(mixed[row], bare[row])


def test_under_autocast_the_logits_are_those_of_peft(llama: Path, shelf: Path) -> None:
    def load() -> Base:
        return load_base(str(llama), quantization="none", dtype="float32")

    with load_many(load(), NAMES, shelf) as pool, torch.autocast("cpu", dtype=torch.bfloat16):
        names = [None, *NAMES]
        with use(pool, names) as model, torch.inference_mode():
            mixed = model(input_ids=torch.tensor([[1, 50, 60, 70, 80, 90]] * 4)).logits
        for row, name in enumerate(NAMES):
            expected = logits(attach(load(), name, shelf))
            assert (logits_with(pool, name) - expected).abs().max() < 0.03
            assert (mixed[row + 1] - expected[0]).abs().max() < 0.03


@pytest.mark.parametrize("tokens", [3, 12])
@pytest.mark.parametrize("quantization", ["none", "4bit"])
def test_input_gradients_pass_through_a_mixed_batch(tokens: int, quantization: str, llama: Path, shelf: Path) -> None:
    """An adapter first loaded under inference mode serves a caller who wants gradients, as PEFT does."""

    def load() -> Base:
        return load_base(str(llama), quantization=quantization, dtype="float32")

    expected = []
    words = torch.randn(1, tokens, 64, generator=torch.Generator().manual_seed(1))
    for name in ("abstracts", "dora"):
        one = words.clone().requires_grad_()
        attach(load(), name, shelf)(inputs_embeds=one).logits.sum().backward()
        expected.append(one.grad)
    pool = AdapterPool(load(), shelf)
    with torch.inference_mode(), use(pool, ["abstracts", "dora"]) as model:
        model(inputs_embeds=words.expand(2, tokens, 64))
    both = words.repeat(2, 1, 1).requires_grad_()
    with use(pool, ["abstracts", "dora"]) as model:
        model(inputs_embeds=both).logits.sum().backward()
    assert both.grad is not None
    assert torch.allclose(both.grad, torch.cat(expected), atol=1e-4)
