"""A first look before the first step: does the model keep packed documents apart, and is the one-pass loss its own?"""

from __future__ import annotations

from typing import Any

import torch

from lora_med.training.rows.batches import Collator

LENGTHS = (12, 9)
TRUNK = 5
EXACT, ROUNDED = 1e-4, 0.05  # largest relative difference in float32, and where bfloat16 or 4-bit weights round


def _documents(words: int) -> list[list[int]]:
    """Two documents of token ids spread over the vocabulary; the second begins as the first, to tempt the model."""
    ids = [(number * 7919 + 11) % words for number in range(LENGTHS[0])]
    return [ids, ids[: LENGTHS[1]]]


def _difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Root mean square of the difference over that of the expected values around their mean."""
    spread = (expected - expected.mean(-1, keepdim=True)).square().mean().sqrt()
    return float((found - expected).square().mean().sqrt() / spread)


def _on(device: torch.device, batch: dict[str, Any]) -> dict[str, Any]:
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}


@torch.no_grad()
def probe(
    model: Any,
    collator: Collator,
    *,
    words: int,
    dtype: str,
    device: torch.device,
    compact: bool,
    trees: bool = False,
) -> list[str]:
    """What the probe found wrong: any of "packing", "trees" and "loss", or nothing.

    "packing": documents of one batch get other logits than alone; "trees", looked for if `trees`: those that share
    their beginning do. "loss": the one-pass loss is not that of the logits. The model is left as it was; no random
    number is drawn. Every process must call it.
    """
    tolerance = EXACT if dtype == "float32" else ROUNDED
    documents = _documents(words)
    rows = [{"input_ids": ids, "labels": ids, "seq_lengths": [len(ids)]} for ids in documents]
    batch = _on(device, collator(rows))
    labels = batch.pop("labels")
    training = model.training
    model.eval()
    wrong = []
    alone = [
        model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0].float() for ids in documents
    ]
    logits = model(**batch, use_cache=False).logits.float()
    together = logits[0].split(LENGTHS) if collator.flat else [logits[n, :length] for n, length in enumerate(LENGTHS)]
    if any(_difference(found, expected) > tolerance for found, expected in zip(together, alone, strict=True)):
        wrong.append("packing")
    if trees:
        first, second = documents
        ids = first + second[TRUNK:]
        lengths = [TRUNK, len(first) - TRUNK, len(second) - TRUNK]
        row = {"input_ids": ids, "labels": ids, "seq_lengths": [len(ids)], "trees": [lengths]}
        inputs = _on(device, collator([row]))
        inputs.pop("labels")
        found = model(**inputs, use_cache=False).logits.float()[0]
        if _difference(found, torch.cat([alone[0], alone[1][TRUNK:]])) > tolerance:
            wrong.append("trees")
    if compact:
        expected = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum"
        )
        found = model(**batch, nll_labels=labels)
        if abs(float(found / expected) - 1) > tolerance:
            wrong.append("loss")
    model.train(training)
    return wrong
