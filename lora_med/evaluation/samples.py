"""Short texts by the base and each adapter, from the same beginning with the same random numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from lora_med.adapters.runtime.pool import AdapterPool
from lora_med.adapters.runtime.swap import use
from lora_med.data.record import Record
from lora_med.evaluation.results import BASE, Sample
from lora_med.models.base import Base
from lora_med.models.generation import stop_ids
from lora_med.prompts.render import render
from lora_med.prompts.row import Row
from lora_med.prompts.tokens_and_labels import prompt_ids, tokenize

TEXT_TOKENS, ANSWER_TOKENS = 64, 24
BEGINNING = re.compile(r"(\s*\S+){0,8}")
TEMPERATURE, TOP_P = 0.8, 0.95


@dataclass(frozen=True)
class _Start:
    """Where writing begins: the tokens, the same as text, the reference that follows, and whether it is free text."""

    uid: str
    ids: list[int]
    shown: str
    reference: str
    free: bool


def write_samples(
    pool: AdapterPool, names: Sequence[str | None], records: Sequence[Record], template: str, *, seed: int
) -> tuple[Sample, ...]:
    """For each record the continuation that each subject writes (None is the base).

    Plain text continues from the record's first 8 words, by seeded nucleus sampling. A row with a prompt is answered
    with the likeliest tokens.
    """
    base = pool.base
    stop_tokens = stop_ids(base.model, base.tokenizer)
    starts = [_start(row, base.tokenizer, stop_tokens) for row in render(records, template)]
    written: dict[str, list[str]] = {}
    for name in names:
        with use(pool, name):
            written[BASE if name is None else name] = [_continue(base, start, stop_tokens, seed) for start in starts]
    return tuple(
        Sample(start.uid, start.shown, start.reference, {name: texts[index] for name, texts in written.items()})
        for index, start in enumerate(starts)
    )


def _start(row: Row, tokenizer: Any, stops: Sequence[int]) -> _Start:
    if row.prompt or row.turns:
        prompt = row.prompt or next((content for role, content in reversed(row.turns) if role == "user"), "")
        return _Start(row.uid, prompt_ids(row, tokenizer), prompt, row.completion.strip(), free=False)
    words = BEGINNING.match(row.completion)
    beginning = words.group() if words else ""
    ids = list(tokenize(replace(row, completion=beginning), tokenizer).input_ids)
    if ids[-1] in stops:
        ids.pop()
    return _Start(row.uid, ids, beginning, row.completion[len(beginning) :].strip(), free=True)


def _continue(base: Base, start: _Start, stops: Sequence[int], seed: int) -> str:
    device = base.model.device
    inputs = torch.tensor([start.ids], device=device)
    sampling = {"do_sample": True, "temperature": TEMPERATURE, "top_p": TOP_P} if start.free else {"do_sample": False}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.inference_mode():
        torch.manual_seed(seed)
        output = base.model.generate(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=TEXT_TOKENS if start.free else ANSWER_TOKENS,
            eos_token_id=list(stops),
            pad_token_id=base.tokenizer.pad_token_id,
            **sampling,
        )
    return base.tokenizer.decode(output[0, len(start.ids) :], skip_special_tokens=True).strip()
