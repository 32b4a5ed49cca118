"""Batched greedy answers against one prompt at a time, on every family."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from lora_med.models.base import load_base
from lora_med.models.generation import before_end, greedy
from tests.tiny import FAMILIES, make_tiny


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_of_any_size_give_what_one_prompt_at_a_time_gives(family: str, tmp_path: Path) -> None:
    base = load_base(str(make_tiny(family, tmp_path / "base")), quantization="none", dtype="float32")
    draw = random.Random(3)
    prompts = [[1, *(draw.randrange(5, 261) for _ in range(draw.randrange(1, 40)))] for _ in range(9)]
    alone = [greedy(base.model, base.tokenizer, [one], max_new_tokens=12)[0] for one in prompts]
    done: list[int] = []
    for size in (60, 200, 10_000):
        done.clear()
        found = greedy(base.model, base.tokenizer, prompts, max_new_tokens=12, batch_tokens=size, advance=done.append)
        assert found == alone
        assert sum(done) == len(prompts)
    assert len(set(map(tuple, alone))) > 1


def test_an_answer_ends_before_its_first_end_token() -> None:
    assert before_end([7, 8, 2, 9, 4], ends=[4, 2]) == [7, 8]
    assert before_end([7], ends=[2]) == [7]
    assert before_end([], ends=[2]) == []


def test_no_prompts_have_no_answers(tmp_path: Path) -> None:
    base = load_base(str(make_tiny("llama", tmp_path / "base")), quantization="none", dtype="float32")
    assert greedy(base.model, base.tokenizer, [], max_new_tokens=5) == []
