"""The training loss, over the labeled tokens only, in one pass.

Without Triton, TRL's loss scores every position, prompt and padding too, and computes the logits again in the backward
pass. The output head of a LoRA run is frozen, so only the hidden states need a gradient. It follows from the logits:
softmax minus one-hot, times the head. So it is computed together with the loss, block by block, and the backward pass
is one multiplication. Exact: equal to torch's cross entropy up to rounding. Of a head with trained rows
(`lora.trainable_tokens`), these rows get their gradient in the same pass.
"""

from __future__ import annotations

import functools
import logging
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from lora_med.adapters.tensors.token_rows import trained_rows
from lora_med.models.structure.backbone import backbone
from lora_med.models.tokens.vocabulary import head_of

logger = logging.getLogger(__name__)
BLOCK_ROWS = 256  # rows of logits in memory at once
CACHED_ROWS = 8  # rows of them converted to probabilities at once: on a CPU these stay in its cache
# Settings by which a model family changes its logits after the head; where one is set, the model's own code must run.
LOGIT_CHANGES = ("final_logit_softcapping", "logit_scale", "logits_scaling", "output_multiplier", "lm_head_multiplier")

BALANCE_LOSS = "load_balancing_loss_func"  # in the modules of transformers whose mixtures of experts add it


class _LabeledNll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        rows: torch.Tensor | None,
        ids: torch.Tensor | None,
        each: bool,
    ) -> torch.Tensor:
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        of_rows = torch.zeros_like(rows) if rows is not None and ctx.needs_input_grad[4] else None
        own = None if rows is None else rows.to(weight.dtype)
        losses = torch.zeros(len(hidden), dtype=torch.float32, device=hidden.device)
        together = CACHED_ROWS if hidden.device.type == "cpu" else BLOCK_ROWS
        for start in range(0, len(hidden), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            inputs = hidden[block].to(weight.dtype)
            logits = torch.nn.functional.linear(inputs, weight, bias)
            if own is not None:
                logits[:, ids] = torch.nn.functional.linear(inputs, own)
            pieces = zip(
                logits.split(together), labels[block, None].split(together), losses[block].split(together), strict=True
            )
            for piece, chosen, nll in pieces:
                logarithms = torch.log_softmax(piece, -1, dtype=torch.float32)
                nll.copy_(logarithms.gather(1, chosen)[:, 0].neg_())
                if gradient is not None or of_rows is not None:
                    probabilities = logarithms.exp_()
                    piece.copy_(probabilities.scatter_add_(1, chosen, torch.full_like(chosen, -1, dtype=torch.float32)))
            owned = None if own is None else logits[:, ids]
            if owned is not None:
                logits[:, ids] = 0  # their rows are not the head's
            if of_rows is not None and owned is not None:
                of_rows += owned.float().T @ inputs.float()
            if gradient is not None:
                through = logits @ weight
                gradient[block] = (through if own is None or owned is None else through + owned @ own).to(hidden.dtype)
        ctx.save_for_backward(gradient, of_rows)
        ctx.each = each
        return losses if each else losses.sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[torch.Tensor | None, ...]:
        # In float32: 1 / tokens, or a scaler's factor, is not a number of sixteen bits.
        factor = gradients[0][:, None] if ctx.each else gradients[0]
        hidden, rows = (
            None if gradient is None else (gradient.float() * factor).to(gradient.dtype)
            for gradient in ctx.saved_tensors
        )
        return hidden, None, None, None, rows, None, None


def labeled_nll(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    rows: torch.Tensor | None = None,
    ids: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sum of the negative log-likelihoods, in nats: a float32 scalar, 0 for no rows.

    Args:
        hidden: shape (rows, width), the final hidden state before each labeled token. The gradient flows here only.
        weight: shape (words, width), the frozen output head.
        labels: shape (rows), the token ids to score; none may be -100.
        bias: shape (words), where the head has one.
        rows: shape (tokens, width), trained rows that take the place of the head's at `ids`; they get a gradient too.
    """
    return _LabeledNll.apply(hidden, weight, bias, labels, rows, ids, False)  # type: ignore[no-any-return]


def labeled_nlls(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """The negative log-likelihood of each row, shape (rows), float32; arguments as `labeled_nll` takes them."""
    return _LabeledNll.apply(hidden, weight, bias, labels, None, None, True)  # type: ignore[no-any-return]


def count_labeled(labels: torch.Tensor) -> torch.Tensor:
    """How many tokens of `labels`, shape (rows, tokens), are scored: not -100, and not the first of a row."""
    return (labels[:, 1:] != -100).sum()


def labeled_positions(labels: torch.Tensor) -> torch.Tensor:
    """Positions of those tokens in the flattened `labels`: shape (tokens scored), int64.

    For labels on a GPU the host waits for the answer.
    """
    scored = labels != -100
    scored[:, 0] = False
    return scored.flatten().nonzero()[:, 0]


def why_not_compact(model: Any, *, partitioned: bool = False) -> str | None:
    """Why the one-pass loss does not fit this causal language model, or None if it does.

    Args:
        model: the transformers model inside the adapters.
        partitioned: whether the weights are spread over processes so that the head cannot be read (ZeRO-3).
    """
    head = head_of(model)
    config = model.config.get_text_config()
    if type(head) is not torch.nn.Linear:
        return f"the output head is a {type(head).__name__}, which must be called, not read"
    if head.weight.requires_grad:
        return "the output head is trained too"
    if not head.weight.is_floating_point():
        return "the output head is quantized"
    if partitioned:
        return "ZeRO-3 spreads the output head over the processes"
    for name in LOGIT_CHANGES:
        if getattr(config, name, None) not in (None, 1, 1.0):
            return f"the model changes its logits ({name})"
    if getattr(config, "output_router_logits", False) and hasattr(sys.modules[type(model).__module__], BALANCE_LOSS):
        return "a mixture of experts adds its balance loss"
    return None


def prepare_loss(model: Any, *, partitioned: bool) -> str | None:
    """Add the one-pass loss to this causal language model, or return the reason why TRL's standard loss is used.

    TRL's loss cannot read a head with trained rows. Such a model's own logits are scored where one pass does not fit.
    """
    config = model.config.get_text_config()
    leave_out_balance(config)
    reason = why_not_compact(model, partitioned=partitioned)
    if reason is None:
        add_compact_loss(model)
    elif model.get_output_embeddings() is not head_of(model):
        if getattr(config, "output_router_logits", False):
            config.output_router_logits = False
            logger.info("loss: without the experts' balance loss, because tokens are trained")
        logger.info("loss: of all logits, because %s", reason)
        add_compact_loss(model, by_logits=True)
        return None
    else:
        logger.info("loss: TRL's standard path, because %s", reason)
    return reason


def leave_out_balance(config: Any) -> bool:
    """Turn the balance loss of a mixture of experts off, and return true, where TRL cannot compute it.

    TRL (1.0 to 1.16) reads the number of experts from `num_experts`, which a few configurations name otherwise. With
    frozen routers the balance loss moves the experts' inputs alone.
    """
    cannot = bool(getattr(config, "output_router_logits", False)) and not hasattr(config, "num_experts")
    if cannot:
        config.output_router_logits = False
        logger.info("loss: without the experts' balance loss, which TRL cannot compute for %s", config.model_type)
    return cannot


def add_compact_loss(model: Any, *, by_logits: bool = False) -> None:
    """Let `model(..., nll_labels=labels)` return the summed nll of the labeled tokens instead of logits.

    `nll_positions`, the result of `labeled_positions`, spares the wait for a GPU's answer. With `nll_each` the result
    is the nll of each labeled token, not their sum, for a head without trained rows. The call goes through the model
    itself, so that the hooks of DDP, FSDP and PEFT run; any other call is as before.

    Args:
        by_logits: score the model's own logits, where it changes them after the head.
    """
    original: Callable[..., Any] = model.forward

    @functools.wraps(type(model).forward)
    def forward(
        self: Any,
        *arguments: Any,
        nll_labels: torch.Tensor | None = None,
        nll_positions: torch.Tensor | None = None,
        nll_each: bool = False,
        **options: Any,
    ) -> Any:
        if nll_labels is None:
            return original(*arguments, **options)
        options["use_cache"] = False
        positions = labeled_positions(nll_labels) if nll_positions is None else nll_positions
        labels = nll_labels.flatten()[positions]
        if by_logits:
            logits = original(*arguments, **options).logits.flatten(0, 1)[positions - 1]
            how = "none" if nll_each else "sum"
            return torch.nn.functional.cross_entropy(logits.float(), labels, reduction=how)
        hidden = backbone(self)(*arguments, **options).last_hidden_state.flatten(0, 1)
        head = head_of(self)
        weight, bias = _complete(head.weight), _complete(head.bias)
        if nll_each:
            return labeled_nlls(hidden[positions - 1], weight, labels, bias)
        rows, ids = trained_rows(self.get_output_embeddings())
        return labeled_nll(hidden[positions - 1], weight, labels, bias, rows=rows, ids=ids)

    model.forward = types.MethodType(forward, model)


def _complete(weight: Any) -> Any:
    """FSDP2 hands out shards as DTensors; the loss needs the complete head."""
    return weight.full_tensor() if isinstance(weight, DTensor) else weight
