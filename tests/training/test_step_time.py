"""How long a step takes is told by two layers of the base, and not told where two do not stand for all."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_med.config.schema import LoraSettings
from lora_med.training.planner.step_time import (
    StepTime,
    _inputs,
    extrapolate,
    skeleton_with_adapters,
    time_batch,
    typical,
    why_not_timed,
)
from lora_med.training.step.frozen_cache import lowest_adapted
from tests.tiny import FAMILIES, make_tiny
from tests.tiny_families import make_family
from tests.training.test_run_memory import shape_of

DOCUMENTS = ((40,), (60,), (60, 20, 20))
FREE = 1 << 32


def changed(folder: Path, **settings: Any) -> Path:
    """The base with other settings in its config.json."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **settings}))
    return folder


def test_layers_are_added_as_the_second_was() -> None:
    # By hand: a pass over one layer takes 5, over two 7, so a layer takes 2 and the rest 3; over ten 23.
    assert extrapolate(5.0, 7.0, 10) == 23.0
    assert extrapolate(5.0, 4.9, 10) == 5.0  # no layer takes less than nothing


def test_a_step_time_includes_what_the_cached_layers_cost() -> None:
    assert StepTime(tokens=100, above=3.0, below=1.0).seconds == 4.0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_family_can_be_timed(tmp_path: Path, family: str, checkpointing: bool) -> None:
    shape = shape_of(make_tiny(family, tmp_path, layers=3))
    assert why_not_timed(shape, 100, FREE) is None
    step_time = time_batch(shape, DOCUMENTS, 30, checkpointing=checkpointing)
    assert step_time.tokens == 200
    assert step_time.below == 0
    assert 0 < step_time.above < math.inf


@pytest.mark.parametrize("options", [{"quantization": "4bit"}, {"quantization": "8bit"}, {"dora": True}])
def test_so_can_quantized_bases_and_other_adapters(tmp_path: Path, options: dict[str, Any]) -> None:
    dora = options.get("dora", False)
    rest = {name: one for name, one in options.items() if name != "dora"}
    shape = shape_of(make_tiny("llama", tmp_path), lora=LoraSettings(use_dora=dora), **rest)
    assert time_batch(shape, DOCUMENTS, 30, checkpointing=False).seconds > 0


@pytest.mark.parametrize(
    "lora",
    [
        LoraSettings(layers_to_transform=[3]),
        LoraSettings(target_modules=["layers.3.self_attn.q_proj"]),
        LoraSettings(target_modules=["model.layers.3.mlp.up_proj"], rank_pattern={"up_proj": 2}),
    ],
)
def test_adapters_on_the_last_layer_alone_leave_three_below(tmp_path: Path, lora: LoraSettings) -> None:
    shape = shape_of(make_tiny("llama", tmp_path, layers=4), lora=lora)
    assert why_not_timed(shape, 100, FREE) is None
    found = lowest_adapted(skeleton_with_adapters(shape))
    assert found is not None
    assert found[1] == 3
    assert time_batch(shape, DOCUMENTS, 30, checkpointing=False).seconds > 0


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_that_pads_is_timed_padded(tmp_path: Path, attention: str) -> None:
    shape = shape_of(make_tiny("llama", tmp_path))
    padded = type(shape)(**{**vars(shape), "attention": attention})
    assert time_batch(padded, ((40,), (60,)), 30, checkpointing=False).tokens == 100
    given = _inputs(padded, ((40,), (60,)), torch.zeros(264, 64))
    assert given["input_ids"].shape == (2, 60)
    assert given["attention_mask"].sum(1).tolist() == [40, 60]


def test_typical_documents_are_one_of_each_part() -> None:
    # By hand: of ten lengths in two halves, the middle of each is the third and the eighth; their mean is 5.5.
    lengths = [(one,) for one in (10, 1, 9, 2, 8, 3, 7, 4, 6, 5)]
    assert typical(lengths, 11) == [(3,), (8,)]
    assert typical([(7,)], 100) == [(7,)]
    assert typical([(5, 1, 1), (20,)], 1) == [(20,)]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_position_embeddings": 64}, "longer than the base's context of 64"),
        ({"num_kv_shared_layers": 2}, "keys of others"),
        ({"mlp_layer_types": ["dense", "sparse", "dense"]}, "several kinds (mlp_layer_types)"),
    ],
)
def test_where_two_layers_do_not_represent_all_no_time_is_reported(
    tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    shape = shape_of(changed(make_tiny("llama", tmp_path, layers=3), **settings))
    assert reason in str(why_not_timed(shape, 100, FREE))


@pytest.mark.parametrize("experts", [False, True])
def test_a_mixture_is_timed_by_two_of_its_layers_where_all_are_mixtures(tmp_path: Path, experts: bool) -> None:
    lora = LoraSettings(target_experts=experts)
    shape = shape_of(make_family("mixtral", tmp_path / "mixtral"), lora=lora)
    assert why_not_timed(shape, 100, FREE) is None
    assert 0 < time_batch(shape, DOCUMENTS, 30, checkpointing=False).above < math.inf
    upper = LoraSettings(target_experts=experts, layers_to_transform=[1])
    shape = shape_of(tmp_path / "mixtral", lora=upper)
    step_time = time_batch(shape, DOCUMENTS, 30, checkpointing=False)
    assert step_time.above > 0 and step_time.tokens == 200


def test_a_mixture_with_layers_of_other_weights_is_not_timed(tmp_path: Path) -> None:
    shape = shape_of(make_family("deepseek_v3", tmp_path / "deepseek"))  # its first layer has no experts
    assert "several kinds (their weights)" in str(why_not_timed(shape, 100, FREE))


def test_windows_make_layers_different_only_for_longer_rows(tmp_path: Path) -> None:
    kinds = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 90, "use_sliding_window": True}
    shape = shape_of(changed(make_tiny("qwen3", tmp_path), **kinds))
    assert why_not_timed(shape, 90, FREE) is None
    assert "several kinds" in str(why_not_timed(shape, 91, FREE))


def test_layers_that_do_not_fit_are_not_timed(tmp_path: Path) -> None:
    shape = shape_of(make_tiny("llama", tmp_path))
    assert "do not fit" in str(why_not_timed(shape, 100, 1 << 10))
