"""python benchmarks/deid_surrogates.py [--seeds 2]: what surrogates do to an adapter, compared with tags.

The embedded base is trained to write invented notes of tools.deid.make_training, three times alike: with their
identifiers as they are, replaced by tags, and replaced by surrogates. What is replaced are the marked identifiers, so
that no miss of a finder plays a part. Each adapter then reads the validation notes with their identifiers unchanged,
which have other wordings: mean negative log-likelihood of the tokens in identifiers, and of all others. Differences
from the adapter of the tags with 95% intervals by the bootstrap over notes.
Needs Faker 40.63.0, and PYTHONHASHSEED=0 for the same notes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import lora_med  # noqa: E402
from lora_med.audit.deidentify import deidentified  # noqa: E402
from lora_med.audit.identifiers import Identifier  # noqa: E402
from lora_med.audit.surrogates import Surrogates  # noqa: E402
from lora_med.data.record import Annotated  # noqa: E402
from tools.deid.make_training import rows  # noqa: E402

ARMS = ("unchanged", "tags", "surrogates")
SECRET, SAMPLES, MOST_TOKENS = b"a secret of this benchmark", 2000, 512


def changed(note: dict[str, Any], arm: str, surrogates: Surrogates) -> str:
    """The text of a note as an arm sees it."""
    if arm == "unchanged":
        return note["text"]
    marked = [Identifier(span["start"], span["end"], span["type"]) for span in note["spans"]]
    record = Annotated(note["uid"], note["group"], "custom", note["text"], ())
    clean, _ = deidentified(record, lambda _: marked, SECRET, surrogates if arm == "surrogates" else None)
    assert isinstance(clean, Annotated)
    return clean.text


def trained(notes: list[dict[str, Any]], folder: Path, name: str, steps: int, seed: int) -> Path:
    """The folder of an adapter that was trained to write these rows."""
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in notes), encoding="utf-8")
    overrides = [
        "model.base=micro", "model.load_in_4bit=false", "data.source=custom", f"data.paths=[{data}]",
        "data.validation_share=0.05", "data.test_share=0", "data.near_duplicate_similarity=0",
        f"train.max_steps={steps}",
        "train.per_device_train_batch_size=8", "train.learning_rate=2e-3", f"train.seed={seed}", "adapter.access=open",
        f"train.output_dir={folder / 'runs' / name}", f"adapter.store={folder / 'store'}", f"adapter.name={name}",
        "train.max_length=512", f"train.save_steps={steps}",
    ]  # fmt: skip
    return lora_med.train(lora_med.parse(None, overrides))


def losses(notes: list[dict[str, Any]], model: Any, tokenizer: Any) -> np.ndarray:
    """notes x (sum over identifiers, tokens in identifiers, sum over the rest, tokens of the rest)."""
    import torch

    table = np.zeros((len(notes), 4))
    for row, note in zip(table, notes, strict=True):
        coded = tokenizer(note["text"], return_offsets_mapping=True, truncation=True, max_length=MOST_TOKENS)
        ids = torch.tensor([coded["input_ids"]])
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[0, :-1].float()
        nll = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none").numpy()
        for value, (start, end) in zip(nll, coded["offset_mapping"][1:], strict=True):
            if start < end:
                inside = any(span["start"] < end and start < span["end"] for span in note["spans"])
                row[0 if inside else 2] += value
                row[1 if inside else 3] += 1
    return table


def means(table: np.ndarray) -> np.ndarray:
    """Mean loss in identifiers, and of the rest."""
    total = table.sum(axis=0)
    return np.array([total[0] / total[1], total[2] / total[3]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    lora_med.prepare_environment(offline=True)
    notes, held = list(islice(rows("train"), options.rows)), list(islice(rows("validation"), options.held_out))
    surrogates = Surrogates(SECRET)
    rng = np.random.default_rng(3)
    drawn = rng.integers(0, len(held), (SAMPLES, len(held)))
    with tempfile.TemporaryDirectory() as folder:
        tables: dict[str, list[np.ndarray]] = {arm: [] for arm in ARMS}
        for seed in range(options.seeds):
            for arm in ARMS:
                changed_notes = [
                    {"uid": note["uid"], "group": note["group"], "text": changed(note, arm, surrogates)}
                    for note in notes
                ]
                adapter = trained(changed_notes, Path(folder), f"{arm}-{seed}", options.steps, seed)
                base = lora_med.load_base("micro", quantization="none", dtype="float32")
                model = lora_med.attach(base, adapter.name, adapter.parent)
                tables[arm].append(losses(held, model.eval(), base.tokenizer))
        for arm in ARMS:
            table = sum(tables[arm]) / options.seeds
            line = [f"{value:.4f}" for value in means(table)]
            other = sum(tables["tags"]) / options.seeds
            spread = np.array([means(table[pick]) - means(other[pick]) for pick in drawn])
            low, high = np.quantile(spread, (0.025, 0.975), axis=0)
            change = means(table) - means(other)
            told = [f"{change[n]:+.4f} ({low[n]:+.4f} to {high[n]:+.4f})" for n in range(2)]
            print(f"{arm:<11} identifiers {line[0]} {told[0]}   rest {line[1]} {told[1]}")


if __name__ == "__main__":
    main()
