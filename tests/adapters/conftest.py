"""A tiny base, its twin of equal shape, and a store with two trained adapters and a DoRA one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lora_med.adapters.runtime.attach import attach_new
from lora_med.adapters.store.card import DataFacts
from lora_med.adapters.store.store import publish
from lora_med.config.schema import LoraSettings
from lora_med.models.base import Base, load_base
from tests.tiny import make_tiny

OPEN = DataFacts("pubmed", "NLM terms", "open", {"a.xml.gz": "0" * 64}, {"train": 3})


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor([[1, 50, 60, 70, 80, 90]])).logits


def train(base: Base, *, store: Path, steps: int = 2, rows: Any = None, seed: int = 1, **lora: Any) -> Any:
    """A PeftModel after a few real optimizer steps, in eval mode."""
    import torch

    model = attach_new(base, LoraSettings(**{"r": 4, "lora_dropout": 0.0, **lora}), seed=seed, store=store, rows=rows)
    ids = torch.tensor([[1, 50, 60, 70, 80, 90]])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert trained
    assert all(parameter.dtype == torch.float32 for parameter in trained)
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    model.train()
    for _ in range(steps):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def put(model: Any, base: Base, name: str, store: Path, **options: Any) -> Path:
    facts: dict[str, Any] = {"template": "text", "data": OPEN, "settings": {}, **options}
    return publish(model, base=base, name=name, store=store, **facts)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("bases") / "llama")


@pytest.fixture(scope="session")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another base of equal shape, with the same tokenizer and template."""
    return make_tiny("llama", tmp_path_factory.mktemp("bases") / "twin", seed=7)


@pytest.fixture(scope="session")
def shelf(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that tests read only: adapters `abstracts`, `questions` (second layer only) and `dora`."""
    store = tmp_path_factory.mktemp("store")
    for name, lora in (
        ("abstracts", {}),
        ("questions", {"r": 2, "layers_to_transform": [1]}),
        ("dora", {"use_dora": True, "target_modules": ["q_proj"]}),
    ):
        base = load_base(str(llama), quantization="none")
        put(train(base, store=store, **lora), base, name, store)
    return store


@pytest.fixture
def store(shelf: Path, tmp_path: Path) -> Path:
    """A copy of the shelf that a test may damage."""
    import shutil

    return Path(shutil.copytree(shelf, tmp_path / "store"))


@pytest.fixture
def base(llama: Path) -> Base:
    return load_base(str(llama), quantization="none")
