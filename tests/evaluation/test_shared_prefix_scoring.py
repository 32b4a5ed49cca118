"""Options as continuations in one row and prompts with a shared prefix, against one row for each option."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_med.adapters.runtime.swap import load_many, use
from lora_med.evaluation.likelihood.log_probabilities import score_by_row, score_options
from lora_med.evaluation.likelihood.shared_prefix_scoring import can_share_prefixes, question_row, shared_prefixes
from lora_med.models.base import load_base
from tests.evaluation.published import publish_random
from tests.tiny import FAMILIES, make_config, make_model, make_tiny

CONTEXT = 128
Items = list[tuple[list[int], list[list[int]]]]


def random_ids(seed: int, length: int) -> list[int]:
    return random.Random(seed).choices(range(5, 261), k=length)


def questions(shared: int = 0, *, number: int = 9) -> Items:
    """Questions of different lengths with options of different lengths, the first `shared` tokens the same in all."""
    beginning = [1, *random_ids(100, shared)]
    items: Items = []
    for seed in range(number):
        options = [random_ids(10 * seed + place, 1 + (seed + place) % 5) for place in range(4)]
        options[1] = [*options[0], 7]  # one that goes on where another ends
        items.append(([*beginning, *random_ids(seed, 4 + 3 * seed)], options))
    return items


def one_by_one(model: Any, items: Items) -> list[list[float]]:
    """Every option in a row of its own, read off the full logits, as transformers gives them."""
    found = []
    for prompt, options in items:
        scores = []
        for option in options:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[*prompt, *option]])).logits[0].double().log_softmax(-1)
            ends = range(len(prompt) - 1, len(prompt) + len(option) - 1)
            scores.append(sum(float(logits[place, token]) for place, token in zip(ends, option, strict=True)))
        found.append(scores)
    return found


def assert_same(found: list[list[float]], wanted: list[list[float]]) -> None:
    assert [one.index(max(one)) for one in found] == [one.index(max(one)) for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other, abs=2e-4)


@pytest.mark.parametrize("shared", [0, 40], ids=["alone", "prefix"])
@pytest.mark.parametrize("family", FAMILIES)
def test_options_in_one_row_score_as_in_rows_of_their_own_in_every_family(family: str, shared: int) -> None:
    model = make_model(family, context=CONTEXT)
    items = questions(shared)
    assert can_share_prefixes(model, CONTEXT)
    wanted = one_by_one(model, items)
    assert_same(score_options(model, items, CONTEXT), wanted)
    assert_same(score_options(model, items, CONTEXT, batch_tokens=64), wanted)
    assert_same(score_by_row(model, items, CONTEXT), wanted)


@pytest.mark.parametrize("attention", ["eager", "lora_med_sdpa"])
def test_every_attention_that_knows_masks_scores_the_same(attention: str, tmp_path: Path) -> None:
    base = load_base(str(make_tiny("llama", tmp_path)), quantization="none", dtype="float32", attention=attention)
    assert can_share_prefixes(base.model, CONTEXT)
    assert_same(score_options(base.model, questions(40), CONTEXT), one_by_one(base.model, questions(40)))


@pytest.mark.parametrize("quantization", ["none", "4bit"])
def test_adapters_of_a_pool_score_as_in_rows_of_their_own(quantization: str, tmp_path: Path) -> None:
    folder = make_tiny("qwen3", tmp_path / "base")
    publish_random(folder, "one", tmp_path / "store", seed=1, quantization=quantization)
    publish_random(folder, "two", tmp_path / "store", seed=2, quantization=quantization)
    base = load_base(str(folder), quantization=quantization, dtype="float32")
    items = questions(40)
    found: dict[str | None, list[list[float]]] = {}
    with load_many(base, ["one", "two"], tmp_path / "store") as pool:
        for name in (None, "one", "two"):
            with use(pool, name):
                found[name] = score_options(base.model, items, CONTEXT)
                assert_same(found[name], one_by_one(base.model, items))
    differences = [abs(a[0] - b[0]) for a, b in zip(found[None], found["one"], strict=True)]
    assert max(differences) > 0.1, "the adapter was active"


def test_a_row_that_is_too_long_keeps_its_first_token_and_shares_no_prefix() -> None:
    model = make_model("llama", context=64)
    beginning = [1, *random_ids(0, 30)]
    items = [([*beginning, *random_ids(seed, length)], [[9, 8], [7]]) for seed, length in enumerate((10, 12, 60))]
    found = score_options(model, items, 64)
    cut = [1, *items[2][0][-62:]]
    assert_same(found, one_by_one(model, [*items[:2], (cut, items[2][1])]))


def test_options_share_what_they_begin_with() -> None:
    row = question_row([1, 2, 3], [[4, 5, 6], [4, 7], [4, 5, 8], [9]], 64)
    assert row.tokens == (4, 5)
    assert row.parents == (-1, 0)
    assert row.offsets == ((-1, 0, 1), (-1, 0), (-1, 0, 1), (-1,))
    assert row.is_linear
    assert not question_row([1], [[4, 5], [6, 7]], 64).is_linear


def test_prompts_of_two_subjects_get_a_prefix_each_and_what_shares_little_none() -> None:
    one, other = random_ids(1, 30), random_ids(2, 50)
    prompts = [[*one, 5], [*other, 6], [*one, 7], [*other, 8, 9], [*other, 8], [250, 3], [251, 4], one]
    found = {tuple(group): common for common, group in shared_prefixes(prompts)}
    assert found == {(0, 2, 7): 29, (1, 3, 4): 50, (5, 6): 0}  # the prompt that is all prefix keeps a token of its own
    assert shared_prefixes([[1, 2, 3]]) == [(0, [0])]


def test_a_prefix_runs_once() -> None:
    model = make_model("llama", context=CONTEXT)
    sizes: list[int] = []
    hook = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    items = [([1, *random_ids(0, 60), 5 + place], [[9], [8]]) for place in range(8)]
    score_options(model, items, CONTEXT)
    hook.remove()
    assert sizes == [61, 8]


def test_the_head_runs_on_the_wanted_positions_only() -> None:
    model = make_model("llama", context=CONTEXT)
    rows: list[int] = []
    hook = model.lm_head.register_forward_hook(lambda module, args, output: rows.append(output.shape[1]))
    score_options(model, questions(), CONTEXT)
    hook.remove()
    assert sum(rows) == sum(len(option) for _, options in questions() for option in options)
    with torch.no_grad():
        assert model(input_ids=torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, 264), "the model is as it was"


def test_a_window_shorter_than_the_row_is_scored_row_by_row() -> None:
    from transformers import AutoModelForCausalLM

    config = make_config("mistral", context=CONTEXT)
    config.sliding_window = 16
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    assert not can_share_prefixes(model, 40)
    assert can_share_prefixes(model, 16)
    assert_same(score_options(model, questions(), CONTEXT), one_by_one(model, questions()))


def test_models_that_cannot_share_prefixes_are_known() -> None:
    from transformers import AutoModelForCausalLM, BloomConfig, MambaConfig

    bloom = AutoModelForCausalLM.from_config(BloomConfig(vocab_size=64, hidden_size=16, n_layer=1, n_head=2))
    mamba = AutoModelForCausalLM.from_config(MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1))
    assert not can_share_prefixes(bloom, 8)
    assert not can_share_prefixes(mamba, 8)
