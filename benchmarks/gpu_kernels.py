"""The kernels of a training step against their references: times of both, and the error of outputs and gradients.

A part of benchmarks/gpu.py. Documents of unequal lengths, packed in one row, in bfloat16. References: attention by
transformers' way, one call with a dense mask; the loss by the logits of every labeled token in float32; the adapters by
PEFT's own layers.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn.functional import cross_entropy, linear, scaled_dot_product_attention

Tensors = Sequence[torch.Tensor]
Action = Callable[[], Tensors]


def compare(
    name: str,
    ours: Action,
    reference: Action,
    rounds: int,
    around: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> dict[str, Any]:
    """Milliseconds of both in alternating runs, and how much their tensors differ at most.

    `around` is entered before ours, and its own time does not count: a run enters it once.
    """
    taken: dict[str, list[float]] = {"ours_ms": [], "reference_ms": []}
    results: dict[str, Tensors] = {}
    for _ in range(rounds + 1):  # the first is not counted
        for who, action, context in (("ours_ms", ours, around), ("reference_ms", reference, nullcontext)):
            with context():
                wait()
                started = time.perf_counter()
                results[who] = action()
                wait()
                taken[who].append((time.perf_counter() - started) * 1000)
    pairs = zip(results["ours_ms"], results["reference_ms"], strict=True)
    error = max(float((one.float() - other.float()).norm() / other.float().norm()) for one, other in pairs)
    return {"name": name, **{who: statistics.median(times[1:]) for who, times in taken.items()}, "error": error}


def wait() -> None:
    """Wait until the GPU has done what it was asked."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def attention(sizes: dict[str, Any], lengths: list[int], device: str, rounds: int) -> dict[str, Any]:
    """Attention of packed documents, forward and backward."""
    from lora_med.models.attention.per_document import per_document_attention

    heads, key_heads = sizes["num_attention_heads"], sizes["num_key_value_heads"]
    width = sizes["hidden_size"] // heads
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, count, sum(lengths), width) for count in (heads, key_heads, key_heads)]
    given = [torch.randn(shape, generator=generator).to(device, torch.bfloat16).requires_grad_() for shape in shapes]
    layer: Any = SimpleNamespace(num_key_value_groups=heads // key_heads)
    number = torch.repeat_interleave(torch.tensor(lengths)).to(device)
    mask = (number[:, None] == number[None]) & torch.ones(len(number), len(number), device=device).tril().bool()

    def gradients(output: torch.Tensor) -> Tensors:
        return [output.detach(), *torch.autograd.grad(output.float().square().sum(), given)]

    def ours() -> Tensors:
        documents = [(length,) for length in lengths]
        output = per_document_attention(layer, *given, None, document_lengths=documents)[0]
        return gradients(output.transpose(1, 2))

    def reference() -> Tensors:
        return gradients(scaled_dot_product_attention(*given, attn_mask=mask, enable_gqa=True))

    return compare(f"attention, {len(lengths)} documents of {sum(lengths)} tokens", ours, reference, rounds)


def loss(sizes: dict[str, Any], tokens: int, device: str, rounds: int) -> dict[str, Any]:
    """The loss of the labeled tokens, and its gradient."""
    from lora_med.training.step.loss import labeled_nll

    words, width = sizes["vocab_size"], sizes["hidden_size"]
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, width, generator=generator).to(device, torch.bfloat16).requires_grad_()
    head = torch.randn(words, width, generator=generator).to(device, torch.bfloat16) / width**0.5
    labels = torch.randint(words, (tokens,), generator=generator).to(device)

    def ours() -> Tensors:
        total = labeled_nll(hidden, head, labels)
        return total.detach()[None], *torch.autograd.grad(total, [hidden])

    def reference() -> Tensors:
        total = cross_entropy(linear(hidden, head).float(), labels, reduction="sum")
        return total.detach()[None], *torch.autograd.grad(total, [hidden])

    return compare(f"loss of {tokens} tokens over {words:,} words", ours, reference, rounds)


def adapters(folder: str, tokens: int, quantization: str, rounds: int) -> dict[str, Any]:
    """A model with adapters that are not zero, forward and backward, without dropout."""
    from lora_med.adapters.runtime.attach import attach_new
    from lora_med.config.schema import LoraSettings
    from lora_med.models.base import load_base
    from lora_med.training.step.fused_lora import fused_lora

    base = load_base(folder, quantization=quantization, dtype="bfloat16", attention="sdpa")
    model = attach_new(base, LoraSettings(lora_dropout=0.0), seed=0).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    ids = torch.arange(5, 5 + tokens)[None].to(next(model.parameters()).device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def pass_both_ways() -> Tensors:
        output = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits.float()
        return [output.detach(), torch.cat([part.flatten() for part in torch.autograd.grad(output.sum(), trained)])]

    form = "NF4" if quantization == "4bit" else "bfloat16"
    name = f"adapters of {len(trained) // 2} layers, {form}, {tokens} tokens"
    return compare(name, pass_both_ways, pass_both_ways, rounds, lambda: fused_lora(model))


def measure_kernels(sizes: dict[str, Any], folder: str, device: str, rounds: int, *, tiny: bool) -> dict[str, Any]:
    """All comparisons, as rows of a table."""
    lengths = [9, 40, 17] if tiny else [391, 127, 640, 220, 512, 158]
    tokens = 32 if tiny else 2048
    return {
        "kernels": [
            attention(sizes, lengths, device, rounds),
            loss(sizes, tokens, device, rounds),
            adapters(folder, tokens, "none", rounds),
            adapters(folder, tokens, "4bit", rounds),
        ]
    }
