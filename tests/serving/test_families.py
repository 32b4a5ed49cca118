"""The engine on bases of every family: answers in a shared batch are those of transformers' generation alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lora_med.models.base import load_base
from lora_med.serving.engine import Engine
from lora_med.serving.requests import Limits
from tests.serving.conftest import ask, finish
from tests.tiny_families import ALL, make_family

# With a window of 16 tokens, with experts, with alibi, with a state space, and a hybrid.
QUICK = ("ministral", "gemma3_text", "mixtral", "bloom", "mamba", "lfm2")
# With attention of their own code, scores that SDPA has not, keys that are compressed, or layers besides attention.
APART = ("falcon", "falcon_alibi", "bloom", "gptj", "gpt_neo", "gemma2", "gpt_oss", "deepseek_v2", "deepseek_v3")
APART += ("llama4_text", "mllama", "mamba", "mamba2", "falcon_h1", "lfm2", "qwen3_next")
PROMPTS = ([1, 50, 60, 70], [1, *range(20, 60)], [1, *range(5, 250, 2), *range(6, 40)])


def slow_but(family: str) -> object:
    return pytest.param(family, marks=[] if family in QUICK else [pytest.mark.slow])


@pytest.mark.parametrize("family", map(slow_but, ALL))
def test_answers_are_those_of_generation_alone(family: str, tmp_path: Path) -> None:
    base = load_base(str(make_family(family, tmp_path / "base", loud=True)), quantization="none", dtype="float32")
    expected = []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            full = base.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=20,
                do_sample=False,
                eos_token_id=[2, 4],
                pad_token_id=0,
            )
        answer = full[0, len(prompt) :].tolist()
        expected.append(answer[: next((i for i, token in enumerate(answer) if token in (2, 4)), None)])
    with Engine(base, Limits()) as engine:
        running = [engine.submit(ask(None, prompt, 20, id=str(number))) for number, prompt in enumerate(PROMPTS)]
        given = [finish(handle)[0] for handle in running]
        shares = engine.shares_passes
    assert given == expected
    assert shares == (family not in APART)
