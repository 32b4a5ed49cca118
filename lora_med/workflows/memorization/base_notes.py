"""Canaries that the base writes: likely text of its own kind, which no patient wrote."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from lora_med.audit.memorization.invented_notes import Note, invent_note
from lora_med.models.base import Base
from lora_med.models.generation import before_end, stop_ids
from lora_med.models.limits.not_finite import finite_logits

TEMPERATURE = 0.8
NEW_TOKENS = 64
BATCH = 64
EMPTY = "No further notes."  # where the base ends at once
WRITERS = ("notes", "base")


def write_notes(
    count: int, writer: str, base: Base, *, seed: int, advance: Callable[[int, int], None] = lambda done, total: None
) -> list[Note]:
    """`count` notes, all different: of the generator of invented notes, or of the base after such a note's header.

    Args:
        writer: one of WRITERS.
        advance: called with the number of finished notes and the total.
    """
    rng = random.Random(f"notes {seed}")
    notes: dict[str, Note] = {}
    while len(notes) < count:
        note = invent_note(rng)
        notes.setdefault(note.header, note)
    invented = list(notes.values())
    if writer == "notes":
        return invented
    written: list[Note] = []
    for start in range(0, count, BATCH):
        batch = invented[start : start + BATCH]
        bodies = _sample(base, [f"{note.header}\n" for note in batch], seed=seed + start)
        written += [
            replace(note, body=body, mentions=note.mentions[:1]) for note, body in zip(batch, bodies, strict=True)
        ]
        advance(len(written), count)
    return written


def _sample(base: Base, prompts: Sequence[str], *, seed: int) -> list[str]:
    """A text after each prompt, drawn at a temperature of 0.8 from the whole vocabulary."""
    import torch

    model: Any = base.model
    tokenizer, ends, pad = base.tokenizer, stop_ids(base.model, base.tokenizer), base.tokenizer.pad_token_id
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    rows = [begin + tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.inference_mode():
        torch.manual_seed(seed)
        drawn = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=NEW_TOKENS,
            do_sample=True,
            temperature=TEMPERATURE,
            top_k=0,
            top_p=1.0,
            pad_token_id=pad,
            eos_token_id=ends,
            logits_processor=[finite_logits(model, pad)],
        )
    texts = [tokenizer.decode(before_end(row, ends), skip_special_tokens=True) for row in drawn[:, width:].tolist()]
    return [" ".join(text.split()) or EMPTY for text in texts]
