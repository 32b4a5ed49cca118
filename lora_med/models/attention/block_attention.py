"""Causal attention whose backward pass is matrix products, for CPUs with matrix units (AMX).

torch's own backward pass on a CPU takes small blocks and converts each to the unit's format; in a LoRA step on a 135 M
model it is the largest single part. Here a block is 256 queries, all heads that share a key at once, and all keys they
see. The softmax is made anew from the forward pass's log-sum-exp, which rides in the products as three more columns
(its three bfloat16 digits), so scores come out of the product already normalized and nothing is written twice.

A token of a long document has small probabilities, and bfloat16 resolves exp(x) worst where x is far from 0. So half of
log(number of keys) is added to the exponent, as a power of two, and taken off the incoming gradient, where it is exact.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lora_med.models.precision import cpu_has

BLOCK = 256  # queries taken together
STEP = 64  # lengths are rounded up to a multiple, because the library prepares a product anew for each shape
DIGITS = 3  # bfloat16 numbers that add up to a float32
COLUMNS = 32  # the width of a row grows by so many, for the digits: a matrix unit takes columns by 32
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
Lengths = Sequence[tuple[int, ...]]


def pays(query: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether a gradient is asked for, and these products are faster: in bfloat16 on a CPU with AMX.

    Value heads narrower than the query's, as some families have, are not taken.
    """
    asked = torch.is_grad_enabled() and query.requires_grad and value.shape[-1] == query.shape[-1]
    return asked and query.device.type == "cpu" and query.dtype == torch.bfloat16 and _has_matrix_units()


@functools.cache
def _has_matrix_units() -> bool:
    return cpu_has("amx_bf16")


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Lengths, scale: float | None = None
) -> torch.Tensor:
    """Causal attention of documents laid end to end, each by itself.

    Args:
        query: shape (1, heads, tokens, head size); `key` and `value` may have fewer heads.
        lengths: of each document its length, or of a tree the lengths of its trunk and its branches.
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
        found = _Backward(query, key, value, output, normalizer, gradients[0], ctx.lengths, ctx.scale)
        return *found.run(), None, None


def _forward(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Lengths, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The output, and the log-sum-exp of the scores, shape (1, heads, tokens), float32."""
    flash = functools.partial(torch.ops.aten._scaled_dot_product_flash_attention_for_cpu, scale=scale)
    sharing = query.shape[1] // key.shape[1]
    if sharing > 1:
        key, value = key.repeat_interleave(sharing, 1), value.repeat_interleave(sharing, 1)
    found = []
    for part in _parts(lengths):
        here = slice(part.first, part.first + part.length)
        if not part.branches:
            found.append(flash(query[:, :, here], key[:, :, here], value[:, :, here], 0.0, True))
            continue
        own = [one.split(part.branches, 2) for one in (query[:, :, here], key[:, :, here], value[:, :, here])]
        each = [flash(*branch, 0.0, True) for branch in zip(*own, strict=True)]
        within = tuple(torch.cat(one, 2) for one in zip(*each, strict=True))
        before = slice(part.first - part.trunk, part.first)
        found.append(_together(within, flash(query[:, :, here], key[:, :, before], value[:, :, before], 0.0, False)))
    outputs, normalizers = zip(*found, strict=True)
    shape = query.shape[0], query.shape[2], query.shape[1], query.shape[3]
    output = torch.cat([one.transpose(1, 2) for one in outputs], 1).view(shape).transpose(1, 2)
    return output, torch.cat(normalizers, 2)


def _together(one: tuple[torch.Tensor, ...], other: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """The attention over two sets of keys, from the output and the log-sum-exp over each."""
    whole = torch.logaddexp(one[1], other[1])
    outputs = [part * (normalizer - whole).exp()[..., None] for part, normalizer in (one, other)]
    return (outputs[0] + outputs[1]).to(one[0].dtype), whole


class _Backward:
    """The gradients of query, key and value; the packed inputs of the products are shared by all documents.

    A packed row is one token for one key head: of the queries `sharing` rows stand side by side. Behind the last token
    lie rows of zeros, so that a block may reach over the end.
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
        # The power of two in the scale is exact in the queries; what is left is taken once more, of the scores.
        self.exact = 2.0 ** math.floor(math.log2(scale))
        self.rest = scale / self.exact
        exponent = _half_log2(lengths)[:, None]
        weight = torch.exp2(-exponent)
        theirs = gradient[0].transpose(0, 1)  # tokens, heads, size
        delta = (theirs.float() * output[0].transpose(0, 1)).sum(-1) * weight
        shift = (exponent * math.log(2) - normalizer[0].t()) / self.rest
        self.queries = self._packed_queries(query[0].transpose(0, 1) * self.exact, shift)
        self.incoming = self._packed_queries(theirs * weight[..., None].to(query.dtype), -delta)
        self.keys = self._packed_keys(key)
        self.values = self._packed_keys(value)
        self.for_query = query.new_empty(self.tokens, self.groups, self.sharing, self.size)
        self.for_key = torch.zeros(self.groups, self.tokens + STEP, self.size)
        self.for_value = torch.zeros_like(self.for_key)
        longest = max(part.length + part.trunk for part in _parts(lengths)) + 2 * STEP
        self.scratch = query.new_empty(2, self.groups * self.sharing * BLOCK * longest)

    def _packed_queries(self, rows: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
        """Shape (groups, tokens x sharing, columns): the rows, and behind them the digits of `more`."""
        packed = rows.new_zeros(self.groups, self.tokens + STEP, self.sharing, self.size + COLUMNS)
        inner = packed[:, : self.tokens].transpose(0, 1)
        inner[..., : self.size] = rows.unflatten(1, (self.groups, self.sharing))
        for digit in range(DIGITS):
            place = inner[..., self.size + digit]
            place.copy_(more.unflatten(1, (self.groups, self.sharing)))
            more = more - place.flatten(1).float()
        return packed.flatten(1, 2)

    def _packed_keys(self, rows: torch.Tensor) -> torch.Tensor:
        packed = rows.new_zeros(self.groups, self.tokens + STEP, self.size + COLUMNS)
        packed[:, : self.tokens, : self.size] = rows[0]
        packed[:, : self.tokens, self.size : self.size + DIGITS] = 1
        return packed

    def run(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The gradients, of the shapes and dtype of query, key and value."""
        for part in _parts(self.lengths):
            for begun in range(0, part.length, BLOCK):
                self._block(part, begun, min(BLOCK, part.length - begun))
        inward = self.for_query.flatten(1, 2).transpose(0, 1)[None]
        dtype = inward.dtype
        return (
            inward,
            self.for_key[None, :, : self.tokens].to(dtype),
            self.for_value[None, :, : self.tokens].to(dtype),
        )

    def _block(self, part: Part, begun: int, count: int) -> None:
        """Add what `count` queries give, `begun` tokens into a part."""
        rows = _round_up(count)
        start, end = part.first + begun, part.first + begun + rows
        before = _round_up(part.trunk)
        spans = [(part.first - part.trunk, part.first - part.trunk + before), (part.first, end)]
        low, high = start * self.sharing, end * self.sharing
        queries, incoming = (packed[:, low:high].contiguous() for packed in (self.queries, self.incoming))
        keys, values = (
            torch.cat([packed[:, low:high] for low, high in spans], 1) if before else packed[:, part.first : end]
            for packed in (self.keys, self.values)
        )
        shape = self.groups, rows * self.sharing, keys.shape[1]
        weights, scores = (one[: math.prod(shape)].view(shape) for one in self.scratch)
        torch.bmm(queries, keys.transpose(1, 2), out=weights)
        if self.rest != 1:
            weights.mul_(self.rest)
        weights.exp_()
        # Hidden: keys a query does not see, rows by which the trunk was rounded up, and rows behind the last query.
        seen = _seen(part.branches, begun, rows, self.sharing, weights.dtype)
        as_bits(weights)[..., -seen.shape[1] :].bitwise_and_(seen)
        weights[..., part.trunk : before] = 0
        weights[:, count * self.sharing :] = 0
        torch.bmm(incoming, values.transpose(1, 2), out=scores).mul_(weights)
        self._add(self.for_value, torch.bmm(weights.transpose(1, 2), incoming[..., : self.size]), spans)
        self._add(self.for_key, torch.bmm(scores.transpose(1, 2), queries[..., : self.size]).mul_(self.rest), spans)
        inward = torch.bmm(scores, keys[..., : self.size]).unflatten(1, (rows, self.sharing))
        torch.mul(inward[:, :count].transpose(0, 1), self.scale, out=self.for_query[start : start + count])

    def _add(self, to: torch.Tensor, found: torch.Tensor, spans: list[tuple[int, int]]) -> None:
        sizes = [high - low for low, high in spans]
        for (low, high), part in zip(spans, found.split(sizes, 1), strict=True):
            to[:, low:high].add_(part)


@dataclass(frozen=True, slots=True)
class Part:
    """A whole document or trunk, or all branches of one tree.

    Attributes:
        first: the place of its first token.
        length: in tokens.
        trunk: tokens right before it that all of it sees; 0 but for branches.
        branches: the length of each branch; empty but for branches.
    """

    first: int
    length: int
    trunk: int = 0
    branches: tuple[int, ...] = ()


def _parts(lengths: Lengths) -> Iterator[Part]:
    first = 0
    for trunk, *branches in lengths:
        yield Part(first, trunk)
        first += trunk
        if branches:
            yield Part(first, sum(branches), trunk, tuple(branches))
            first += sum(branches)


def _round_up(length: int) -> int:
    return -(-length // STEP) * STEP


@functools.lru_cache(maxsize=4)
def _half_log2(lengths: Lengths) -> torch.Tensor:
    """Half the binary logarithm of how many keys each token sees, rounded down; shape (tokens), float32."""
    seen = [torch.arange(1, n + 1) + part.trunk for part in _parts(lengths) for n in part.branches or (part.length,)]
    return torch.cat(seen).log2().div_(2).floor_()


def as_bits(values: torch.Tensor) -> torch.Tensor:
    """The same memory as integers: a bitwise `and` is many times faster on a CPU than filling where a mask says so."""
    return values.view(INTEGERS[values.element_size()])


@functools.lru_cache(maxsize=16)
def _seen(branches: tuple[int, ...], begun: int, rows: int, sharing: int, dtype: torch.dtype) -> torch.Tensor:
    """Which of a part's keys a block of its queries sees: all bits or none, shape (rows x sharing, keys).

    The keys are those up to the block's last query; where there is one document only, the block's own, as it sees all
    before.
    """
    last = begun + rows
    order = torch.arange(last)
    seen = order[:, None] >= order[None]
    if branches:
        number = torch.repeat_interleave(torch.tensor([*branches, last]))[:last]
        seen &= number[:, None] == number[None]
    seen = seen[begun:] if branches else seen[begun:, begun:]
    return seen.repeat_interleave(sharing, 0).to(INTEGERS[dtype.itemsize]).neg()
