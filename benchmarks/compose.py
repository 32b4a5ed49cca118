"""python benchmarks/compose.py [--rounds 3]: adapters combined by us and by PEFT's add_weighted_adapter.

A random llama-shaped base with two adapters on all linear layers, as LoRA, rsLoRA and DoRA. Of each way: the relative
error of the changed weights against the exact sum of both changes (computed in fp64 from the formulas), the same for
one adapter at weight 1, and the seconds it takes.
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

    from lora_med.adapters.store.import_peft import Origin, adopt

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
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        updates = read_updates(folder / "store" / name)
        weights = {layer: base.read(one) for layer, one in updates.items()}
        found[name] = {layer: delta_of(one, weights[layer]).dense(weights[layer]) for layer, one in updates.items()}
    return found


def by_us(folder: Path, parents: list[tuple[str, float]]) -> tuple[float, dict[str, Any]]:
    """Seconds, and the new adapter's change of each layer."""
    from lora_med.adapters.algebra.compose import compose

    begun = time.perf_counter()
    compose("ours", parents, base=str(folder / "base"), store=folder / "store", overwrite=True)
    return time.perf_counter() - begun, exact(folder, ["ours"])["ours"]


def by_peft(folder: Path, parents: list[tuple[str, float]]) -> tuple[float, dict[str, Any]]:
    """Seconds with the adapters loaded already, and what PEFT's combination changes of each layer when merged."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    adapted = PeftModel.from_pretrained(model, folder / "a", adapter_name="a")
    adapted.load_adapter(str(folder / "b"), adapter_name="b")
    begun = time.perf_counter()
    names, weights = [name for name, _ in parents], [weight for _, weight in parents]
    adapted.add_weighted_adapter(names, weights, "theirs", combination_type="linear")
    seconds = time.perf_counter() - begun
    merged = adapted.merge_and_unload(adapter_names=["theirs"])
    return seconds, {
        name.removesuffix(".weight"): (one.detach() - before[name]).double() for name, one in merged.named_parameters()
    }


def error(found: dict[str, Any], wanted: dict[str, Any]) -> float:
    """Relative Frobenius error over all layers."""
    lost = sum(float((found[layer] - one).square().sum()) for layer, one in wanted.items())
    return (lost / sum(float(one.square().sum()) for one in wanted.values())) ** 0.5


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
            for said, parents in SUMS.items():
                wanted = {layer: sum(weight * changes[one][layer] for one, weight in parents) for layer in changes["a"]}
                ours, theirs = [], []
                for _ in range(rounds):
                    ours.append(by_us(folder, parents))
                    theirs.append(by_peft(folder, parents))
                errors = [error(some[-1][1], wanted) for some in (ours, theirs)]
                times = [[one[0] for one in some] for some in (ours, theirs)]
                cells = [f"{statistics.median(one):.2f} ({min(one):.2f} to {max(one):.2f})" for one in times]
                print(f"| {kind} | {said} | {errors[0]:.1e} | {errors[1]:.1e} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
