"""The README of an adapter: its three lines of PEFT load it, and give what lora_med gives."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_med.adapters.runtime.attach import attach
from lora_med.models.base import load_base
from tests.adapters.conftest import logits, put, train


def test_the_three_lines_of_peft_load_the_adapter(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "adapters"
    base = load_base(str(llama), quantization="none", dtype="float32")
    folder = put(train(base, store=store), base, "one", store)
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert code
    lines = code[1].strip().splitlines()
    assert len(lines) == 3
    monkeypatch.chdir(store)
    (store / llama.name).symlink_to(llama)  # the card names the folder without its path
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)
    fresh = load_base(str(llama), quantization="none", dtype="float32")
    ours = attach(fresh, "one", store)
    torch.testing.assert_close(logits(names["model"].float().eval()), logits(ours), rtol=1e-4, atol=1e-4)
