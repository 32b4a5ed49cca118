"""Forward passes of the base for requests that have nothing to do with each other, and the memory each of them takes.

Where the base's attention can be computed row by row (models/attention/row_attention.py), requests share a pass. This
is measured, not assumed: a small batch must give the logits that the base gives for each text alone. Otherwise each
request has a pass of its own, with the cache that the base's own code makes, as with state-space models. It is then
right too, only slower together.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from lora_med.models.attention.row_attention import LayerShape, RowMemory, StepCache, row_attention, running
from lora_med.models.base import Base
from lora_med.models.files.resolve import has_sdpa, mixes_by_attention_only, takes_other_attention
from lora_med.models.structure.few_rows import few_rows

logger = logging.getLogger(__name__)
KINDS = {"full_attention", "sliding_attention"}
CACHES = ("past_key_values", "cache_params")  # what a model calls its cache
# How far logits of a shared pass may be from those of a text alone, as a share of the largest: rounding alone.
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 2e-2}


@dataclass(eq=False)
class OwnMemory:
    """The cache that the base's own code makes for one request; it has no part that another request could reuse."""

    length: int = 0
    caches: dict[str, Any] = field(default_factory=dict)


Memory = RowMemory | OwnMemory


class ModelSteps:
    """Forward passes of `base`; `close` gives it back as it was. Used by one thread at a time.

    `together` is true if requests share a pass. A request with n tokens takes `memory_bytes(n)`.
    """

    def __init__(self, base: Base) -> None:
        self.model = base.model
        self.device = base.model.device
        self._one_logit = "logits_to_keep" in inspect.signature(base.model.forward).parameters
        self._stack = contextlib.ExitStack()
        self.together = False
        self.splits_prompts = mixes_by_attention_only(base.model.config)
        self._shapes: list[LayerShape] = []
        self._dtype = torch.float32
        self._token_bytes, self._fixed_bytes = self._measure()
        reason = self._why_alone(base)
        if reason is None:
            self._stack.enter_context(row_attention(self.model))
            self.together = True
            reason = self._differs(base)
        if reason is not None:
            self.close()
            logger.info("requests have a forward pass each: %s", reason)
        self._stack.enter_context(few_rows(self.model))

    def close(self) -> None:
        """Give the base its own attention and matrix products back."""
        self.together = False
        self._stack.close()

    def memory_bytes(self, tokens: int) -> int:
        """The bytes of the keys and values, and of any other state, of a request with so many tokens."""
        return self._fixed_bytes + tokens * self._token_bytes

    def memory(self, tokens: int) -> Memory:
        """Memory for a request that gets at most so many tokens."""
        return RowMemory(self._shapes, tokens, self._dtype, self.device) if self.together else OwnMemory()

    def forward(
        self, memories: Sequence[Memory], tokens: Sequence[Sequence[int]], *, every: bool = False
    ) -> torch.Tensor:
        """Logits after the last of each row's new tokens, or with `every` after each: (rows, 1 or tokens, words).

        The rows get equally many new tokens, which their memories hold afterwards. If this raises, the memories are
        unchanged, and rows that have their own pass were all or none run. The logits are float32.
        """
        ids = torch.tensor([list(row) for row in tokens], device=self.device)
        with torch.inference_mode():
            if not self.together:
                (memory,) = memories
                return self._alone(memory, ids, every=every)
            step = StepCache([memory for memory in memories if isinstance(memory, RowMemory)])
            starts = torch.tensor([memory.length for memory in memories], device=self.device)
            positions = starts[:, None] + torch.arange(ids.shape[1], device=self.device)
            with running(step):
                logits = self._logits(ids, every, position_ids=positions, past_key_values=step)
            step.advance(ids.shape[1])
            return logits

    def _alone(self, memory: Memory, ids: torch.Tensor, *, every: bool) -> torch.Tensor:
        assert isinstance(memory, OwnMemory)
        output = self.model(input_ids=ids, use_cache=True, **memory.caches)
        memory.caches = {name: output[name] for name in CACHES if output.get(name) is not None}
        memory.length += ids.shape[1]
        return (output.logits if every else output.logits[:, -1:]).float()

    def _logits(self, ids: torch.Tensor, every: bool, **inputs: Any) -> torch.Tensor:
        keep = {"logits_to_keep": 1} if self._one_logit and not every else {}
        logits = self.model(input_ids=ids, use_cache=True, **keep, **inputs).logits
        return (logits if every else logits[:, -1:]).float()

    def _measure(self) -> tuple[int, int]:
        """The bytes of each token and of what does not grow, from a text of two tokens; sets the layers' shapes."""
        with torch.inference_mode():
            memory = OwnMemory()
            self._alone(memory, torch.zeros((1, 1), dtype=torch.long, device=self.device), every=False)
            first = _bytes(memory.caches)
            layers = [layer for cache in memory.caches.values() for layer in getattr(cache, "layers", ())]
            plain = layers and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
            if plain and all(layer.is_initialized for layer in layers):
                self._shapes = [
                    LayerShape(layer.keys.shape[1], layer.keys.shape[3], layer.values.shape[3]) for layer in layers
                ]
                self._dtype = layers[0].keys.dtype
            self._alone(memory, torch.zeros((1, 1), dtype=torch.long, device=self.device), every=False)
            grown = max(0, _bytes(memory.caches) - first)
        return grown, max(0, first - grown)

    def _why_alone(self, base: Base) -> str | None:
        """Why requests cannot share a pass, as far as the configuration says."""
        config = base.model.config
        kinds = set(getattr(config.get_text_config(), "layer_types", None) or ()) - KINDS
        if not (mixes_by_attention_only(config) and self._shapes):
            return "layers besides attention carry one token into the next"
        if not (has_sdpa(config) and takes_other_attention(config)):
            return "the base's code computes attention in its own way"
        return f"the base has layers of {', '.join(sorted(kinds))}" if kinds else None

    def _differs(self, base: Base) -> str | None:
        """Why requests cannot share a pass, by a batch of two texts whose logits the base also gives for each alone."""
        texts = [[1, 3, 2, 5, 4, 2, 6], [2, 6, 1, 3]]
        with torch.inference_mode():
            expected = [
                self.model(input_ids=torch.tensor([text], device=self.device), use_cache=False).logits[0, -1].float()
                for text in texts
            ]
        try:
            memories = [self.memory(len(text)) for text in texts]
            self.forward(memories[:1], [texts[0][:4]])
            self.forward(memories[:1], [texts[0][4:-1]])
            self.forward(memories[1:], [texts[1][:-1]])
            given = self.forward(memories, [text[-1:] for text in texts])
        except Exception as error:  # any code of any model may refuse this attention, in its own way
            return f"the base's code does not run with attention by rows ({type(error).__name__})"
        share = max(
            float((mine[0] - theirs).abs().max() / theirs.abs().max().clamp_min(1e-6))
            for mine, theirs in zip(given, expected, strict=True)
        )
        if share <= TOLERANCE.get(base.dtype, max(TOLERANCE.values())):
            return None
        return f"logits of a shared pass differ by {share:.1e} from those of a text alone"


def _bytes(value: Any) -> int:
    """The bytes of all tensors in a cache."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_bytes, value))
    if isinstance(value, DynamicCache) or hasattr(value, "layers"):
        return _bytes(value.layers)
    return _bytes(vars(value)) if hasattr(value, "__dict__") and not isinstance(value, type) else 0
