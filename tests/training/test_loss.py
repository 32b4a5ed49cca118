"""The one-pass loss is torch's cross entropy, value and gradient, over the labeled tokens alone."""

from __future__ import annotations

import pytest
import torch

from lora_med.training.step.loss import (
    BLOCK_ROWS,
    add_compact_loss,
    count_labeled,
    labeled_nll,
    labeled_positions,
    leave_out_balance,
    why_not_compact,
)
from tests.tiny import make_model
from tests.tiny_families import family_config

ROWS = 2 * BLOCK_ROWS + 37


def numbers(bias: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(ROWS, 32, generator=generator).requires_grad_()
    weight = torch.randn(300, 32, generator=generator) / 5
    labels = torch.randint(0, 300, (ROWS,), generator=generator)
    return hidden, weight, torch.randn(300, generator=generator) if bias else None, labels


@pytest.mark.parametrize("bias", [False, True])
def test_value_and_gradient_are_those_of_cross_entropy(bias: bool) -> None:
    hidden, weight, offset, labels = numbers(bias)
    loss = labeled_nll(hidden, weight, labels, offset) / ROWS
    loss.backward()
    found = hidden.grad
    hidden.grad = None
    expected = torch.nn.functional.cross_entropy(torch.nn.functional.linear(hidden, weight, offset), labels)
    expected.backward()
    assert abs(loss.item() - expected.item()) < 1e-6
    assert found is not None
    assert hidden.grad is not None
    assert float((found - hidden.grad).abs().max()) < 5e-6 * float(hidden.grad.abs().max())


def test_the_frozen_head_gets_no_gradient_and_evaluation_needs_none() -> None:
    hidden, weight, _, labels = numbers(False)
    labeled_nll(hidden, weight, labels).backward()
    assert weight.grad is None
    with torch.no_grad():
        assert not labeled_nll(hidden, weight, labels).requires_grad


def test_no_labeled_row_gives_zero_that_can_be_differentiated() -> None:
    hidden, weight, _, labels = numbers(False)
    loss = labeled_nll(hidden[:0], weight, labels[:0])
    loss.backward()
    assert loss.item() == 0
    assert hidden.grad is not None
    assert not hidden.grad.any()


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma", "qwen3", "phi3"])
@pytest.mark.parametrize("tie", [False, True])
def test_a_model_with_the_compact_loss_has_the_loss_of_its_logits(family: str, tie: bool) -> None:
    model = make_model(family, tie=tie).requires_grad_(False)
    ids = torch.randint(5, 264, (3, 20), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[:, :9] = -100
    labels[2] = -100
    with torch.no_grad():
        logits = model(input_ids=ids).logits
        assert why_not_compact(model) is None
        add_compact_loss(model)
        found = model(input_ids=ids, nll_labels=labels)
        places = labeled_positions(labels)
        parts = [model(input_ids=ids, nll_labels=labels, nll_positions=part) for part in places.split(7)]
        again = model(input_ids=ids).logits
    expected = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum"
    )
    assert abs(float(found / expected) - 1) < 1e-6
    assert len(parts) > 1
    assert abs(float(torch.stack(parts).sum() / found) - 1) < 1e-6
    assert torch.equal(again, logits)
    assert int(count_labeled(labels)) == 2 * 11


def test_the_first_token_of_a_row_is_never_scored() -> None:
    # By hand: of two rows of four, the second and fourth token of the first row, and the third of the second.
    labels = torch.tensor([[7, 7, -100, 7], [7, -100, 7, -100]])
    assert labeled_positions(labels).tolist() == [1, 3, 6]
    assert labels[0, 0] == 7


@pytest.mark.parametrize("name", ["final_logit_softcapping", "logit_scale", "logits_scaling"])
def test_a_family_that_changes_its_logits_keeps_its_own_path(name: str) -> None:
    model = make_model("llama").requires_grad_(False)
    setattr(model.config, name, 30.0)
    assert name in str(why_not_compact(model))


def test_a_trained_head_keeps_its_own_path() -> None:
    model = make_model("llama", tie=False)
    model.requires_grad_(True)
    assert why_not_compact(model) == "the output head is trained too"
    model.requires_grad_(False)
    model.lm_head = torch.nn.Sequential(model.lm_head)
    assert "Sequential" in str(why_not_compact(model))
    assert "ZeRO-3" in str(why_not_compact(make_model("llama").requires_grad_(False), partitioned=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_mean_of_a_rounded_gradient_is_taken_in_float32(dtype: torch.dtype) -> None:
    """A third is no number of sixteen bits; and a scaler's factor over one token is more than float16 holds."""
    hidden, weight, _, labels = numbers(False)
    hidden, weight = hidden.detach().to(dtype).requires_grad_(), weight.to(dtype)
    gradients = []
    for factor in (1.0, 1 / 3, 65536 / 4):
        hidden.grad = None
        (labeled_nll(hidden, weight, labels) * factor).backward()
        assert hidden.grad is not None
        gradients.append(hidden.grad)
    assert torch.equal(gradients[1], (gradients[0].float() / 3).to(dtype))
    assert torch.equal(gradients[2], (gradients[0].float() * (65536 / 4)).to(dtype))


def test_the_balance_loss_is_left_out_only_where_trl_cannot_count_the_experts() -> None:
    config = family_config("granitemoe")
    config.output_router_logits = True
    assert leave_out_balance(config) and not config.output_router_logits
    config = family_config("mixtral")
    config.output_router_logits = True
    assert not leave_out_balance(config) and config.output_router_logits


def test_trained_rows_of_the_head_get_the_gradient_of_cross_entropy() -> None:
    hidden, weight, _, labels = numbers(False)
    ids = torch.tensor([7, 299, 0])
    rows = torch.randn(3, 32, generator=torch.Generator().manual_seed(5)).requires_grad_()
    loss = labeled_nll(hidden, weight, labels, rows=rows, ids=ids) / ROWS
    loss.backward()
    found = [hidden.grad, rows.grad]
    hidden.grad = rows.grad = None
    logits = torch.nn.functional.linear(hidden, weight.index_copy(0, ids, rows))
    expected = torch.nn.functional.cross_entropy(logits, labels)
    expected.backward()
    assert abs(loss.item() - expected.item()) < 1e-6
    for actual, wanted in zip(found, (hidden.grad, rows.grad), strict=True):
        assert actual is not None and wanted is not None
        assert float((actual - wanted).abs().max()) < 5e-6 * float(wanted.abs().max())
