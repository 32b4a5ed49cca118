"""Causal attention whose backward pass is matrix products, for CPUs that multiply bfloat16 (AMX, AVX512-BF16).

torch's own backward pass on a CPU works on small blocks and converts each to the format of the products. In a LoRA
step on a 135 M model it is the largest single part. Here a block is 256 queries, all heads that share a key at once,
and all keys they see. The softmax is recomputed from the forward pass's log-sum-exp. That is part of the products, as
three more columns (its three bfloat16 digits). So scores come out of the product normalized, and nothing is written
twice.

A token of a long document has small probabilities, and bfloat16 resolves exp(x) worst where x is far from 0. So half of
log(number of keys) is added to the exponent, as a power of two. It is removed from the incoming gradient, where it is
exact.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lora_med.models.precision import bfloat16_instructions

BLOCK = 256  # queries computed together
STEP = 64  # lengths are rounded up to a multiple, because the library prepares a product for each new shape
DIGITS = 3  # bfloat16 numbers that add up to a float32
COLUMNS = 32  # added to the width of a row, for the digits: a matrix unit takes 32 columns at a time
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
Lengths = Sequence[tuple[int, ...]]


def pays(query: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether a gradient is needed and these products are faster: in bfloat16 on a CPU with instructions for it.

    Value heads narrower than the query's, as some families have, are not supported.
    """
    fits = torch.is_grad_enabled() and query.requires_grad and value.shape[-1] == query.shape[-1]
    return fits and query.device.type == "cpu" and query.dtype == torch.bfloat16 and _multiplies_bfloat16()


@functools.cache
def _multiplies_bfloat16() -> bool:
    return bool(bfloat16_instructions())


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Lengths, scale: float | None = None
) -> torch.Tensor:
    """Causal attention of documents laid end to end, each seeing only itself.

    Args:
        query: shape (1, heads, tokens, head size); `key` and `value` may have fewer heads.
        lengths: of each document; for a shared prefix, the lengths of the prefix and its continuations.
        scale: of the scores; 1 / sqrt(head size) if None.

    Returns:
        Shape (1, heads, tokens, head size), in memory tokens before heads.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return _Attention.apply(query, key, value, tuple(lengths), scale)  # type: ignore[no-any-return]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Lengths, scale: float
    ) -> torch.Tensor:
        output, normalizer = _forward(query, key, value, lengths, scale)
        ctx.save_for_backward(query, key, value, output, normalizer)
        ctx.lengths, ctx.scale = lengths, scale
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        query, key, value, output, normalizer = ctx.saved_tensors
        products = _Backward(query, key, value, output, normalizer, gradients[0], ctx.lengths, ctx.scale)
        return *products.run(), None, None


def _forward(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Lengths, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The output, and the log-sum-exp of the scores, shape (1, heads, tokens), float32."""
    flash = functools.partial(torch.ops.aten._scaled_dot_product_flash_attention_for_cpu, scale=scale)
    sharing = query.shape[1] // key.shape[1]
    if sharing > 1:
        key, value = key.repeat_interleave(sharing, 1), value.repeat_interleave(sharing, 1)
    results = []
    for segment in _segments(lengths):
        own = slice(segment.first, segment.first + segment.length)
        tensors = query[:, :, own], key[:, :, own], value[:, :, own]
        if not segment.continuations:
            results.append(flash(*tensors, 0.0, True))
            continue
        split = [tensor.split(segment.continuations, 2) for tensor in tensors]
        each = [flash(*continuation, 0.0, True) for continuation in zip(*split, strict=True)]
        within = tuple(torch.cat(outcome, 2) for outcome in zip(*each, strict=True))
        before = slice(segment.first - segment.prefix, segment.first)
        to_prefix = flash(query[:, :, own], key[:, :, before], value[:, :, before], 0.0, False)
        results.append(_combined(within, to_prefix))
    outputs, normalizers = zip(*results, strict=True)
    shape = query.shape[0], query.shape[2], query.shape[1], query.shape[3]
    output = torch.cat([output.transpose(1, 2) for output in outputs], 1).view(shape).transpose(1, 2)
    return output, torch.cat(normalizers, 2)


def _combined(first: tuple[torch.Tensor, ...], second: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """The attention over two sets of keys, from the output and the log-sum-exp over each."""
    total = torch.logaddexp(first[1], second[1])
    outputs = [output * (normalizer - total).exp()[..., None] for output, normalizer in (first, second)]
    return (outputs[0] + outputs[1]).to(first[0].dtype), total


class _Backward:
    """The gradients of query, key and value; the packed inputs of the products are shared by all documents.

    A packed row is one token for one key head; the `sharing` query heads of a key are consecutive rows. Rows of zeros
    follow the last token, so that a block may extend past the end.
    """

    def __init__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        output: torch.Tensor,
        normalizer: torch.Tensor,
        gradient: torch.Tensor,
        lengths: Lengths,
        scale: float,
    ) -> None:
        _, self.heads, self.tokens, self.size = query.shape
        self.groups = key.shape[1]
        self.sharing = self.heads // self.groups
        self.lengths, self.scale = lengths, scale
        # The power of two in the scale is exact in the queries; the remaining factor is applied to the scores.
        self.exact = 2.0 ** math.floor(math.log2(scale))
        self.rest = scale / self.exact
        exponent = _half_log2(lengths)[:, None]
        weight = torch.exp2(-exponent)
        incoming = gradient[0].transpose(0, 1)  # tokens, heads, size
        delta = (incoming.float() * output[0].transpose(0, 1)).sum(-1) * weight
        shift = (exponent * math.log(2) - normalizer[0].t()) / self.rest
        self.queries = self._packed_queries(query[0].transpose(0, 1) * self.exact, shift)
        self.incoming = self._packed_queries(incoming * weight[..., None].to(query.dtype), -delta)
        self.keys = self._packed_keys(key)
        self.values = self._packed_keys(value)
        self.for_query = query.new_empty(self.tokens, self.groups, self.sharing, self.size)
        self.for_key = torch.zeros(self.groups, self.tokens + STEP, self.size)
        self.for_value = torch.zeros_like(self.for_key)
        longest = max(segment.length + segment.prefix for segment in _segments(lengths)) + 2 * STEP
        self.scratch = query.new_empty(2, self.groups * self.sharing * BLOCK * longest)

    def _packed_queries(self, rows: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
        """Shape (groups, tokens x sharing, columns): the rows, and behind them the digits of `more`."""
        packed = rows.new_zeros(self.groups, self.tokens + STEP, self.sharing, self.size + COLUMNS)
        inner = packed[:, : self.tokens].transpose(0, 1)
        inner[..., : self.size] = rows.unflatten(1, (self.groups, self.sharing))
        for digit in range(DIGITS):
            column = inner[..., self.size + digit]
            column.copy_(more.unflatten(1, (self.groups, self.sharing)))
            more = more - column.flatten(1).float()
        return packed.flatten(1, 2)

    def _packed_keys(self, rows: torch.Tensor) -> torch.Tensor:
        packed = rows.new_zeros(self.groups, self.tokens + STEP, self.size + COLUMNS)
        packed[:, : self.tokens, : self.size] = rows[0]
        packed[:, : self.tokens, self.size : self.size + DIGITS] = 1
        return packed

    def run(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The gradients, of the shapes and dtype of query, key and value."""
        for segment in _segments(self.lengths):
            for offset in range(0, segment.length, BLOCK):
                self._block(segment, offset, min(BLOCK, segment.length - offset))
        inward = self.for_query.flatten(1, 2).transpose(0, 1)[None]
        dtype = inward.dtype
        return (
            inward,
            self.for_key[None, :, : self.tokens].to(dtype),
            self.for_value[None, :, : self.tokens].to(dtype),
        )

    def _block(self, segment: Segment, offset: int, count: int) -> None:
        """Add the gradients from `count` queries, `offset` tokens into a segment."""
        rows = _round_up(count)
        first, prefix = segment.first, segment.prefix
        start, end = first + offset, first + offset + rows
        before = _round_up(prefix)
        spans = [(first - prefix, first - prefix + before), (first, end)]
        low, high = start * self.sharing, end * self.sharing
        queries, incoming = (packed[:, low:high].contiguous() for packed in (self.queries, self.incoming))
        keys, values = (
            torch.cat([packed[:, low:high] for low, high in spans], 1) if before else packed[:, first:end]
            for packed in (self.keys, self.values)
        )
        shape = self.groups, rows * self.sharing, keys.shape[1]
        weights, scores = (buffer[: math.prod(shape)].view(shape) for buffer in self.scratch)
        torch.bmm(queries, keys.transpose(1, 2), out=weights)
        if self.rest != 1:
            weights.mul_(self.rest)
        weights.exp_()
        # Masked: keys a query does not see, rows by which the prefix was rounded up, and rows after the last query.
        seen = _seen(segment.continuations, offset, rows, self.sharing, weights.dtype)
        as_bits(weights)[..., -seen.shape[1] :].bitwise_and_(seen)
        weights[..., prefix:before] = 0
        weights[:, count * self.sharing :] = 0
        torch.bmm(incoming, values.transpose(1, 2), out=scores).mul_(weights)
        self._add(self.for_value, torch.bmm(weights.transpose(1, 2), incoming[..., : self.size]), spans)
        self._add(self.for_key, torch.bmm(scores.transpose(1, 2), queries[..., : self.size]).mul_(self.rest), spans)
        inward = torch.bmm(scores, keys[..., : self.size]).unflatten(1, (rows, self.sharing))
        torch.mul(inward[:, :count].transpose(0, 1), self.scale, out=self.for_query[start : start + count])

    def _add(self, target: torch.Tensor, values: torch.Tensor, spans: list[tuple[int, int]]) -> None:
        sizes = [high - low for low, high in spans]
        for (low, high), piece in zip(spans, values.split(sizes, 1), strict=True):
            target[:, low:high].add_(piece)


@dataclass(frozen=True, slots=True)
class Segment:
    """A document, a shared prefix, or all continuations of one prefix.

    Attributes:
        first: the index of its first token.
        length: in tokens.
        prefix: tokens right before it that all of it sees; 0 except for continuations.
        continuations: the length of each; empty except for continuations.
    """

    first: int
    length: int
    prefix: int = 0
    continuations: tuple[int, ...] = ()


def _segments(lengths: Lengths) -> Iterator[Segment]:
    first = 0
    for prefix, *continuations in lengths:
        yield Segment(first, prefix)
        first += prefix
        if continuations:
            yield Segment(first, sum(continuations), prefix, tuple(continuations))
            first += sum(continuations)


def _round_up(length: int) -> int:
    return -(-length // STEP) * STEP


@functools.lru_cache(maxsize=4)
def _half_log2(lengths: Lengths) -> torch.Tensor:
    """Half the binary logarithm of how many keys each token sees, rounded down; shape (tokens), float32."""
    seen = [
        torch.arange(1, length + 1) + segment.prefix
        for segment in _segments(lengths)
        for length in segment.continuations or (segment.length,)
    ]
    return torch.cat(seen).log2().div_(2).floor_()


def as_bits(values: torch.Tensor) -> torch.Tensor:
    """The same memory as integers: a bitwise `and` is many times faster on a CPU than a masked fill."""
    return values.view(INTEGERS[values.element_size()])


@functools.lru_cache(maxsize=16)
def _seen(continuations: tuple[int, ...], offset: int, rows: int, sharing: int, dtype: torch.dtype) -> torch.Tensor:
    """Which of a segment's keys a block of its queries sees: all bits or none, shape (rows x sharing, keys).

    The keys are those up to the block's last query. For a single document they are the block's own, as it sees all
    earlier ones.
    """
    last = offset + rows
    order = torch.arange(last)
    seen = order[:, None] >= order[None]
    if continuations:
        number = torch.repeat_interleave(torch.tensor([*continuations, last]))[:last]
        seen &= number[:, None] == number[None]
    seen = seen[offset:] if continuations else seen[offset:, offset:]
    return seen.repeat_interleave(sharing, 0).to(INTEGERS[dtype.itemsize]).neg()
