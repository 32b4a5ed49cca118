"""The batched scorers against a loop that runs one row at a time and reads one logit at a time."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from lora_med.errors import DivergedError
from lora_med.evaluation.likelihood.batch_size import fitting
from lora_med.evaluation.likelihood.log_probabilities import (
    batches,
    cut_left,
    option_rows,
    score_options,
    score_text,
    windows,
)
from tests.tiny import make_model


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model("llama", context=64)


def naive(model: Any, ids: list[int], index: int) -> float:
    """log p(ids[index] | ids[:index]), from a forward pass of its own."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids[:index]])).logits[0, -1].double()
    return float(torch.log_softmax(logits, -1)[ids[index]])


def random_ids(seed: int, length: int) -> list[int]:
    return [1, *random.Random(seed).choices(range(5, 261), k=length - 1)]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma"])
def test_text_in_batches_equals_one_token_at_a_time(family: str) -> None:
    model = make_model(family, context=64)
    items = [(random_ids(seed, length), 1) for seed, length in enumerate((12, 2, 31, 17, 40))]
    found = score_text(model, items, 64)
    for (ids, _), nll in zip(items, found, strict=True):
        assert nll == pytest.approx(-sum(naive(model, ids, index) for index in range(1, len(ids))), abs=1e-4)


def test_padding_changes_nothing(model: Any) -> None:
    items = [(random_ids(seed, length), 1) for seed, length in enumerate((5, 60, 23, 23, 41, 8))]
    alone = [score_text(model, [item], 64)[0] for item in items]
    assert score_text(model, items, 64) == pytest.approx(alone, abs=1e-5)


def test_only_tokens_from_first_on_are_scored(model: Any) -> None:
    ids = random_ids(3, 20)
    nll = score_text(model, [(ids, 15)], 64)[0]
    assert nll == pytest.approx(-sum(naive(model, ids, index) for index in range(15, 20)), abs=1e-4)


@pytest.mark.parametrize("length", [2, 15, 16, 17, 23, 24, 25, 100])
def test_windows_score_every_token_once_and_fit(length: int) -> None:
    ids = list(range(1000, 1000 + length))
    rows = windows(ids, 1, 16)
    assert [token for row in rows for token in row.tokens] == ids[1:]
    for row in rows:
        assert len(row.input_ids) <= 16
        assert row.input_ids[0] == 1000
        for place, token in zip(row.positions, row.tokens, strict=True):
            assert row.input_ids[place] in (token - 1, 1000)
    for row in rows[1:]:
        assert row.positions[0] >= 8, "a later window begins with half a context of tokens already scored"


def test_a_long_item_is_scored_in_windows(model: Any) -> None:
    ids = random_ids(4, 100)
    rows = windows(ids, 1, 64)
    expected = sum(
        naive(model, [*row.input_ids[: place + 1], token], place + 1)
        for row in rows
        for place, token in zip(row.positions, row.tokens, strict=True)
    )
    assert score_text(model, [(ids, 1)], 64)[0] == pytest.approx(-expected, abs=1e-4)


def test_options_equal_one_token_at_a_time(model: Any) -> None:
    items = [
        (random_ids(5, 20), [[30], [31], [32]]),
        (random_ids(6, 11), [[30, 40, 50], [30, 41], [77], [30, 40]]),
        (random_ids(7, 33), [[9, 9], [10, 9]]),
    ]
    for (prompt, options), scores in zip(items, score_options(model, items, 64), strict=True):
        for option, score in zip(options, scores, strict=True):
            ids = [*prompt, *option]
            expected = sum(naive(model, ids, index) for index in range(len(prompt), len(ids)))
            assert score == pytest.approx(expected, abs=1e-4)


def test_options_of_one_token_share_one_row() -> None:
    assert len(option_rows([1, 2, 3], [[7], [8], [9]], 64)[0]) == 1
    assert len(option_rows([1, 2, 3], [[7, 8], [7], [7, 9], [6, 5]], 64)[0]) == 2


def test_a_prompt_over_the_context_keeps_its_first_token_and_its_end(model: Any) -> None:
    assert cut_left([1, 2, 3, 4, 5, 6], 4) == (1, 4, 5, 6)
    prompt = random_ids(8, 90)
    scores = score_options(model, [(prompt, [[30, 31], [40]])], 64)[0]
    expected = score_options(model, [([1, *prompt[-62:]], [[30, 31]]), ([1, *prompt[-62:]], [[40]])], 64)
    assert scores == pytest.approx([expected[0][0], expected[1][0]], abs=1e-5)


def test_batches_hold_every_row_once_within_the_limit() -> None:
    lengths = [5, 100, 7, 30, 30, 2]
    found = batches(lengths, 100, batch_tokens=64)
    assert sorted(index for batch in found for index in batch) == list(range(6))
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 64 for batch in found)


def test_on_a_cpu_no_batch_of_several_rows_is_larger_than_its_caches(model: Any) -> None:
    """Forty rows of 40 tokens, twelve to a batch of 512: as text, and as questions without and with a shared prefix."""
    shapes: list[tuple[int, int]] = []
    hook = model.register_forward_pre_hook(
        lambda _, given, options: shapes.append(tuple(options["input_ids"].shape)), with_kwargs=True
    )
    score_text(model, [(random_ids(seed, 40), 1) for seed in range(40)], 64)
    score_options(model, [(random_ids(seed, 40), [[30], [31]]) for seed in range(40)], 64)
    shared = random_ids(0, 20)
    score_options(model, [(shared + random_ids(seed, 40)[1:], [[30], [31]]) for seed in range(40)], 64)
    hook.remove()
    sizes = [rows for rows, _ in shapes if rows > 1]
    assert sizes == [12, 12, 12, 4, 12, 12, 12, 4, 13, 13, 13]
    assert fitting(4096, torch.device("cuda")) == 4096


def test_a_model_with_nan_is_refused() -> None:
    broken = make_model("llama", context=64)
    with torch.no_grad():
        broken.model.norm.weight[0] = float("nan")
    with pytest.raises(DivergedError, match="1 of 1 scored rows"):
        score_text(broken, [(random_ids(9, 10), 1)], 64)
