"""python -m tools.micro.card --model runs/micro/model --corpus runs/micro/corpus --out lora_med/assets/micro

Write MODEL_CARD.md of the embedded base: what it was trained on, bits per byte on held-out documents beside two
models that know nothing of medicine (token frequencies, gzip), and ten seeded samples as they came.
"""

import argparse
import gzip
import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from tools.micro.pretrain import encode, heldout_bits_per_byte

LICENSES = {
    "medquad": "MedQuAD answers of NIH sites, CC BY 4.0",
    "pubmed": "PubMed titles and abstracts, courtesy of the U.S. National Library of Medicine",
    "bc5cdr": "BioCreative V CDR training set (PubMed abstracts), for public research",
    "ncbi_disease": "NCBI Disease training set (PubMed abstracts), public domain notice of the NCBI",
    "mts_dialog": "MTS-Dialog training set, CC BY 4.0",
    "aci_bench": "ACI-Bench training set, CC BY 4.0",
}
PROMPTS = [
    ("text", "Effect of metformin on"),
    ("text", "BACKGROUND: Hypertension is"),
    ("text", "Mutations in the BRCA1 gene"),
    ("text", "A case of drug-induced"),
    ("text", "CHIEF COMPLAINT\n"),
    ("text", "Doctor:"),
    ("chat", "What are the symptoms of Asthma ?"),
    ("chat", "What are the treatments for Breast Cancer ?"),
    ("chat", "What causes Marfan syndrome ?"),
    ("chat", "What is (are) Diabetes ?"),
]


def unigram_bits_per_byte(train: list[list[int]], heldout: list[list[int]], size: int) -> float:
    """Every token by its add-one frequency in the training text, over the bytes of the held-out text."""
    counts = Counter(token for ids in train for token in ids)
    total = sum(counts.values()) + 4096
    return sum(-math.log2((counts[token] + 1) / total) for ids in heldout for token in ids[1:]) / size


def figures_of(model: Any, tokenizer: Any, train: list[list[int]], rows: list[dict[str, str]]) -> dict[str, float]:
    """Bits per byte of the base, of token frequencies and of gzip on the same documents, cut at 1,024 tokens."""
    ids = [encode(row, tokenizer)[:1024] for row in rows]
    plain = [tokenizer.decode(tokens, skip_special_tokens=True).encode() for tokens in ids]
    size = sum(map(len, plain))
    return {
        "documents": len(rows),
        "micro": heldout_bits_per_byte(model, rows, tokenizer),
        "unigram": unigram_bits_per_byte(train, ids, size),
        "gzip": 8 * len(gzip.compress(b"\n".join(plain), 9)) / size,
    }


def sample(model: Any, tokenizer: Any, kind: str, prompt: str) -> str:
    text = prompt
    if kind == "chat":
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
    ids = tokenizer(text, add_special_tokens=kind == "text", return_tensors="pt")["input_ids"]
    written = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=90, do_sample=True, temperature=0.6, top_p=0.9, top_k=0
    )
    return tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True).strip().replace("\n", "\n> ")


def table(rows: dict[str, list[dict[str, str]]]) -> str:
    lines = ["| text | license | documents | MB | held out |", "|---|---|---|---|---|"]
    for source, license in LICENSES.items():
        train = [row["text"] for row in rows["train"] if row["source"] == source]
        heldout = sum(row["source"] == source for row in rows["heldout"])
        lines.append(
            f"| {source} | {license} | {len(train):,} | {sum(len(t.encode()) for t in train) / 1e6:.2f} | {heldout} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("runs/micro/model"))
    parser.add_argument("--corpus", type=Path, default=Path("runs/micro/corpus"))
    parser.add_argument("--out", type=Path, default=Path("lora_med/assets/micro"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for path in options.model.iterdir():
        if path.suffix in (".json", ".safetensors", ".jinja"):
            shutil.copyfile(path, options.out / path.name)
    tokenizer: Any = AutoTokenizer.from_pretrained(options.out)
    model: Any = LlamaForCausalLM.from_pretrained(options.out, dtype=torch.float32)
    rows = {
        name: [json.loads(line) for line in (options.corpus / f"{name}.jsonl").open(encoding="utf-8")]
        for name in ("train", "heldout")
    }
    train = [encode(row, tokenizer) for row in rows["train"]]
    parts = {
        "all": rows["heldout"],
        "MedQuAD": [row for row in rows["heldout"] if row["source"] == "medquad"],
        "abstracts": [row for row in rows["heldout"] if row["source"] != "medquad"],
    }
    figures = {name: figures_of(model, tokenizer, train, part) for name, part in parts.items()}
    torch.manual_seed(42)
    samples = [f"**{prompt.strip()}**\n\n> {sample(model, tokenizer, kind, prompt)}" for kind, prompt in PROMPTS]
    training = json.loads((options.model / "training.json").read_text(encoding="utf-8"))
    page = Path(__file__).with_name("model_card.md").read_text(encoding="utf-8")
    values = {
        "sources": table(rows),
        "parameters": f"{model.num_parameters():,}",
        "tokens": f"{training['tokens']:,}",
        "passes": f"{training['passes']:.2f}",
        "minutes": f"{training['seconds'] / 60:.0f}",
        "figures": "\n".join(
            f"| {name} | {of['documents']:.0f} | {of['micro']:.3f} | {of['unigram']:.3f} | {of['gzip']:.3f} |"
            for name, of in figures.items()
        ),
        "samples": "\n\n".join(samples),
    }
    for name, value in values.items():
        page = page.replace("{{" + name + "}}", value)
    (options.out / "MODEL_CARD.md").write_text(page, encoding="utf-8")
    print(figures)


if __name__ == "__main__":
    main()
