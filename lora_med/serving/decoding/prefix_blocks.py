"""Keys and values of prompts' beginnings, so that a prompt that begins like an earlier one is not computed again.

A prompt is computed in blocks of `BLOCK` tokens, counted from its beginning, whether anything is cached or not. Whole
blocks are cached. So a request gets the same numbers with and without the cache.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

BLOCK = 128
States = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, eq=False)
class Block:
    """The keys and values of one block, layer by layer, and the tokens of the whole prefix that ends with it."""

    tokens: tuple[int, ...]
    states: States
    size_bytes: int


class PrefixCache:
    """Blocks by digest, the least recently used first; the caller decides how many bytes they may take."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[str, Block] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._blocks)

    def find(self, tokens: Sequence[int], digest_of: Callable[[Sequence[int]], str]) -> list[Block]:
        """The cached blocks that `tokens` begins with; its last token is never among them.

        Args:
            digest_of: maps a prefix to its digest (`identity.prefix_digest`).
        """
        blocks: list[tuple[str, Block]] = []
        for end in range(BLOCK, len(tokens), BLOCK):
            name = digest_of(tokens[:end])
            block = self._blocks.get(name)
            if block is None or block.tokens != tuple(tokens[:end]):
                break
            blocks.append((name, block))
        for name, _ in reversed(blocks):  # a later block is of no use without those before it: it leaves first
            self._blocks.move_to_end(name)
        return [block for _, block in blocks]

    def put(self, name: str, block: Block) -> None:
        """Cache a block."""
        if name not in self._blocks:
            self._blocks[name] = block
            self.size_bytes += block.size_bytes

    def shrink(self, most_bytes: int) -> None:
        """Drop the least recently used blocks until the others take at most so many bytes."""
        while self._blocks and self.size_bytes > most_bytes:
            _, block = self._blocks.popitem(last=False)
            self.size_bytes -= block.size_bytes
