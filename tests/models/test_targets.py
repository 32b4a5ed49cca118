"""Which layers are adapted: all linear ones but the head, and never a name that matches nothing."""

from __future__ import annotations

import pytest

from lora_med.errors import SettingsError
from lora_med.models.structure.targets import check_patterns, choose_targets
from tests.tiny import FAMILIES, make_model

LEAVES = {
    "gpt2": {"c_attn", "c_proj", "c_fc"},
    "phi3": {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"},
}
USUAL = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.mark.parametrize("family", FAMILIES)
def test_all_linear_is_every_layer_but_the_head(family: str) -> None:
    chosen = choose_targets(make_model(family), "all-linear")
    assert {one.leaf for one in chosen} == LEAVES.get(family, USUAL)
    assert {one.layer for one in chosen} == {0, 1}
    assert all(one.transposed == (family == "gpt2") for one in chosen)


def test_gpt2_inputs_and_outputs_are_not_swapped() -> None:
    fused = next(one for one in choose_targets(make_model("gpt2"), ["c_attn"]) if one.layer == 0)
    assert (fused.inputs, fused.outputs) == (64, 192)


def test_layers_to_transform_counts_from_zero() -> None:
    chosen = choose_targets(make_model("llama"), ["q_proj"], [1])
    assert [one.name for one in chosen] == ["model.layers.1.self_attn.q_proj"]


def test_a_misspelt_layer_names_the_near_one() -> None:
    with pytest.raises(SettingsError, match="q_porj") as caught:
        choose_targets(make_model("llama"), ["q_porj", "v_proj"])
    assert "did you mean 'q_proj'?" in (caught.value.fix or "")


def test_the_output_head_cannot_be_adapted() -> None:
    with pytest.raises(SettingsError, match="lm_head"):
        choose_targets(make_model("llama"), ["lm_head"])


@pytest.mark.parametrize("layers", [[2], [], [-1]])
def test_a_layer_number_that_is_not_there_is_refused(layers: list[int]) -> None:
    with pytest.raises(SettingsError) as caught:
        choose_targets(make_model("llama"), "all-linear", layers)
    assert "0 to 1" in (caught.value.fix or "")


@pytest.mark.parametrize("pattern", ["q_porj", "layers.7.*", "lm_head", "("])
def test_a_pattern_that_matches_nothing_is_refused(pattern: str) -> None:
    chosen = [layer.name for layer in choose_targets(make_model("llama"), "all-linear")]
    with pytest.raises(SettingsError):
        check_patterns({pattern: 4}, chosen, "lora.rank_pattern")
    check_patterns({"q_proj": 4, r"layers\.0\..*": 2}, chosen, "lora.rank_pattern")
