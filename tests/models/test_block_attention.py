"""The backward pass by matrix products gives torch's gradients, and no document reaches another."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lora_med.models.attention import block_attention
from lora_med.models.attention.per_document import per_document_attention

MULTIPLIES_BFLOAT16 = block_attention._multiplies_bfloat16  # the cached function itself, not what a test puts there

DOCUMENTS: dict[str, list[tuple[int, ...]]] = {
    "one token": [(1,)],
    "short": [(5,)],
    "longer than a block": [(2 * block_attention.BLOCK + 3,)],
    "several": [(100,), (1,), (64,), (300,), (65,)],
    "shared prefixes": [(130, 70, 64, 1, 128), (40,), (3, 2, 2)],
    "a shared prefix of more than a block": [(290, 200, 180)],
}
HEADS = {"a key each": (4, 4, 16), "shared": (6, 2, 64), "a scale that is no power of two": (4, 2, 24)}


def tensors(lengths: list[tuple[int, ...]], heads: str, dtype: torch.dtype, spread: float = 1.0) -> list[torch.Tensor]:
    """Query, key, value and the gradient of the output, laid out in memory as a model has them."""
    asking, answering, size = HEADS[heads]
    tokens = sum(map(sum, lengths))
    generator = torch.Generator().manual_seed(0)
    counts = (asking, answering, answering, asking)
    made = [torch.randn(1, tokens, count, size, generator=generator).transpose(1, 2) for count in counts]
    return [(one * spread if place < 2 else one).to(dtype) for place, one in enumerate(made)]


def gradients(attend: Any, given: list[torch.Tensor]) -> list[torch.Tensor]:
    """The output, and the gradients of query, key and value."""
    inputs = [one.detach().clone().requires_grad_() for one in given[:3]]
    output = attend(*inputs)
    output.backward(given[3])
    return [output.detach(), *(one.grad for one in inputs)]  # type: ignore[misc]


def torchs(lengths: list[tuple[int, ...]], given: list[torch.Tensor], **options: Any) -> list[torch.Tensor]:
    """The output and the gradients of torch's own attention, each document by itself."""
    layer: Any = SimpleNamespace(num_key_value_groups=given[0].shape[1] // given[1].shape[1])

    def attend(*inputs: torch.Tensor) -> torch.Tensor:
        return per_document_attention(layer, *inputs, None, document_lengths=lengths, **options)[0].transpose(1, 2)

    return gradients(attend, given)


def ours(lengths: list[tuple[int, ...]], given: list[torch.Tensor], scale: float | None = None) -> list[torch.Tensor]:
    return gradients(lambda *inputs: block_attention.attend(*inputs, lengths, scale), given)


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The distance beside the length; of one token the gradient of the query is 0, and only rounding is left."""
    return float((one.float() - other).norm() / other.norm().clamp(min=1.0))


@pytest.fixture(autouse=True)
def _torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test compares with is torch's, also on a machine with matrix units."""
    monkeypatch.setattr(block_attention, "_multiplies_bfloat16", lambda: False)


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_in_float32_the_gradients_are_torchs(name: str, heads: str) -> None:
    given = tensors(DOCUMENTS[name], heads, torch.float32)
    for mine, other in zip(ours(DOCUMENTS[name], given), torchs(DOCUMENTS[name], given), strict=True):
        assert mine.shape == other.shape
        assert apart(mine, other) < 5e-6


@pytest.mark.parametrize("spread", [1.0, 4.0])
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_in_bfloat16_the_gradients_are_as_exact_as_torchs(name: str, heads: str, spread: float) -> None:
    """With scores that are close to each other, and with scores of which one outweighs the rest."""
    lengths = DOCUMENTS[name]
    given = tensors(lengths, heads, torch.bfloat16, spread)
    exact = torchs(lengths, [one.float() for one in given])
    for mine, other, true in zip(ours(lengths, given), torchs(lengths, given), exact, strict=True):
        assert mine.dtype == torch.bfloat16
        assert apart(mine, true) < 1.5 * apart(other, true) + 2**-8


def test_scores_that_would_overflow_hidden_behind_a_query_do_no_harm() -> None:
    lengths = [(70,), (20,)]
    given = tensors(lengths, "shared", torch.float32)
    given[1][:, :, 60:] *= 1000  # late keys: to early queries they would be e^1000
    for mine, other in zip(ours(lengths, given), torchs(lengths, given), strict=True):
        assert bool(torch.isfinite(mine).all())
        assert apart(mine, other) < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_document_reaches_another(dtype: torch.dtype) -> None:
    lengths = [(70, 30, 20), (90,)]
    given = tensors(lengths, "shared", dtype)
    changed = [one.clone() for one in given]
    for one in changed:
        one[:, :, 120:] = 7
    one, other = ours(lengths, given), ours(lengths, changed)
    for mine, same in zip(one, other, strict=True):
        assert torch.equal(mine[:, :, :120], same[:, :, :120])
    assert not torch.equal(one[1][:, :, 120:], other[1][:, :, 120:])


def test_it_is_taken_where_it_pays_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_attention, "_multiplies_bfloat16", lambda: True)
    query = torch.zeros(1, 1, 4, 16, dtype=torch.bfloat16, requires_grad=True)
    assert block_attention.pays(query, query)
    assert not block_attention.pays(query, query[..., :8])
    assert not block_attention.pays(query.detach(), query)
    assert not block_attention.pays(query.detach().float().requires_grad_(), query)
    with torch.no_grad():
        assert not block_attention.pays(query, query)
    monkeypatch.setattr(block_attention, "_multiplies_bfloat16", lambda: False)
    assert not block_attention.pays(query, query)


@pytest.mark.parametrize(
    ("instructions", "taken"), [("avx512_bf16", True), ("amx_bf16", True), ("avx2", False), ("avx512_f", False)]
)
def test_it_is_taken_on_cpus_that_multiply_bfloat16(
    instructions: str, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instructions: True}, raising=False)
    monkeypatch.setattr(block_attention, "_multiplies_bfloat16", MULTIPLIES_BFLOAT16.__wrapped__)
    query = torch.zeros(1, 1, 4, 16, dtype=torch.bfloat16, requires_grad=True)
    assert block_attention.pays(query, query) is taken


@pytest.mark.parametrize(
    ("options", "taken"),
    [({}, True), ({"dropout": 0.5}, False), ({"sliding_window": 8}, False), ({"sliding_window": 16}, True)],
)
def test_what_it_cannot_do_torch_does(options: dict[str, Any], taken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    attend = block_attention.attend
    monkeypatch.setattr(block_attention, "_multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(block_attention, "attend", lambda *given: calls.append(1) or attend(*given))
    lengths = [(16,), (5,)]
    layer: Any = SimpleNamespace(num_key_value_groups=3)
    query, key, value, _ = tensors(lengths, "shared", torch.bfloat16)
    per_document_attention(layer, query.requires_grad_(), key, value, None, document_lengths=lengths, **options)
    assert bool(calls) is taken


def test_a_scale_of_the_models_own() -> None:
    lengths = [(40,), (30, 8, 9)]
    given = tensors(lengths, "shared", torch.float32)
    scale = 0.3 / math.sqrt(64)
    for mine, other in zip(ours(lengths, given, scale), torchs(lengths, given, scaling=scale), strict=True):
        assert apart(mine, other) < 5e-6
