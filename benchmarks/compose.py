"""python benchmarks/compose.py [--rounds 3]: adapters combined by us and by PEFT's add_weighted_adapter.

A random llama-shaped base with two adapters on all linear layers, as LoRA, rsLoRA and DoRA. Each way of combining is
measured by the relative error of the changed weights against the exact sum of both changes, computed in fp64 from the
formulas. The same is measured for one adapter at weight 1, and the seconds of both.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
KINDS: dict[str, dict[str, bool]] = {"LoRA": {}, "rsLoRA": {"use_rslora": True}, "DoRA": {"use_dora": True}}
SUMS: dict[str, list[tuple[str, float]]] = {"0.7 a + 0.3 b": [("a", 0.7), ("b", 0.3)], "1.0 a": [("a", 1.0)]}
MICRO = Path(__file__).parent.parent / "lora_med" / "assets" / "micro"


def make(folder: Path, options: dict[str, bool]) -> None:
    """A base, and adapters `a` and `b` of it in a store."""
    import shutil

    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig

    from lora_med.adapters.foreign.import_peft import Origin, adopt

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=8192, hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(str(folder / "base"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(MICRO / name, folder / "base")
    for name in ("a", "b"):
        model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
        lora = LoraConfig(r=16, lora_alpha=24, target_modules="all-linear", task_type="CAUSAL_LM", **options)
        adapted = get_peft_model(model, lora)
        for key, parameter in adapted.named_parameters():
            if "lora_B" in key:
                parameter.data = torch.randn_like(parameter.data) * 0.01
            elif "magnitude" in key:
                parameter.data *= 1 + 0.02 * torch.randn_like(parameter.data)
        adapted.save_pretrained(str(folder / name), save_embedding_layers=False)
        adopt(folder / name, base=str(folder / "base"), name=name, store=folder / "store", origin=Origin(access="open"))


def exact(folder: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """Each adapter's change of each layer, fp64."""
    from lora_med.adapters.algebra.deltas import delta_of, open_base, read_updates

    base = open_base(folder / "base")
    changes: dict[str, dict[str, Any]] = {}
    for name in names:
        updates = read_updates(folder / "store" / name)
        weights = {layer: base.read(update) for layer, update in updates.items()}
        changes[name] = {
            layer: delta_of(update, weights[layer]).dense(weights[layer]) for layer, update in updates.items()
        }
    return changes


def by_us(folder: Path, parents: list[tuple[str, float]]) -> tuple[float, dict[str, Any]]:
    """Seconds, and the new adapter's change of each layer."""
    from lora_med.adapters.algebra.compose import compose

    started = time.perf_counter()
    compose("ours", parents, base=str(folder / "base"), store=folder / "store", overwrite=True)
    return time.perf_counter() - started, exact(folder, ["ours"])["ours"]


def by_peft(folder: Path, parents: list[tuple[str, float]]) -> tuple[float, dict[str, Any]]:
    """Seconds with the adapters loaded already, and what PEFT's combination changes of each layer when merged."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    adapted = PeftModel.from_pretrained(model, folder / "a", adapter_name="a")
    adapted.load_adapter(str(folder / "b"), adapter_name="b")
    started = time.perf_counter()
    names, weights = [name for name, _ in parents], [weight for _, weight in parents]
    adapted.add_weighted_adapter(names, weights, "theirs", combination_type="linear")
    seconds = time.perf_counter() - started
    merged = adapted.merge_and_unload(adapter_names=["theirs"])
    after = merged.named_parameters()
    return seconds, {name.removesuffix(".weight"): (weight.detach() - before[name]).double() for name, weight in after}


def error(actual: dict[str, Any], expected: dict[str, Any]) -> float:
    """Relative Frobenius error over all layers."""
    squared = sum(float((actual[layer] - change).square().sum()) for layer, change in expected.items())
    return (squared / sum(float(change.square().sum()) for change in expected.values())) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    warnings.filterwarnings("ignore")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print("| kind | sum | our error | PEFT's error | our seconds, median (range) | PEFT's |\n|---|---|---|---|---|---|")
    for kind, options in KINDS.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make(folder, options)
            changes = exact(folder, ["a", "b"])
            for title, parents in SUMS.items():
                expected = {
                    layer: sum(weight * changes[parent][layer] for parent, weight in parents) for layer in changes["a"]
                }
                ours, theirs = [], []
                for _ in range(rounds):
                    ours.append(by_us(folder, parents))
                    theirs.append(by_peft(folder, parents))
                errors = [error(rounds_of_arm[-1][1], expected) for rounds_of_arm in (ours, theirs)]
                seconds_of_arm = [[seconds for seconds, _ in rounds_of_arm] for rounds_of_arm in (ours, theirs)]
                cells = [
                    f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
                    for seconds in seconds_of_arm
                ]
                print(f"| {kind} | {title} | {errors[0]:.1e} | {errors[1]:.1e} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
