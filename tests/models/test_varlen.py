"""The GPU's kernel for rows of many lengths is asked for what each document is to see, and gives it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lora_med.models.attention import varlen
from lora_med.models.attention.per_document import per_document_attention

torchs = pytest.importorskip("torch.nn.attention.varlen")  # from torch 2.10 on
LENGTHS = (5, 1, 40, 17)


def dense(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    offsets: torch.Tensor,
    key_offsets: torch.Tensor,
    longest: int,
    longest_key: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> torch.Tensor:
    """What torch documents of `varlen_attn`, by one dense mask: (tokens, heads, size), window (left, right)."""
    assert torch.equal(offsets, key_offsets)
    assert offsets.dtype == torch.int32
    assert longest == longest_key == int(offsets.diff().max())
    left, right = window_size
    assert right == 0
    number = torch.repeat_interleave(offsets.diff().long())
    distance = torch.arange(len(number))[:, None] - torch.arange(len(number))[None]
    seen = (number[:, None] == number[None]) & (distance >= 0)
    if left >= 0:
        seen &= distance <= left
    if key.shape[1] != query.shape[1]:
        assert enable_gqa
    found = torch.nn.functional.scaled_dot_product_attention(
        *(one.transpose(0, 1)[None] for one in (query, key, value)),
        attn_mask=seen,
        scale=scale,
        enable_gqa=enable_gqa,
    )
    return found[0].transpose(0, 1)


def tensors(heads: int = 6, sharing: int = 3, **options: Any) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    counts = (heads, heads // sharing, heads // sharing)
    return [
        torch.randn(1, count, sum(LENGTHS), 16, generator=generator).to(**options).requires_grad_() for count in counts
    ]


def gradients(attend: Callable[..., torch.Tensor], given: list[torch.Tensor]) -> list[torch.Tensor]:
    output = attend(*given)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(output)
    return [output.detach(), *torch.autograd.grad((output * weights).sum(), given)]


def per_document(window: int | None) -> Callable[..., torch.Tensor]:
    layer: Any = SimpleNamespace(num_key_value_groups=3)
    lengths = [(length,) for length in LENGTHS]

    def attend(*given: torch.Tensor) -> torch.Tensor:
        return per_document_attention(layer, *given, None, document_lengths=lengths, sliding_window=window)[0]

    return attend


@pytest.mark.parametrize("window", [None, 4, 40, 100])
def test_the_kernel_is_asked_for_what_each_document_sees(monkeypatch: pytest.MonkeyPatch, window: int | None) -> None:
    expected = gradients(per_document(window), tensors())
    monkeypatch.setattr(torchs, "varlen_attn", dense)
    found = gradients(lambda *given: varlen.attend(*given, LENGTHS, scaling=None, window=window), tensors())
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_what_the_kernel_does_not_take_goes_elsewhere() -> None:
    assert varlen.fits(torch.bfloat16, 64, 64, 0.0)
    assert varlen.fits(torch.float16, 256, 256, 0.0)
    assert not varlen.fits(torch.float32, 64, 64, 0.0)
    assert not varlen.fits(torch.bfloat16, 64, 64, 0.1)
    assert not varlen.fits(torch.bfloat16, 192, 128, 0.0)
    assert not varlen.fits(torch.bfloat16, 20, 20, 0.0)
    assert not varlen.fits(torch.bfloat16, 264, 264, 0.0)
    query, _, value = tensors(dtype=torch.bfloat16)
    assert not varlen.takes(query, value, dropout=0.0)  # not on a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("window", [None, 4])
def test_on_a_gpu_it_gives_what_each_document_gives_alone(window: int | None) -> None:
    expected = gradients(per_document(window), tensors(device="cuda"))
    given = tensors(device="cuda", dtype=torch.bfloat16)
    assert varlen.takes(given[0], given[2], dropout=0.0)
    for one, other in zip(gradients(per_document(window), given), expected, strict=True):
        assert float((one.float() - other).norm() / other.norm()) < 0.01
