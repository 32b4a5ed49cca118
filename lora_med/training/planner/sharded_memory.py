"""What each process of a sharded run (FSDP2) needs: in host memory while the base is loaded, on its device in a step.

Between two steps a process holds its share of every weight, of the adapter and of the optimizer. The constants of 4-bit
weights are not sharded. In a step weights are gathered: each decoder layer by itself, and the output head with the last
norm, which stay gathered from the end of the forward pass to their gradient. Before that each process loads the whole
base into host memory, in 4 bits and in 16.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lora_med.models.memory import BYTES, weight_bytes
from lora_med.models.skeleton import skeleton
from lora_med.training.planner.run_memory import FLOAT32, QUANTIZING, ROUNDED, Need, Needs, Shape

COPIES = 2  # of weights while they are copied out of the buffer into which they were gathered


def shared_needs(shape: Shape, needs: Needs, processes: int) -> Needs:
    """The function that `measure` returns for one process, for each of several whose base is in shards."""
    gathered = gathered_bytes(shape)

    def share(lengths: Sequence[int], labeled: int, checkpointing: bool) -> Need:
        alone = needs(lengths, labeled, checkpointing)
        return replace(
            alone,
            weights=-(-alone.weights // processes),
            adapters=-(-alone.adapters // processes),
            gradients=-(-alone.gradients // processes),
            optimizer=-(-alone.optimizer // processes),
            gathered=gathered,
        )

    return share


def loading_bytes(shape: Shape) -> int:
    """Bytes of host memory that each process of a sharded run holds before its base is in shards: the whole base.

    Such a run does not take 4-bit weights from the cache. So each process quantizes them, on the CPU.
    """
    model = skeleton(shape.folder)
    options = {"double_quant": shape.double_quant, "dtype": shape.dtype}
    weights = weight_bytes(model, quantization=shape.quantization, **options).total
    in_full = weight_bytes(model, quantization="none", **options).total
    left_behind = int(QUANTIZING * in_full) if shape.quantization == "4bit" else 0
    return (FLOAT32 if shape.dtype == "float32" else ROUNDED).libraries + weights + left_behind


def gathered_bytes(shape: Shape) -> int:
    """Bytes of the weights that a process holds gathered: the head, a layer, and the next layer as it arrives."""
    model = skeleton(shape.folder)
    weights = weight_bytes(model, quantization=shape.quantization, double_quant=shape.double_quant, dtype=shape.dtype)
    size = BYTES[shape.dtype]
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    outside = {id(weight): weight.numel() * size for weight in (embedding, head)}  # one, where they are tied
    layer = (
        weights.full + weights.quantized - sum(outside.values())
    ) // model.config.get_text_config().num_hidden_layers
    return max(COPIES * head.numel() * size, head.numel() * size + (1 + COPIES) * layer)
