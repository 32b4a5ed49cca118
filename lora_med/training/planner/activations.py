"""What a training step saves for its backward pass, in bytes: counted by running the step's own code without memory.

The model is built from config.json with tensors that have a shape and a type but no storage (torch's fake tensors). Its
forward pass runs on them, and autograd reports each tensor that it would save. So the count is valid for every family,
target, dropout, precision and attention, and takes two seconds for 30 layers.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lora_med.adapters.runtime.peft_injection import named_layers_only
from lora_med.models.attention.per_document import NAME as PER_DOCUMENT
from lora_med.models.attention.per_document import no_mask, register_attention
from lora_med.models.skeleton import skeleton
from lora_med.models.structure.backbone import backbone
from lora_med.models.structure.expert_stacks import adapted_stacks
from lora_med.training.step.fused_lora import fused_lora


def _undrawn(like: torch.Tensor, dropout: float) -> torch.Tensor:
    return torch.empty(like.shape, dtype=torch.int8)


def shell(folder: Path, config: Any, dtype: str, attention: str) -> Any:
    """The PeftModel that a run would train, on the meta device."""
    register_attention()
    base = skeleton(folder).to(getattr(torch, dtype)).requires_grad_(False)
    base.set_attn_implementation(attention)
    with torch.device("meta"):
        return with_adapter(base, config)


def with_adapter(base: Any, config: Any) -> Any:
    """The PeftModel of a run on `base`, its adapter in float32 and initialized at random.

    Other initializations read the weights; they save as much for the backward pass and train as fast.
    """
    from peft import get_peft_model

    config = copy.copy(config)
    config.init_lora_weights = True
    with warnings.catch_warnings(), named_layers_only():
        warnings.simplefilter("ignore")
        model: Any = get_peft_model(base, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


@contextmanager
def _experts_without_values() -> Iterator[None]:
    """Let routed experts run on fake tensors: each row by one expert's matrix, which saves what their product saves.

    Which expert a row goes to depends on values, and torch's product of groups has a shape rule for bfloat16 alone.
    """
    from transformers.integrations import moe

    before = moe._grouped_mm
    moe._grouped_mm = lambda rows, weights, offs: rows.to(weights.dtype) @ weights[0]
    try:
        yield
    finally:
        moe._grouped_mm = before


def _without_storage(model: Any) -> None:
    """Replace every meta parameter and buffer by a fake CPU tensor; to be called in fake mode."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                module._parameters[name] = torch.nn.Parameter(empty, requires_grad=parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def saved_bytes(
    folder: Path,
    config: Any,
    *,
    dtype: str,
    attention: str,
    batches: Sequence[Sequence[int]],
    checkpointing: bool,
) -> list[int]:
    """Bytes that are saved for the backward pass of each batch, without the frozen weights.

    Args:
        folder: the base's; only its config.json is read.
        config: PEFT's LoraConfig of the adapter.
        batches: for each, the tokens of its documents; with an attention that needs padding, all are as the longest.
        checkpointing: whether the layers are recomputed; then this is what is saved between them.
    """
    model = shell(folder, config, dtype, attention)
    with FakeTensorMode(allow_non_fake_inputs=True), _experts_without_values():
        _without_storage(model)
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.get_base_model().disable_input_require_grads()  # as `no_gradient_below` does in training
        model.train()
        saved: dict[int, tuple[int, Any]] = {}
        own = {id_of(tensor) for tensor in [*model.parameters(), *model.buffers()]}

        def look(tensor: torch.Tensor) -> torch.Tensor:
            if id_of(tensor) not in own:
                saved[id_of(tensor)] = tensor.untyped_storage().nbytes(), tensor.untyped_storage()
            return tensor

        totals = []
        hooks = torch.autograd.graph.saved_tensors_hooks(look, lambda tensor: tensor)
        with fused_lora(model, _undrawn), hooks, no_mask() if attention == PER_DOCUMENT else nullcontext():
            for lengths in batches:
                inputs = _inputs(lengths, attention)
                last = backbone(model.get_base_model())(**inputs, use_cache=False).last_hidden_state
                del last
                totals.append(sum(size for size, _ in saved.values()))
                saved.clear()
    return totals


def size_of_fold(model: Any, target_parameters: Sequence[str]) -> int:
    """Numbers of the gradient of one layer's experts: PEFT folds their weights, so that autograd makes all of it."""
    stacks = adapted_stacks(model, target_parameters) if target_parameters else []
    return max((stack.numbers for stack in stacks), default=0)


def id_of(tensor: torch.Tensor) -> int:
    """Equal for two tensors that share their storage."""
    return tensor.untyped_storage()._cdata


def _inputs(lengths: Sequence[int], attention: str) -> dict[str, Any]:
    if attention == PER_DOCUMENT:
        return {
            "input_ids": torch.zeros(1, sum(lengths), dtype=torch.long),
            "document_lengths": [(length,) for length in lengths],
        }
    return {"input_ids": torch.zeros(len(lengths), max(lengths), dtype=torch.long)}
