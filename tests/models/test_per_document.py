"""Documents packed into one row get the logits they get alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.masking_utils import sdpa_mask

from lora_med.models.attention import per_document as attention
from lora_med.models.attention.per_document import NAME, no_mask, per_document_attention, register_attention
from tests.tiny import make_model

LENGTHS = (7, 1, 19, 12)


def packed_inputs(documents: list[torch.Tensor]) -> dict[str, Any]:
    lengths = torch.tensor([len(document) for document in documents])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int32), lengths.cumsum(0).to(torch.int32)])
    return {
        "input_ids": torch.cat(documents)[None],
        "position_ids": torch.cat([torch.arange(int(length)) for length in lengths])[None],
        "attention_mask": torch.ones(1, int(lengths.sum()), dtype=torch.long),
        "cu_seq_lens_q": offsets,
        "cu_seq_lens_k": offsets,
        "max_length_q": int(lengths.max()),
        "max_length_k": int(lengths.max()),
        "use_cache": False,
    }


def documents(lengths: tuple[int, ...] = LENGTHS) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(5, 264, (length,), generator=generator) for length in lengths]


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gemma", "phi3", "gpt2"])
def test_packed_logits_equal_separate_ones(family: str) -> None:
    model = make_model(family)
    texts = documents()
    with torch.no_grad():
        alone = torch.cat([model(input_ids=text[None]).logits[0] for text in texts])
        model.set_attn_implementation(register_attention())
        together = model(**packed_inputs(texts)).logits[0]
    assert (together - alone).abs().max() < 1e-6


def test_gradients_of_a_packed_row_are_the_sum_of_separate_ones() -> None:
    model = make_model("llama", layers=3).train()
    texts = documents()
    for text in texts:
        model(input_ids=text[None]).logits.square().sum().backward()
    alone = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model.set_attn_implementation(register_attention())
    model(**packed_inputs(texts)).logits.square().sum().backward()
    for parameter, expected in zip(model.parameters(), alone, strict=True):
        assert torch.allclose(parameter.grad, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_a_sliding_window_holds_inside_each_document() -> None:
    model = make_model("mistral")
    model.config.sliding_window = 5
    for layer in model.model.layers:
        layer.self_attn.sliding_window = 5
    texts = documents()
    with torch.no_grad():
        alone = torch.cat([model(input_ids=text[None]).logits[0] for text in texts])
        model.set_attn_implementation(register_attention())
        together = model(**packed_inputs(texts)).logits[0]
        model.config.sliding_window = None
    assert (together - alone).abs().max() < 1e-6


def test_generation_and_padded_batches_are_those_of_sdpa() -> None:
    model = make_model("llama")
    ids = torch.stack(documents((9, 9)))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    with torch.no_grad():
        before = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=5, do_sample=False)
        model.set_attn_implementation(register_attention())
        after = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=5, do_sample=False)
    assert model.config._attn_implementation == NAME
    assert torch.equal(before, after)


def test_a_mask_as_large_as_a_document_is_not_cached() -> None:
    """Counting activations runs attention on tensors without memory: no mask of theirs may come back later."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    query = torch.randn(1, 2, 12, 4)
    options = {"document_lengths": [(12,)], "sliding_window": 5}
    module = torch.nn.Module()
    expected = per_document_attention(module, query, query, query, None, **options)[0]
    with FakeTensorMode(allow_non_fake_inputs=True):
        empty = torch.empty(1, 2, 13, 4)
        per_document_attention(module, empty, empty, empty, None, **{**options, "document_lengths": [(13,)]})
    assert torch.equal(per_document_attention(module, query, query, query, None, **options)[0], expected)
    longer = torch.randn(1, 2, 13, 4)
    found = per_document_attention(module, longer, longer, longer, None, **{**options, "document_lengths": [(13,)]})[0]
    assert bool(torch.isfinite(found).all())


def test_no_mask_is_made_for_a_packed_row_of_a_model_with_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("mistral")
    model.config.sliding_window = 5
    for layer in model.model.layers:
        layer.self_attn.sliding_window = 5
    model.set_attn_implementation(register_attention())
    made = []
    monkeypatch.setattr(attention, "sdpa_mask", lambda **options: made.append(sdpa_mask(**options)) or made[-1])
    given = packed_inputs(documents())
    with torch.no_grad():
        expected = model(**given).logits
        assert made.pop().shape[-2:] == (sum(LENGTHS), sum(LENGTHS))
        with no_mask():
            assert torch.equal(model(**given).logits, expected)
        assert not made
        model(**given)
        assert made
