"""python benchmarks/shared_context.py --data ../shared/data [--rounds 5]: five questions after one abstract, as trees.

Questions and answers of PubMedQA, five behind each of four abstracts (most of them are about others: the lengths are
what counts), trained one by one in batches of five and as trees of one trunk and five branches: seconds for a forward
and backward pass over all, by turns in one process, two threads. Beside it the gate: in float32 both give one loss and
one gradient.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measure import Figure, keep, machine, own_dtype, parser_for, spread
from shapes import make_model, make_rows, make_tokenizer

from lora_med.adapters.runtime.attach import attach_new
from lora_med.config.schema import LoraSettings
from lora_med.models.base import load_base
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.rows.batches import Collator
from lora_med.training.rows.batches import make_rows as rows_of
from lora_med.training.rows.shared_prefix_rows import join_shared_prefixes
from lora_med.training.step.fused_lora import fused_lora
from lora_med.training.step.loss import add_compact_loss

ABSTRACTS, QUESTIONS, LONGEST = 4, 5, 2048
WITHIN = 1e-4


def make_documents(data: Path) -> list[Tokens]:
    """Each of four abstracts followed by five questions and their answers."""
    begins = make_tokenizer(data)("\nQuestion:")["input_ids"]
    rows = make_rows(data, ABSTRACTS * QUESTIONS)

    def cut(ids: list[int]) -> int:
        return next(place for place in range(len(ids), 0, -1) if ids[place : place + len(begins)] == begins)

    documents = []
    for number in range(ABSTRACTS):
        abstract = rows[number]["input_ids"][: cut(rows[number]["input_ids"])]
        for row in rows[number * QUESTIONS : (number + 1) * QUESTIONS]:
            start = cut(row["input_ids"])
            flags = [False] * len(abstract) + row["trained"][start:]
            documents.append(Tokens("", abstract + row["input_ids"][start:], flags))
    return documents


def batches(documents: list[Tokens], size: int) -> list[dict[str, Any]]:
    """The documents in batches of so many rows."""
    rows = rows_of(documents, LONGEST, packing=False)
    collate = Collator(0, flat=True, unmasked=True)
    starts = range(0, len(rows), size)
    return [collate([rows[number] for number in range(start, min(start + size, len(rows)))]) for start in starts]


def step(model: Any, given: list[dict[str, Any]]) -> tuple[float, torch.Tensor]:
    """Loss and gradient of all batches together."""
    model.zero_grad()
    total = 0.0
    for batch in given:
        nll = model(**{name: one for name, one in batch.items() if name != "labels"}, nll_labels=batch["labels"])
        nll.backward()
        total += float(nll)
    return total, torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])


def load(folder: Path, dtype: str, dropout: float) -> Any:
    """The adapted model, its update not zero."""
    base = load_base(str(folder), quantization="none", dtype=dtype)
    model = attach_new(base, LoraSettings(lora_dropout=dropout), seed=0).train()
    add_compact_loss(base.model)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.02, generator=generator)
    return model


def main() -> None:
    asked = parser_for(__doc__).parse_args()
    torch.set_num_threads(2)
    documents = make_documents(asked.data)
    alone, trees = batches(documents, QUESTIONS), batches(join_shared_prefixes(documents, LONGEST), 1)
    sizes = [sum(batch["labels"].numel() for batch in given) for given in (alone, trees)]
    dtype = own_dtype(asked.dtype)
    print(f"{machine()}\n{asked.shape}, {dtype}, 2 threads")
    print(f"{len(documents)} questions: {sizes[0]:,} tokens one by one, {sizes[1]:,} in {len(trees)} trees")
    with tempfile.TemporaryDirectory() as place:
        folder = make_model(asked.shape, asked.data, Path(place))
        exact = load(folder, "float32", 0.0)
        with fused_lora(exact):
            (one, first), (other, second) = step(exact, alone), step(exact, trees)
        apart = float((first - second).norm() / first.norm())
        gate = f"loss {abs(one - other) / one:.1e} apart, gradient {apart:.1e}"
        print(f"gate, float32: {gate}")
        if not max(apart, abs(one - other) / one) <= WITHIN:
            raise SystemExit("the gate is not passed: a tree trains something else than its rows")
        del exact, first, second
        model = load(folder, dtype, 0.05)
        with fused_lora(model):
            step(model, alone)
            step(model, trees)
            ratios = []
            for _ in range(asked.rounds):
                begun = time.perf_counter()
                step(model, alone)
                middle = time.perf_counter()
                step(model, trees)
                ended = time.perf_counter()
                ratios.append((middle - begun) / (ended - middle))
                print(f"one by one {middle - begun:.2f} s, as trees {ended - middle:.2f} s", flush=True)
    print(f"trees are {spread(ratios, 2)} times as fast")
    figure = Figure(f"five questions a passage, {asked.shape}, as trees", tuple(ratios), "times", "at least 2.2", gate)
    keep(f"shared_context_{asked.shape}", [figure])


if __name__ == "__main__":
    main()
