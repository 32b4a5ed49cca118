"""Adapters trained in groups are PEFT's: the same outputs and gradients, one dropout draw in distribution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lora_med.adapters.runtime.attach import attach_new
from lora_med.config.schema import LoraSettings
from lora_med.models.base import load_base
from lora_med.training.step.dropout_mask import draw_mask
from lora_med.training.step.fused_lora import Member, _Group, find_groups, fused_lora
from tests.tiny import FAMILIES, make_tiny
from tests.training.support import make_base

IDS = torch.arange(3, 27).view(2, 12)


def make(family: str = "llama", **settings: Any) -> Any:
    """A PeftModel whose update is not zero, in training mode."""
    lora = LoraSettings(**{"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, **settings})
    model = attach_new(make_base(family, attention="sdpa"), lora, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or name.endswith(".bias"):
            parameter.data.normal_(0, 0.1, generator=generator)
    return model.train()


def gradients(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    logits = model(input_ids=IDS, use_cache=False).logits
    torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).backward()
    return logits.detach(), {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], within: float = 1e-5) -> None:
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        assert float((found[name] - one).norm()) <= within * float(one.norm()) + 1e-9, name


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_and_gradients_are_those_of_peft(family: str) -> None:
    model = make(family)
    logits, expected = gradients(model)
    with fused_lora(model):
        fused, found = gradients(model)
    assert float((fused - logits).abs().max()) < 1e-5 * float(logits.abs().max())
    same(found, expected)
    again, last = gradients(model)  # and afterwards PEFT's own again, to the bit
    assert torch.equal(again, logits)
    assert all(torch.equal(last[name], one) for name, one in expected.items())


def test_layers_that_read_one_tensor_are_a_group() -> None:
    model = make()
    names = {id(module): name.rpartition(".")[2] for name, module in model.named_modules()}
    found = [[names[id(member.layer)] for member in group.members] for group in find_groups(model)]
    assert found == 2 * [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]]


def test_finding_the_groups_draws_no_number_and_keeps_the_mode() -> None:
    model = make(lora_dropout=0.3)
    state = torch.get_rng_state()
    find_groups(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training


def test_the_group_is_differentiated_exactly() -> None:
    model = make().double()
    group = next(one for one in find_groups(model) if len(one.members) == 3)
    inputs = torch.randn(2, 3, 64, dtype=torch.float64, requires_grad=True)
    matrices = [matrix for member in group.members for matrix in member.matrices]

    def outputs(inputs: torch.Tensor, *matrices: torch.Tensor) -> Any:
        return _Group.apply(inputs, group.members, draw_mask, *matrices)

    # The last sum of B's gradient is in float32: coarser differences show the same derivative.
    assert torch.autograd.gradcheck(outputs, (inputs, *matrices), eps=1e-4, atol=1e-4, rtol=1e-3)


def test_each_input_is_dropped_with_the_requested_probability() -> None:
    """0.05 is no whole number of 256ths: the threshold must fall on both sides, 12 and 13, in the right proportion."""
    torch.manual_seed(5)
    draws = [(draw_mask(torch.empty(200, 501), 0.05) == 0).double() for _ in range(400)]
    shares = torch.stack([one.mean() for one in draws])
    assert set(draw_mask(torch.empty(200, 501), 0.05).unique().tolist()) == {-1, 0}
    assert abs(float(shares.mean()) - 0.05) < 4 * (1 / 256) * (0.8 * 0.2 / 400) ** 0.5
    high, low = shares[shares > 12.5 / 256], shares[shares <= 12.5 / 256]
    assert abs(float(high.mean()) - 13 / 256) < 1e-4
    assert abs(float(low.mean()) - 12 / 256) < 2e-4
    rows = draws[0].sum(1)
    share = float(draws[0].mean())
    assert abs(float(rows.var()) / (501 * share * (1 - share)) - 1) < 0.4  # as of independent draws
    assert abs(float(torch.corrcoef(torch.stack([draws[0].flatten(), draws[1].flatten()]))[0, 1])) < 0.015


def test_the_draw_follows_torchs_seed_and_moves_on() -> None:
    like = torch.empty(64, 64)
    torch.manual_seed(7)
    first, second = draw_mask(like, 0.2), draw_mask(like, 0.2)
    torch.manual_seed(7)
    assert torch.equal(draw_mask(like, 0.2), first)
    assert not torch.equal(first, second)


def test_a_draw_asks_its_device_nothing() -> None:
    like = torch.empty(64, 30, device="meta")  # which cannot answer
    assert draw_mask(like, 0.2).shape == like.shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_mean_over_dropout_is_the_update_without_it(dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    model = make(lora_dropout=0.4).to(dtype)
    group = next(one for one in find_groups(model) if len(one.members) == 2)
    layer = group.members[0].layer
    inputs = torch.randn(1, 400, 64, dtype=dtype)
    base = layer.base_layer(inputs).float().detach()
    plain = (layer.lora_B["default"](layer.lora_A["default"](inputs)) * layer.scaling["default"]).float().detach()
    matrices = [matrix for member in group.members for matrix in member.matrices]
    drawn = torch.stack(
        [_Group.apply(inputs, group.members, draw_mask, *matrices)[0].float().detach() - base for _ in range(300)]
    )
    slope = float((drawn.mean(0) * plain).sum() / plain.square().sum())
    assert abs(slope - 1) < 0.02
    assert float((drawn[0] - drawn[1]).abs().max()) > 0


def test_dropped_inputs_get_no_gradient_through_the_update() -> None:
    model = make(lora_dropout=0.5)
    group = next(one for one in find_groups(model) if len(one.members) == 1)
    member = group.members[0]
    member.layer.base_layer.weight.data.zero_()
    inputs = torch.ones(1, 8, member.matrices[0].shape[1], requires_grad=True)
    torch.manual_seed(3)
    output = _Group.apply(inputs, (member,), draw_mask, *member.matrices)[0]
    output.square().sum().backward()
    torch.manual_seed(3)
    kept = draw_mask(inputs[0], 0.5)
    assert inputs.grad is not None
    assert torch.equal(inputs.grad[0] == 0, kept == 0)


def test_recomputed_activations_draw_the_same_dropout() -> None:
    """With gradient checkpointing the forward pass runs twice; both must drop the same."""

    def run(recompute: bool) -> dict[str, torch.Tensor]:
        model = make(lora_dropout=0.3)
        if recompute:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.enable_input_require_grads()
        with fused_lora(model):
            torch.manual_seed(11)
            return gradients(model)[1]

    same(run(True), run(False))


def test_an_input_without_gradient_needs_none() -> None:
    model = make()
    first = next(one for one in find_groups(model) if len(one.members) == 3)
    outputs = _Group.apply(
        torch.randn(1, 4, 64), first.members, draw_mask, *[m for one in first.members for m in one.matrices]
    )
    sum(output.sum() for output in outputs).backward()
    assert all(matrix.grad is not None for matrix in first.members[0].matrices)


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"lora_dropout": 0.0, "use_rslora": True}])
def test_what_is_not_plain_lora_stays_peft(settings: dict[str, Any]) -> None:
    model = make(**settings)
    groups = find_groups(model)
    assert bool(groups) == ("use_dora" not in settings)
    _, expected = gradients(model)
    with fused_lora(model):
        same(gradients(model)[1], expected)


def test_evaluation_drops_nothing_and_is_peft_s() -> None:
    """Few tokens, as in generation, to the bit; many, as in validation, in groups."""
    model = make(lora_dropout=0.5).eval()
    many = IDS.repeat(4, 4)
    with torch.no_grad():
        expected = [model(input_ids=ids).logits for ids in (IDS[:1, :8], many)]
        with fused_lora(model):
            few, found = (model(input_ids=ids).logits for ids in (IDS[:1, :8], many))
            random = torch.get_rng_state()
            assert torch.equal(model(input_ids=many).logits, found)
            assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(few, expected[0])
    assert float((found - expected[1]).abs().max()) < 1e-5 * float(expected[1].abs().max())


def test_a_disabled_adapter_is_bit_identical_to_peft_s() -> None:
    model = make().eval()
    with torch.no_grad(), model.disable_adapter():
        base = model(input_ids=IDS.repeat(4, 4)).logits
        with fused_lora(model):
            assert torch.equal(model(input_ids=IDS.repeat(4, 4)).logits, base)


def test_layers_of_several_dropouts_are_grouped_separately_in_evaluation_too() -> None:
    """Groups are found while nothing is dropped; they must hold when training begins."""
    model = make(lora_dropout=0.5).eval()
    layer = model.get_base_model().model.layers[0].self_attn
    layer.v_proj.lora_dropout["default"].p = 0.25
    (one,) = (group for group in find_groups(model) if any(each.layer is layer.v_proj for each in group.members))
    assert len(one.members) == 1


def test_a_4bit_base_gives_peft_s_gradients(tmp_path: Path) -> None:
    base = load_base(str(make_tiny("llama", tmp_path)), quantization="4bit", dtype="float32", attention="sdpa")
    model = attach_new(base, LoraSettings(r=4, lora_dropout=0.0), seed=0).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1)
    _, expected = gradients(model)
    with fused_lora(model) as groups:
        assert sum(len(group.members) for group in groups) == 14
        same(gradients(model)[1], expected)


def test_a_member_reads_its_weight_transposed_where_it_is_stored_so() -> None:
    model = make("gpt2")
    member = next(one for group in find_groups(model) for one in group.members)
    assert isinstance(member, Member)
    assert member.weight(torch.float32).shape == tuple(reversed(member.layer.base_layer.weight.shape))


def test_a_layer_that_several_blocks_share_is_left_to_peft() -> None:
    model = make()
    layers = model.get_base_model().model.layers
    layers[1] = layers[0]
    _, expected = gradients(model)
    with fused_lora(model) as groups:
        assert not groups
        same(gradients(model)[1], expected)


def test_packed_weights_handed_out_without_their_state_are_read_by_the_layers_own(tmp_path: Path) -> None:
    """As FSDP does: the parameter it gathers is a plain one."""
    base = load_base(str(make_tiny("llama", tmp_path)), quantization="4bit", dtype="float32", attention="sdpa")
    model = attach_new(base, LoraSettings(r=4, lora_dropout=0.0), seed=0)
    member = next(one for group in find_groups(model) for one in group.members)
    layer = member.layer.base_layer
    expected = member.weight(torch.float32)
    layer.quant_state = layer.weight.quant_state
    layer._parameters["weight"] = torch.nn.Parameter(layer.weight.data.clone(), requires_grad=False)
    assert torch.equal(member.weight(torch.float32), expected)
