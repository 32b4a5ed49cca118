"""What running requests take: keys and values in bytes, adapters in memory, and rows of the batch. All have bounds."""

from __future__ import annotations

from collections import Counter

from lora_med.serving.decoding.prefix_blocks import PrefixCache
from lora_med.serving.decoding.running_request import Sequence
from lora_med.serving.requests import Limits


class Capacity:
    """Admits a request only if all of it fits until its end; used by the engine's thread alone.

    Cached prefixes take what running requests leave of `kv_memory`, and give it back at once.
    """

    def __init__(self, limits: Limits, prefixes: PrefixCache) -> None:
        self._limits = limits
        self._prefixes = prefixes
        self._adapters: Counter[str] = Counter()
        self._rows = 0
        self.reserved_bytes = 0

    def take(self, sequence: Sequence) -> bool:
        """Reserve all that a request needs; False, with nothing reserved, if it does not fit now."""
        key, needed = sequence.version.key, self.reserved_bytes + sequence.size_bytes
        if self._rows >= self._limits.max_batch or needed > self._limits.kv_memory:
            return False
        if key is not None and key not in self._adapters and len(self._adapters) >= self._limits.most_resident:
            return False
        self._rows += 1
        self.reserved_bytes = needed
        self._prefixes.shrink(self._limits.kv_memory - needed)
        if key is not None:
            self._adapters[key] += 1
        return True

    def give_back(self, sequence: Sequence) -> None:
        """Free what `take` reserved."""
        self._rows -= 1
        self.reserved_bytes -= sequence.size_bytes
        key = sequence.version.key
        if key is not None:
            self._adapters[key] -= 1
            if not self._adapters[key]:
                del self._adapters[key]

    def uses(self, key: str) -> bool:
        """Whether a running request needs the adapter."""
        return key in self._adapters

    def fits_prefix(self, size_bytes: int) -> bool:
        """Whether one more block of so many bytes can be cached; older ones leave for it."""
        free = self._limits.kv_memory - self.reserved_bytes - size_bytes
        if free < 0:
            return False
        self._prefixes.shrink(free)
        return True
