"""An adapter as the store holds it, with a card and files whose hashes are right, and no weights in them."""

from __future__ import annotations

from pathlib import Path

from lora_med.adapters.store.card import BaseIdentity, Card, DataFacts
from lora_med.files import sha256_file, write_json
from lora_med.models.fingerprint import Fingerprint

README = """---
library_name: peft
---
# notes

- **Prompt template**: `pair`
- **Data**: custom; license CC BY 4.0; access open
- **Result**: better on validation

Not a medical device.
"""
FILES = {"adapter_model.safetensors": "weights", "adapter_config.json": "{}", "README.md": README}


def publish_card(store: Path, name: str, rate: float = 0.001, access: str = "open") -> Path:
    """The folder of the adapter."""
    folder = store / name
    folder.mkdir(parents=True)
    for file, content in FILES.items():
        (folder / file).write_text(content)
    card = Card(
        name=name,
        description="<b>notes</b>",
        base=BaseIdentity("micro", None, Fingerprint("a" * 64, "b" * 64, "c" * 64), "none", "float32"),
        method={"type": "LORA", "r": 4},
        template="pair",
        data=DataFacts("custom", "CC BY 4.0", access),
        settings={"train": {"learning_rate": rate, "seed": 42}},
        scores={"eval_loss": 1.5, "validation": {"eval_nll": 2.25, "verdict": "better"}},
        versions={},
        created="2026-01-02T03:04:05Z",
        files={file: sha256_file(folder / file) for file in FILES},
    )
    write_json(folder / "card.json", card.as_json())
    return folder
