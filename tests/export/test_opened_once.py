"""One merge, one export and one attach open the card and the weights of an adapter exactly once each."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_med.adapters.algebra.compose import compose
from lora_med.adapters.runtime.attach import attach
from lora_med.adapters.store.card import CARD
from lora_med.adapters.store.store import CONFIG, WEIGHTS
from lora_med.export.vllm import export_vllm
from lora_med.merge.merge import merge_adapter
from lora_med.models.base import load_base
from tests.evaluation.published import publish_random
from tests.tiny import make_tiny

opened: list[str] = []
sys.addaudithook(lambda event, values: opened.append(str(values[0])) if event == "open" else None)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("once")
    publish_random(make_tiny("llama", folder / "base"), "plain", folder / "store")
    publish_random(folder / "base", "dora", folder / "store", use_dora=True)
    return folder


COMMANDS: dict[str, Callable[[Path, Path], Any]] = {
    "merge": lambda home, out: merge_adapter("plain", out, base=str(home / "base"), store=home / "store"),
    "export": lambda home, out: export_vllm("plain", out, base=str(home / "base"), store=home / "store"),
    "export merged": lambda home, out: export_vllm(
        "plain", out, base=str(home / "base"), store=home / "store", part="merged"
    ),
    "attach": lambda home, out: attach(load_base(str(home / "base"), quantization="none"), "plain", home / "store"),
    "compose": lambda home, out: compose(
        "both", [("plain", 1.0), ("dora", 0.5)], base=str(home / "base"), store=home / "store", overwrite=True
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_opens_each_file_of_an_adapter_once(command: str, home: Path, tmp_path: Path) -> None:
    opened.clear()
    COMMANDS[command](home, tmp_path / "out")
    counted = Counter(opened)
    folder = home / "store" / "plain"
    assert {name: counted[str(folder / name)] for name in (CARD, WEIGHTS, CONFIG)} == {CARD: 1, WEIGHTS: 1, CONFIG: 1}
