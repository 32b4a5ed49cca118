"""What a run will need, before it starts: memory by purpose and phase, and the batch that fits.

The weights follow from the shapes, the activations from a run of the step's own code without memory. A CPU needs more
than that, which was measured in float32 and in bfloat16 (docs/performance.md): the libraries, and the holes that the C
library's allocator leaves between tensors of many sizes. None was measured on a GPU, which has few holes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lora_med.config.schema import TrainSettings
from lora_med.errors import SettingsError
from lora_med.models.attention.per_document import NAME as PER_DOCUMENT
from lora_med.models.base import Base
from lora_med.models.memory import BYTES, LARGE_BYTES, free_memory, returns_large_tensors, weight_bytes
from lora_med.models.precision import Choice
from lora_med.models.skeleton import skeleton
from lora_med.models.structure.linear_layers import linear_layers
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.planner.activations import saved_bytes, shell, size_of_fold
from lora_med.training.rows.arrow_rows import ArrowRows
from lora_med.training.rows.training_rows import row_lengths
from lora_med.training.step.loss import BLOCK_ROWS, why_not_compact

logger = logging.getLogger(__name__)
MIB = 1 << 20
CONTEXT, GPU_HOLES = 500 * MIB, 0.1  # libraries and holes on a GPU, not measured
USABLE = 0.9  # share of the free memory that a plan may use
QUANTIZING = 1.7  # of the full weights: memory not returned where a CPU quantizes them in this run
PROBED = (128, 256)  # tokens of the documents from which the bytes of any other are computed
ADAPTER_BYTES = 4  # float32
MOMENTS = 2  # of AdamW, for each trained number


@dataclass(frozen=True)
class Overhead:
    """The memory of a run on a CPU in addition to its tensors.

    Attributes:
        libraries: bytes of torch, transformers, PEFT, TRL and the code they generate on the first step.
        holes: share of the activations; the gaps between tensors that no other tensor fits into.
        between: the same share of what is saved between recomputed layers, which fragments the memory.
        recomputed: activations, in layers, while one layer is recomputed and its gradient computed.
        returned: the same where the layer's tensors are so large that their memory is returned immediately.
    """

    libraries: int
    holes: float
    between: float
    recomputed: float
    returned: float

    def layers_in_memory(self, widest_bytes: int, returns: bool) -> float:
        """Activations, in layers, while one layer is recomputed whose widest tensor has so many bytes.

        Where large tensors are returned, at most what a shorter batch of the same run needs, whose tensors are not.
        """
        share = min(1.0, LARGE_BYTES / widest_bytes) if returns else 1.0
        return max(self.returned, self.recomputed * share)


FLOAT32 = Overhead(libraries=600 * MIB, holes=0.45, between=4.0, recomputed=4.2, returned=2.2)
ROUNDED = Overhead(libraries=705 * MIB, holes=0.33, between=0.0, recomputed=4.8, returned=4.8)


@dataclass(frozen=True)
class Need:
    """Bytes that a run needs at its largest batch, by purpose."""

    libraries: int
    weights: int
    quantization_constants: int
    quantizing: int
    adapters: int
    gradients: int
    optimizer: int
    activations: int
    loss: int
    holes: int
    gathered: int = 0  # weights of other processes' shards
    reference: int = 0  # the adapter as it was at the start, with which method dpo compares
    gradients_of_patients: int = 0  # with privacy, one for each patient of a pass

    @property
    def total(self) -> int:
        """The peak: the end of a forward pass, in any step except the first."""
        return sum(asdict(self).values())

    @property
    def loaded(self) -> int:
        """Before the first step."""
        weights = self.weights + self.quantization_constants + self.quantizing
        return self.libraries + weights + self.adapters + self.reference

    @property
    def resting(self) -> int:
        """Between two steps: what is loaded, plus the optimizer's moments."""
        return self.loaded + self.optimizer


@dataclass(frozen=True)
class Shape:
    """The run whose memory is estimated: base, adapter, precision and attention.

    With `compares` (method dpo) each step has a pass of the reference too. It holds nothing for a gradient and ends
    before the policy's pass begins, so it adds time, and to the peak only the weights of the start. If it is `private`,
    a backward pass makes the gradient of each patient; in the worst case each row is a patient of its own.
    """

    folder: Path
    config: Any
    quantization: str
    double_quant: bool
    dtype: str
    attention: str
    on_gpu: bool = False
    quantizes: bool = False  # whether this run must quantize, because no earlier run cached the weights
    compares: bool = False
    private: bool = False


Needs = Callable[[Sequence[int], int, bool], Need]


def measure(shape: Shape) -> Needs:
    """A function from a batch (document lengths, labeled tokens, whether layers are recomputed) to its need."""
    model = skeleton(shape.folder)
    weights = weight_bytes(model, quantization=shape.quantization, double_quant=shape.double_quant, dtype=shape.dtype)
    adapted = shell(shape.folder, shape.config, shape.dtype, shape.attention)
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    text = model.config.get_text_config()
    returned = returns_large_tensors() and not shape.on_gpu
    folded = size_of_fold(model, shape.config.target_parameters or ()) * BYTES[shape.dtype]
    widest = max(max(layer.inputs, layer.outputs) for layer in linear_layers(model))
    compact = why_not_compact(model.requires_grad_(False)) is None
    size = BYTES[shape.dtype]
    in_full = weight_bytes(model, quantization="none", double_quant=False, dtype=shape.dtype).total
    left_behind = int(QUANTIZING * in_full) if shape.quantizes and not shape.on_gpu else 0
    activations = _activations(shape)
    overhead = FLOAT32 if shape.dtype == "float32" else ROUNDED

    def need(lengths: Sequence[int], labeled: int, checkpointing: bool) -> Need:
        saved = activations(lengths, checkpointing) + folded
        between = int(overhead.between * saved) if checkpointing and not shape.on_gpu else 0
        if checkpointing:
            layers = overhead.layers_in_memory(sum(lengths) * widest * size, returned)
            saved += int(layers * activations(lengths, False) / text.num_hidden_layers)
        rows = min(BLOCK_ROWS, labeled) if compact else sum(lengths)
        loss = rows * text.vocab_size * (size if compact else size + 2 * 4)
        return Need(
            libraries=CONTEXT if shape.on_gpu else overhead.libraries,
            weights=weights.full + weights.quantized,
            quantization_constants=weights.constants,
            quantizing=left_behind,
            adapters=trained * ADAPTER_BYTES,
            gradients=trained * ADAPTER_BYTES,
            optimizer=trained * ADAPTER_BYTES * MOMENTS,
            activations=saved,
            loss=loss,
            holes=between + int((GPU_HOLES if shape.on_gpu else overhead.holes) * (saved + loss)),
            reference=trained * ADAPTER_BYTES if shape.compares else 0,
            gradients_of_patients=len(lengths) * trained * ADAPTER_BYTES if shape.private else 0,
        )

    return need


def _activations(shape: Shape) -> Callable[[Sequence[int], bool], int]:
    """Bytes saved for the backward pass, for any lengths.

    Where documents are separate, each adds a term in its tokens and one in their square (attention with dropout saves
    its weights). Two lengths determine both terms. With any other attention each batch is counted.
    """
    curves: dict[bool, tuple[float, float, float]] = {}

    def count(batches: Sequence[Sequence[int]], checkpointing: bool) -> list[int]:
        return saved_bytes(
            shape.folder,
            shape.config,
            dtype=shape.dtype,
            attention=shape.attention,
            batches=batches,
            checkpointing=checkpointing,
        )

    def activations(lengths: Sequence[int], checkpointing: bool) -> int:
        if shape.attention != PER_DOCUMENT:
            return count([lengths], checkpointing)[0]
        if checkpointing not in curves:
            short, long = PROBED
            single, double, longer = count([[short], [short, short], [long]], checkpointing)
            first, second = double - single, longer - (2 * single - double)
            square = (second / long - first / short) / (long - short)
            curves[checkpointing] = (2 * single - double, first / short - square * short, square)
        fixed, slope, square = curves[checkpointing]
        return int(fixed + sum(slope * length + square * length**2 for length in lengths))

    return activations


def largest_batch(lengths: Sequence[int], rows: int) -> list[int]:
    """The longest rows that could be in one batch of so many rows."""
    return sorted(lengths, reverse=True)[:rows]


def fit_batch(
    settings: TrainSettings, lengths: Sequence[int], labeled_share: float, need: Needs, free: int
) -> tuple[TrainSettings, list[Choice]]:
    """The settings with the largest batch that fits in `free` bytes, and the reasons; the rows per step do not change.

    Layers are recomputed only where no batch fits otherwise, or the settings ask for it.

    Args:
        lengths: tokens of each row.
        labeled_share: the share of the tokens that is trained.
        need: the function that `measure` returns for the run.

    Raises:
        SettingsError: not even one row at a time fits.
    """
    together = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    sizes = [size for size in range(together, 0, -1) if together % size == 0]
    usable = int(free * USABLE)
    smallest = 0
    for checkpointing in (True,) if settings.gradient_checkpointing else (False, True):
        for size in sizes:
            batch = largest_batch(lengths, size)
            total = need(batch, math.ceil(labeled_share * sum(batch)), checkpointing).total
            smallest = total
            if total <= usable:
                return _fitted(settings, size, together // size, checkpointing, total, free)
    raise SettingsError(
        f"the longest row needs {smallest / 2**30:.1f} GiB, and {usable / 2**30:.1f} GiB can be used",
        where="train.max_length",
        fix="a smaller train.max_length, model.load_in_4bit=true, or a smaller base",
    )


def _fitted(
    settings: TrainSettings, size: int, accumulation: int, checkpointing: bool, total: int, free: int
) -> tuple[TrainSettings, list[Choice]]:
    memory = f"{total / 2**30:.1f} GiB of the {free / 2**30:.1f} that are free"
    choices = [
        Choice("batch", f"{size} rows, {accumulation} accumulated", f"its longest rows need {memory}"),
        Choice(
            "gradient checkpointing",
            "on" if checkpointing else "off",
            "train.gradient_checkpointing is set"
            if settings.gradient_checkpointing
            else "no batch fits without it"
            if checkpointing
            else "the activations fit",
        ),
    ]
    changed = {
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": accumulation,
        "gradient_checkpointing": checkpointing,
    }
    return settings.model_copy(update=changed), choices


def fit_to_memory(
    settings: TrainSettings, model: Any, base: Base, documents: Iterable[Tokens] | ArrowRows
) -> TrainSettings:
    """The settings with the batch that fits into this machine's memory, reported in the log; see `fit_batch`.

    Args:
        model: the PeftModel to be trained.
        documents: those to train on; each row of a stream, whose lengths are not known, counts as full.
    """
    device = model.get_input_embeddings().weight.device.type
    lengths, share = row_lengths(documents if isinstance(documents, Sequence | ArrowRows) else None, settings)
    shape = Shape(
        folder=base.folder,
        config=model.peft_config["default"],
        quantization=base.quantization,
        double_quant=base.double_quant,
        dtype=base.dtype,
        attention=base.attention,
        on_gpu=device == "cuda",
        quantizes=base.quantized_now,
        compares=settings.method == "dpo",
    )
    fitted, choices = fit_batch(settings, lengths, share, measure(shape), free_memory(device))
    for choice in choices:
        logger.info("%s", choice)
    return fitted
