"""How fast a run will go on this machine: its own step, taken over one and two layers of its base's shape.

Where the layers of a base are alike, the step is timed and not computed: what a second layer adds is what each costs,
and the rest is there once. The weights are random, made from config.json; quantization, adapters, dropout, attention
and recomputing are those of the run. Of the output head a slice is timed, as all of its words cost the same. Bases
whose layers differ are not timed: `why_not_timed` says so.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lora_med.models.attention.per_document import NAME as PER_DOCUMENT
from lora_med.models.attention.per_document import no_mask, register_attention
from lora_med.models.base import load_weights, progress_on_terminals_only
from lora_med.models.files.resolve import read_config
from lora_med.models.memory import BYTES
from lora_med.models.precision import device_kind
from lora_med.models.quantize import bitsandbytes_config
from lora_med.training.planner.activations import shell, with_adapter
from lora_med.training.planner.run_memory import Shape
from lora_med.training.rows.batches import positions
from lora_med.training.step.frozen_cache import lowest_adapted, no_gradient_below
from lora_med.training.step.fused_lora import fused_lora
from lora_med.training.step.loss import labeled_nll, why_not_compact

LAYERS = 2
WORDS = 2048  # of the vocabulary, or fewer if there are fewer
REPEATS = 3
SLOW = 5.0  # seconds after which a pass is not repeated
WEIGHTS_HELD = 3  # times over: as they are made, on the disk, which may be memory, and as they are loaded
WINDOWS = {"full_attention", "sliding_attention", "chunked_attention"}  # alike for rows that fit into the window
MIXTURES = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
Step = Callable[[], None]
Lengths = Sequence[tuple[int, ...]]


@dataclass(frozen=True)
class StepTime:
    """Seconds of a forward and backward pass over `tokens` real tokens, padding never counted.

    `below` is the part of the layers below the lowest adapter, which `train.cache_frozen` saves after the first epoch.
    """

    tokens: int
    above: float
    below: float

    @property
    def seconds(self) -> float:
        """Of the whole pass."""
        return self.above + self.below


def extrapolate(one: float, two: float, layers: int) -> float:
    """Seconds of a pass over so many layers, from those of one layer and of two."""
    each = max(two - one, 0.0)
    return max(one - each, 0.0) + layers * each


def typical(documents: Lengths, tokens: float) -> list[tuple[int, ...]]:
    """Documents of about so many tokens together, one from the middle of each equal part of all, by length.

    At least one; not more than there are.
    """
    ordered = sorted(documents, key=sum)
    mean = sum(map(sum, ordered)) / len(ordered)
    count = min(max(1, round(tokens / mean)), len(ordered))
    return [ordered[int((place + 0.5) / count * len(ordered))] for place in range(count)]


def why_not_timed(shape: Shape, longest: int, free: int) -> str | None:
    """Why a run cannot be timed by two of its layers, or None if it can.

    Args:
        longest: tokens of the longest document that is timed.
        free: bytes of memory; half of them may be used.
    """
    text = read_config(shape.folder).get_text_config()
    context = getattr(text, "max_position_embeddings", None)
    if context is not None and longest > context:
        return f"a document of {longest:,} tokens is longer than the base's context of {context:,}"
    if any((getattr(text, name, None) or 0) > 1 for name in MIXTURES):
        return "in a mixture of experts the tokens decide what is computed"
    if getattr(text, "num_kv_shared_layers", None):
        return "some layers use the keys of others"
    window = getattr(text, "sliding_window", None)
    for name, kinds in _by_layer(text).items():
        different = set(map(str, kinds))
        if len(different) > 1 and (different - WINDOWS or (window is not None and longest > window)):
            return f"its layers are of several kinds ({name})"
    found = lowest_adapted(skeleton_with_adapters(shape))
    if found is None:
        return "an adapter stands outside the numbered layers"
    numbers = sum(one.numel() for layer in found[0][:LAYERS] for one in layer.parameters())
    if WEIGHTS_HELD * numbers * BYTES[shape.dtype] > free // 2:
        return f"two layers of {numbers / 1e6:,.0f} million weights do not fit into half of the free memory"
    return None


def skeleton_with_adapters(shape: Shape) -> Any:
    """The transformers model inside the adapters of a run, without memory."""
    return shell(shape.folder, shape.config, shape.dtype, shape.attention).get_base_model()


def time_batch(shape: Shape, documents: Lengths, labeled: int, *, checkpointing: bool) -> StepTime:
    """The pace over some documents on this machine, as its libraries and threads are set now; `why_not_timed` is None.

    It takes seconds, with layers of hundreds of millions of weights a minute or two. Layers above the lowest adapter
    that have none themselves are counted as if they had.

    Args:
        documents: of each its length, or of a tree the lengths of its trunk and its branches.
        labeled: how many of all these tokens are trained.
        checkpointing: whether layers are recomputed.
    """
    text = read_config(shape.folder).get_text_config()
    found = lowest_adapted(skeleton_with_adapters(shape))
    below = found[1] if found is not None else 0
    with tempfile.TemporaryDirectory() as place:
        model = _two_layers(shape, Path(place))
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    inner = model.get_base_model()
    given = _inputs(shape, documents, inner.get_input_embeddings().weight)
    head = _seconds(_head(inner, sum(map(sum, documents)), labeled)) * text.vocab_size / min(WORDS, text.vocab_size)
    layers = lowest_adapted(inner)[0]  # type: ignore[index] - it is a part of a model that has them
    passes, forwards = [], []
    with fused_lora(model), no_gradient_below(inner):
        for count in (2, 1):
            del layers[count:]
            passes.append(_seconds(lambda: _pass(inner, given)))
            with model.disable_adapter():
                forwards.append(_seconds(lambda: _forward(inner, given)) if below else 0.0)
    above = extrapolate(passes[1], passes[0], text.num_hidden_layers - below) + head
    return StepTime(sum(map(sum, documents)), above, below * max(forwards[0] - forwards[1], 0.0))


def _by_layer(text: Any) -> dict[str, list[Any]]:
    """The settings of a configuration that are a list of one value for each layer."""
    return {
        name: value
        for name, value in text.to_dict().items()
        if isinstance(value, list) and len(value) == text.num_hidden_layers
    }


def _two_layers(shape: Shape, place: Path) -> Any:
    """The PeftModel of a run, cut to the first layers and words, loaded as `load_base` loads it.

    An adapter that is on some layers only is on both of these.
    """
    from transformers import AutoModelForCausalLM

    register_attention()
    config = read_config(shape.folder)
    text = config.get_text_config()
    for name, values in _by_layer(text).items():
        setattr(text, name, values[:LAYERS])
    text.num_hidden_layers = LAYERS
    text.vocab_size = min(WORDS, text.vocab_size)
    for each in (config, text):
        each.pad_token_id = each.bos_token_id = each.eos_token_id = None
    dtype = getattr(torch, shape.dtype)
    made = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    with progress_on_terminals_only():
        made.save_pretrained(place)
    del made
    quantized = bitsandbytes_config(
        shape.quantization, quant_type="nf4", double_quant=shape.double_quant, dtype=shape.dtype
    )
    base = load_weights(place, config, quantized, shape.dtype, shape.attention)
    adapter = copy.copy(shape.config)
    adapter.layers_to_transform = None
    adapter.target_modules = {name.rpartition(".")[2] for name in shape.config.target_modules}
    return with_adapter(base, adapter)


def _inputs(shape: Shape, documents: Lengths, embedding: torch.Tensor) -> dict[str, Any]:
    """The documents as the run's attention takes them: in one row, or padded to the longest."""
    generator = torch.Generator().manual_seed(0)
    sizes = list(map(sum, documents))
    if shape.attention == PER_DOCUMENT or shape.attention.startswith("flash"):
        ids = torch.randint(len(embedding), (1, sum(sizes)), generator=generator)
        flat: dict[str, Any] = {"input_ids": ids, "position_ids": positions(documents)}
        if shape.attention == PER_DOCUMENT:
            flat |= {"attention_mask": torch.ones_like(ids), "document_lengths": list(documents)}
        return {name: one.to(embedding.device) if torch.is_tensor(one) else one for name, one in flat.items()}
    ids = torch.randint(len(embedding), (len(sizes), max(sizes)), generator=generator)
    mask = torch.arange(max(sizes))[None] < torch.tensor(sizes)[:, None]
    return {"input_ids": ids.to(embedding.device), "attention_mask": mask.long().to(embedding.device)}


def _pass(inner: Any, given: dict[str, Any]) -> None:
    last = _hidden(inner, given)
    last.backward(torch.ones_like(last))


def _forward(inner: Any, given: dict[str, Any]) -> None:
    with torch.no_grad():
        _hidden(inner, given)


def _hidden(inner: Any, given: dict[str, Any]) -> torch.Tensor:
    with no_mask() if "document_lengths" in given else nullcontext():
        return inner.base_model(**given, use_cache=False).last_hidden_state


def _head(inner: Any, tokens: int, labeled: int) -> Step:
    """What scores the labeled tokens over the words there are; all tokens where the model's own code must do it."""
    weight = inner.get_output_embeddings().weight.detach()
    compact = why_not_compact(inner) is None
    count = labeled if compact else tokens
    hidden = torch.randn(count, weight.shape[1], device=weight.device, dtype=weight.dtype, requires_grad=True)
    labels = torch.zeros(count, dtype=torch.long, device=weight.device)

    def step() -> None:
        if compact:
            loss = labeled_nll(hidden, weight, labels)
        else:
            loss = torch.nn.functional.cross_entropy((hidden @ weight.t()).float(), labels)
        loss.backward()

    return step


def _seconds(step: Step) -> float:
    """The median of a few times after one that warms up, which alone counts where it was slow."""
    taken: list[float] = []
    while len(taken) <= REPEATS and (not taken or taken[0] < SLOW):
        begun = time.perf_counter()
        step()
        if device_kind() == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken[1:] or taken)
