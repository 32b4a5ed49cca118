"""How fast a run will go on this machine: its own step, taken over one and two layers of its base's shape.

The layers of a transformer are alike, so the step is timed and not computed: what a second layer adds is what each
costs, and the rest is there once. The weights are random, made from config.json; quantisation, adapters, dropout,
attention and recomputing are those of the run. Of the output head a slice is timed, as all of its words cost the same.
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

from lora_med.models.attention import NAME as PER_DOCUMENT
from lora_med.models.attention import register_attention
from lora_med.models.base import load_weights, progress_on_terminals_only
from lora_med.models.memory import BYTES
from lora_med.models.precision import device_kind
from lora_med.models.quantize import bitsandbytes_config
from lora_med.models.resolve import read_config
from lora_med.models.skeleton import skeleton
from lora_med.training.frozen import no_gradient_below
from lora_med.training.fused import fused_lora
from lora_med.training.loss import labelled_nll, why_not_compact
from lora_med.training.plan import Shape

LAYERS = 2
WORDS = 2048  # of the vocabulary, or fewer if there are fewer
REPEATS = 3
Step = Callable[[], None]


@dataclass(frozen=True)
class Pace:
    """Seconds that one forward and backward pass over a batch of `tokens` takes."""

    tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Real tokens, padding never counted."""
        return self.tokens / self.seconds


def fits_to_time(shape: Shape, free: int) -> bool:
    """Whether the layers that are timed take at most half of `free` bytes; where not, `time_batch` is not to be called.

    Their weights are made, written and read, so they count twice.
    """
    model = skeleton(shape.folder)
    layers = next(one for one in model.modules() if isinstance(one, torch.nn.ModuleList))
    numbers = sum(one.numel() for layer in layers[:LAYERS] for one in layer.parameters())
    return 2 * numbers * BYTES[shape.dtype] <= free // 2


def typical_batch(lengths: Sequence[int], rows: int) -> list[int]:
    """So many rows as a batch has on average: one from the middle of each equal part of all, by length."""
    ordered = sorted(lengths)
    rows = min(rows, len(ordered))
    return [ordered[int((place + 0.5) / rows * len(ordered))] for place in range(rows)]


def time_batch(shape: Shape, lengths: Sequence[int], labelled: int, *, checkpointing: bool) -> Pace:
    """The pace of a batch on this machine, as its libraries and threads are set now; takes a second to a minute.

    Args:
        lengths: tokens of each row of the batch; with an attention that needs padding, all are taken to the longest.
        labelled: how many of all these tokens are trained.
        checkpointing: whether layers are recomputed.
    """
    text = read_config(shape.folder).get_text_config()
    chosen = shape.config.layers_to_transform
    below = min(chosen) if chosen else 0
    with tempfile.TemporaryDirectory() as place:
        model = _few_layers(shape, Path(place))
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    head = _median_seconds(_head(model.get_base_model(), lengths, labelled))
    given = _inputs(shape, lengths, model.get_input_embeddings().weight.device)
    layers = _layers(model)
    fused = nullcontext() if shape.config.use_dora else fused_lora(model)
    with fused, no_gradient_below(model.get_base_model()):
        two = _median_seconds(lambda: _pass(model, given))
        forward_two = _median_seconds(lambda: _forward(model, given)) if below else 0.0
        del layers[1:]
        one = _median_seconds(lambda: _pass(model, given))
        forward_one = _median_seconds(lambda: _forward(model, given)) if below else 0.0
    each, ends = max(two - one, 0.0), max(2 * one - two, 0.0)
    words = text.vocab_size / min(WORDS, text.vocab_size)
    seconds = ends + (text.num_hidden_layers - below) * each + head * words
    return Pace(sum(lengths), seconds + below * max(forward_two - forward_one, 0.0))


def _few_layers(shape: Shape, place: Path) -> Any:
    """The PeftModel of a run, cut to the first layers and words, loaded as `load_base` loads it."""
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    register_attention()
    config = read_config(shape.folder)
    text = config.get_text_config()
    text.num_hidden_layers = LAYERS
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:LAYERS]
    text.vocab_size = min(WORDS, text.vocab_size)
    for each in (config, text):
        each.pad_token_id = each.bos_token_id = each.eos_token_id = None
    dtype = getattr(torch, shape.dtype)
    made = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    with progress_on_terminals_only():
        made.save_pretrained(place)
    quantised = bitsandbytes_config(
        shape.quantisation, quant_type="nf4", double_quant=shape.double_quant, dtype=shape.dtype
    )
    base = load_weights(place, config, quantised, shape.dtype, shape.attention)
    adapter = copy.copy(shape.config)
    adapter.layers_to_transform = None
    adapter.init_lora_weights = True  # the other starts read the weights, and train as fast
    model: Any = get_peft_model(base, adapter)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def _layers(model: Any) -> Any:
    """The list of layers, wherever the family keeps it."""
    found = (one for one in model.modules() if isinstance(one, torch.nn.ModuleList) and len(one) == LAYERS)
    return next(found)


def _inputs(shape: Shape, lengths: Sequence[int], device: torch.device) -> dict[str, Any]:
    if shape.attention == PER_DOCUMENT:
        positions = torch.cat([torch.arange(length) for length in lengths])[None].to(device)
        return {
            "input_ids": torch.ones_like(positions),
            "attention_mask": torch.ones_like(positions),
            "position_ids": positions,
            "document_lengths": [(length,) for length in lengths],
        }
    return {"input_ids": torch.ones(len(lengths), max(lengths), dtype=torch.long, device=device)}


def _pass(model: Any, given: dict[str, Any]) -> None:
    last = model.get_base_model().base_model(**given, use_cache=False).last_hidden_state
    last.backward(torch.ones_like(last))


def _forward(model: Any, given: dict[str, Any]) -> None:
    with torch.no_grad():
        model.get_base_model().base_model(**given, use_cache=False)


def _head(model: Any, lengths: Sequence[int], labelled: int) -> Step:
    """What scores the labelled tokens over the words there are; all tokens where the model's own code must do it."""
    weight = model.get_output_embeddings().weight.detach()
    compact = why_not_compact(model) is None
    count = labelled if compact else sum(lengths)
    hidden = torch.randn(count, weight.shape[1], device=weight.device, dtype=weight.dtype, requires_grad=True)
    labels = torch.zeros(count, dtype=torch.long, device=weight.device)

    def step() -> None:
        if compact:
            loss = labelled_nll(hidden, weight, labels)
        else:
            loss = torch.nn.functional.cross_entropy((hidden @ weight.t()).float(), labels)
        loss.backward()

    return step


def _median_seconds(step: Step) -> float:
    """Of a few times, after one that warms up."""
    taken = []
    for _ in range(REPEATS + 1):
        _wait()
        begun = time.perf_counter()
        step()
        _wait()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken[1:])


def _wait() -> None:
    if device_kind() == "cuda":
        torch.cuda.synchronize()
