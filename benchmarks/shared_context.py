"""python benchmarks/shared_context.py --data ../shared/data [--rounds 5]: five questions on a shared prefix.

Questions and answers of PubMedQA, five after each of four abstracts. Most of them are about other abstracts, because
only the lengths matter. They are trained one by one in batches of five, and as one row of a shared prefix and five
continuations. Measures the seconds of a forward and backward pass over all, in alternating runs of one process with two
threads. Correctness check: in float32 both give the same loss and the same gradient.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measure import Figure, machine, own_dtype, parser_for, save_figures, spread
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
        return next(offset for offset in range(len(ids), 0, -1) if ids[offset : offset + len(begins)] == begins)

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


def step(model: Any, batches: list[dict[str, Any]]) -> tuple[float, torch.Tensor]:
    """Loss and gradient of all batches together."""
    model.zero_grad()
    total = 0.0
    for batch in batches:
        nll = model(**{name: value for name, value in batch.items() if name != "labels"}, nll_labels=batch["labels"])
        nll.backward()
        total += float(nll)
    return total, torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


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
    arguments = parser_for(__doc__).parse_args()
    torch.set_num_threads(2)
    documents = make_documents(arguments.data)
    alone, shared = batches(documents, QUESTIONS), batches(join_shared_prefixes(documents, LONGEST), 1)
    sizes = [sum(batch["labels"].numel() for batch in form) for form in (alone, shared)]
    dtype = own_dtype(arguments.dtype)
    print(f"{machine()}\n{arguments.shape}, {dtype}, 2 threads")
    rows = f"{sizes[1]:,} in {len(shared)} rows with a shared prefix"
    print(f"{len(documents)} questions: {sizes[0]:,} tokens one by one, {rows}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_model(arguments.shape, arguments.data, Path(temporary))
        exact = load(folder, "float32", 0.0)
        with fused_lora(exact):
            (loss_alone, gradient_alone), (loss_shared, gradient_shared) = step(exact, alone), step(exact, shared)
        loss_difference = abs(loss_alone - loss_shared) / loss_alone
        gradient_difference = float((gradient_alone - gradient_shared).norm() / gradient_alone.norm())
        check = f"loss difference {loss_difference:.1e}, gradient difference {gradient_difference:.1e}"
        print(f"correctness check, float32: {check}")
        if not max(gradient_difference, loss_difference) <= WITHIN:
            raise SystemExit("the correctness check failed: a shared prefix trains something else than its rows")
        del exact, gradient_alone, gradient_shared
        model = load(folder, dtype, 0.05)
        with fused_lora(model):
            step(model, alone)
            step(model, shared)
            ratios = []
            for _ in range(arguments.rounds):
                started = time.perf_counter()
                step(model, alone)
                middle = time.perf_counter()
                step(model, shared)
                ended = time.perf_counter()
                ratios.append((middle - started) / (ended - middle))
                print(f"one by one {middle - started:.2f} s, with a shared prefix {ended - middle:.2f} s", flush=True)
    print(f"the shared prefix is {spread(ratios, 2)} times as fast")
    name = f"five questions a passage, {arguments.shape}, with a shared prefix"
    figure = Figure(name, tuple(ratios), "times", target="at least 2.2", correctness_check=check)
    save_figures(f"shared_context_{arguments.shape}", [figure])


if __name__ == "__main__":
    main()
