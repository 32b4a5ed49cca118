"""Short texts that the base and each adapter write from the same beginning with the same random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from lora_med.adapters.swap import use
from lora_med.data.record import Record
from lora_med.evaluation.results import BASE, Sample
from lora_med.models.base import Base, stop_ids
from lora_med.prompts.render import render
from lora_med.prompts.templates import Row
from lora_med.prompts.tokens import prompt_ids, tokenise

NEW_TOKENS = 64
BEGINNING_TOKENS = 16
TEMPERATURE, TOP_P = 0.8, 0.95


def write_samples(
    base: Base,
    model: Any,
    names: Sequence[str | None],
    records: Sequence[Record],
    template: str,
    *,
    seed: int,
    new_tokens: int = NEW_TOKENS,
) -> tuple[Sample, ...]:
    """For each record the continuation each subject writes (None is the base), by seeded nucleus sampling.

    Plain text continues from the record's first 16 tokens; anything with a prompt is answered greedily from the prompt.
    """
    starts = [_start(row, base.tokenizer) for row in render(records, template)]
    written: dict[str, list[str]] = {}
    for name in names:
        with use(model, name):
            written[BASE if name is None else name] = [
                _continue(model, base, ids, free=free, seed=seed, new_tokens=new_tokens)
                for _, ids, free, _, _ in starts
            ]
    return tuple(
        Sample(uid, prompt, reference, {name: texts[index] for name, texts in written.items()})
        for index, (uid, _, _, prompt, reference) in enumerate(starts)
    )


def _start(row: Row, tokenizer: Any) -> tuple[str, list[int], bool, str, str]:
    """uid, the tokens to go on from, whether writing is free, the beginning as text, and what really follows."""
    if row.prompt or row.turns:
        asked = row.prompt or next((content for role, content in reversed(row.turns) if role == "user"), "")
        return row.uid, prompt_ids(row, tokenizer), False, asked, row.completion.strip()
    ids = list(tokenise(row, tokenizer).input_ids)
    head = ids[: BEGINNING_TOKENS + 1]
    beginning = tokenizer.decode(head, skip_special_tokens=True)
    return row.uid, head, True, beginning, tokenizer.decode(ids[len(head) :], skip_special_tokens=True)


def _continue(model: Any, base: Base, ids: list[int], *, free: bool, seed: int, new_tokens: int) -> str:
    device = next(model.parameters()).device
    inputs = torch.tensor([ids], device=device)
    sampling = {"do_sample": True, "temperature": TEMPERATURE, "top_p": TOP_P} if free else {"do_sample": False}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.inference_mode():
        torch.manual_seed(seed)
        output = model.generate(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=new_tokens,
            eos_token_id=stop_ids(base.model, base.tokenizer),
            pad_token_id=base.tokenizer.pad_token_id,
            **sampling,
        )
    return base.tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True).strip()
