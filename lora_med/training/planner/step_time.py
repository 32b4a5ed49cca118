"""The step time of a run on this machine: its own step, measured over one and two layers of its base's shape.

Where the layers of a base are alike, the difference between one and two layers is the cost of each; the remainder
counts once. The weights are random, made from config.json: the tokens of a mixture choose as many experts as those of
the real base, and choose them about equally often. Quantization, adapters, dropout, attention and recomputation
are those of the run. Only a slice of the output head is timed, as all of its words cost the same. Bases whose layers
differ are not timed: `why_not_timed` gives the reason.
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
from lora_med.models.building import BUILDING
from lora_med.models.files.resolve import model_class, read_config
from lora_med.models.memory import BYTES
from lora_med.models.on_disk.weights_source import forget_quantization
from lora_med.models.precision import device_kind
from lora_med.models.quantize import bitsandbytes_config
from lora_med.models.structure.backbone import backbone
from lora_med.models.weight_loading import load_weights, progress_on_terminals_only
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
WEIGHTS_HELD = 3  # copies of the weights: as created, on the disk (which may be memory), and as loaded
WINDOWS = {"full_attention", "sliding_attention", "chunked_attention"}  # alike for rows that fit into the window
Step = Callable[[], None]
Lengths = Sequence[tuple[int, ...]]


@dataclass(frozen=True)
class StepTime:
    """Seconds of a forward and backward pass over `tokens` real tokens, padding never counted.

    `below` are the seconds of the layers below the lowest adapter, which `train.cache_frozen` saves after one epoch.
    `reference` are those of the reference's forward pass, where the method has one.
    """

    tokens: int
    above: float
    below: float
    reference: float = 0.0

    @property
    def seconds(self) -> float:
        """Of the complete pass."""
        return self.above + self.below + self.reference


def extrapolate(one_layer: float, two_layers: float, layers: int) -> float:
    """Seconds of a pass over so many layers, from those of one layer and of two."""
    each = max(two_layers - one_layer, 0.0)
    return max(one_layer - each, 0.0) + layers * each


def typical(documents: Lengths, tokens: float) -> list[tuple[int, ...]]:
    """Documents of about so many tokens in total: the middle one of each equal group, sorted by length.

    At least one, and at most all.
    """
    ordered = sorted(documents, key=sum)
    mean = sum(map(sum, ordered)) / len(ordered)
    count = min(max(1, round(tokens / mean)), len(ordered))
    return [ordered[int((group + 0.5) / count * len(ordered))] for group in range(count)]


def why_not_timed(shape: Shape, longest: int, free: int) -> str | None:
    """Why a run cannot be timed by two of its layers, or None if it can.

    Args:
        longest: tokens of the longest document in the timed batch.
        free: bytes of memory; half of them may be used.
    """
    text = read_config(shape.folder).get_text_config()
    context = getattr(text, "max_position_embeddings", None)
    if context is not None and longest > context:
        return f"a document of {longest:,} tokens is longer than the base's context of {context:,}"
    if getattr(text, "num_kv_shared_layers", None):
        return "some layers use the keys of others"
    window = getattr(text, "sliding_window", None)
    for name, kinds in _by_layer(text).items():
        different = set(map(str, kinds))
        if len(different) > 1 and (different - WINDOWS or (window is not None and longest > window)):
            return f"its layers are of several kinds ({name})"
    adapted = lowest_adapted(skeleton_with_adapters(shape))
    if adapted is None:
        return "an adapter is outside the numbered layers"
    if len({_weights_of(layer) for layer in adapted[0]}) > 1:
        return "its layers are of several kinds (their weights)"
    numbers = sum(parameter.numel() for layer in adapted[0][:LAYERS] for parameter in layer.parameters())
    if WEIGHTS_HELD * numbers * BYTES[shape.dtype] > free // 2:
        return f"two layers of {numbers / 1e6:,.0f} million weights do not fit into half of the free memory"
    return None


def _weights_of(layer: Any) -> frozenset[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a layer's own weights; adapters may be on some layers alone."""
    return frozenset(
        (name.replace(".base_layer", ""), tuple(parameter.shape))
        for name, parameter in layer.named_parameters()
        if ".lora_" not in name
    )


def skeleton_with_adapters(shape: Shape) -> Any:
    """The transformers model inside the adapters of a run, on the meta device."""
    return shell(shape.folder, shape.config, shape.dtype, shape.attention).get_base_model()


def time_batch(shape: Shape, documents: Lengths, labeled: int, *, checkpointing: bool) -> StepTime:
    """The step time over some documents on this machine, with the libraries and threads as they are set now.

    `why_not_timed` must be None. It takes seconds; with layers of hundreds of millions of weights a minute or two.
    Layers above the lowest adapter without one of their own are counted as if they had one.

    Args:
        documents: the length of each, or for a shared prefix the lengths of the prefix and its continuations.
        labeled: how many of these tokens are trained.
        checkpointing: whether layers are recomputed.
    """
    text = read_config(shape.folder).get_text_config()
    adapted = lowest_adapted(skeleton_with_adapters(shape))
    below = adapted[1] if adapted is not None else 0
    with tempfile.TemporaryDirectory() as folder:
        model = _two_layers(shape, Path(folder))
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    inner = model.get_base_model()
    inputs = _inputs(shape, documents, inner.get_input_embeddings().weight)
    head = _seconds(_head(inner, sum(map(sum, documents)), labeled)) * text.vocab_size / min(WORDS, text.vocab_size)
    layers = lowest_adapted(inner)[0]  # type: ignore[index] - the model has adapted layers
    passes, forwards = [], []
    with fused_lora(model), no_gradient_below(inner):
        for count in (2, 1):
            del layers[count:]
            passes.append(_seconds(lambda: _pass(inner, inputs)))
            with model.disable_adapter():
                forwards.append(_seconds(lambda: _forward(inner, inputs)) if below or shape.compares else 0.0)
    above = extrapolate(passes[1], passes[0], text.num_hidden_layers - below) + head
    # The reference's logits are the first of the two products of the head's step.
    reference = extrapolate(forwards[1], forwards[0], text.num_hidden_layers) + head / 2 if shape.compares else 0.0
    return StepTime(sum(map(sum, documents)), above, below * max(forwards[0] - forwards[1], 0.0), reference)


def _by_layer(text: Any) -> dict[str, list[Any]]:
    """The settings of a configuration that are a list of one value for each layer."""
    return {
        name: value
        for name, value in text.to_dict().items()
        if isinstance(value, list) and len(value) == text.num_hidden_layers
    }


def _two_layers(shape: Shape, folder: Path) -> Any:
    """The PeftModel of a run, reduced to the first layers and words, loaded as `load_base` loads it.

    An adapter that is only on some layers is on both of these.
    """
    register_attention()
    config = read_config(shape.folder)
    forget_quantization(config)
    text = config.get_text_config()
    for name, values in _by_layer(text).items():
        setattr(text, name, values[:LAYERS])
    text.num_hidden_layers = LAYERS
    text.vocab_size = min(WORDS, text.vocab_size)
    for each in (config, text):
        each.pad_token_id = each.bos_token_id = each.eos_token_id = None
    dtype = getattr(torch, shape.dtype)
    with BUILDING:
        model = model_class(config)._from_config(config, dtype=dtype)
    with progress_on_terminals_only():
        model.save_pretrained(folder)
    del model
    quantized = bitsandbytes_config(
        shape.quantization, quant_type="nf4", double_quant=shape.double_quant, dtype=shape.dtype
    )
    base = load_weights(folder, config, quantized, shape.dtype, shape.attention)
    adapter = copy.copy(shape.config)
    adapter.layers_to_transform = None
    adapter.target_modules = {name.rpartition(".")[2] for name in shape.config.target_modules}
    if adapter.target_parameters:
        adapter.target_parameters = sorted({".".join(name.split(".")[-2:]) for name in adapter.target_parameters})
    return with_adapter(base, adapter)


def _inputs(shape: Shape, documents: Lengths, embedding: torch.Tensor) -> dict[str, Any]:
    """The documents as the run's attention expects them: in one row, or padded to the longest."""
    generator = torch.Generator().manual_seed(0)
    sizes = list(map(sum, documents))
    if shape.attention == PER_DOCUMENT or shape.attention.startswith("flash"):
        ids = torch.randint(len(embedding), (1, sum(sizes)), generator=generator)
        flat: dict[str, Any] = {"input_ids": ids, "position_ids": positions(documents)}
        if shape.attention == PER_DOCUMENT:
            flat |= {"attention_mask": torch.ones_like(ids), "document_lengths": list(documents)}
        return {name: value.to(embedding.device) if torch.is_tensor(value) else value for name, value in flat.items()}
    ids = torch.randint(len(embedding), (len(sizes), max(sizes)), generator=generator)
    mask = torch.arange(max(sizes))[None] < torch.tensor(sizes)[:, None]
    return {"input_ids": ids.to(embedding.device), "attention_mask": mask.long().to(embedding.device)}


def _pass(inner: Any, inputs: dict[str, Any]) -> None:
    last = _hidden(inner, inputs)
    last.backward(torch.ones_like(last))


def _forward(inner: Any, inputs: dict[str, Any]) -> None:
    with torch.no_grad():
        _hidden(inner, inputs)


def _hidden(inner: Any, inputs: dict[str, Any]) -> torch.Tensor:
    with no_mask() if "document_lengths" in inputs else nullcontext():
        return backbone(inner)(**inputs, use_cache=False).last_hidden_state


def _head(inner: Any, tokens: int, labeled: int) -> Step:
    """Scores the labeled tokens over the reduced vocabulary; all tokens where the model's own code must run."""
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
    """The median of a few measurements after a warm-up; a slow warm-up is the only measurement."""
    times: list[float] = []
    while len(times) <= REPEATS and (not times or times[0] < SLOW):
        started = time.perf_counter()
        step()
        if device_kind() == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:] or times)
