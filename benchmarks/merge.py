"""python benchmarks/merge.py [--shapes 0.3B 1B] [--rounds 3]: our merge, PEFT's merge_and_unload, and plain cp.

Random llama-shaped models in bf16, sharded, with a plain LoRA of rank 16 on all linear layers. Each measurement is a
process of its own, in alternating runs; each ends when the bytes are on the disk. `fold` is the streaming fold alone,
`command` is all of `lora-med merge --verify none`, and `command, proved` is that with `--verify tensors`. Correctness
check: every tensor is bit-identical to PEFT's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
SHAPES = {
    "0.1B": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12},
    "0.3B": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 20, "num_attention_heads": 16},
    "1B": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 19, "num_attention_heads": 16},
}
MICRO = Path(__file__).parent.parent / "lora_med" / "assets" / "micro"


def make(shape: str, folder: Path) -> int:
    """Write a base, and a PEFT adapter for it; returns the number of parameters."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(1)
    config = LlamaConfig(vocab_size=32000, tie_word_embeddings=False, eos_token_id=2, bos_token_id=1, **SHAPES[shape])
    torch.set_default_dtype(torch.bfloat16)
    model = AutoModelForCausalLM.from_config(config)
    torch.set_default_dtype(torch.float32)
    count = sum(weight.numel() for weight in model.parameters())
    model.save_pretrained(folder / "base", max_shard_size="400MB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(MICRO / name, folder / "base")
    adapted = get_peft_model(model, LoraConfig(r=16, lora_alpha=24, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn_like(parameter.data) * 0.01
    adapted.save_pretrained(str(folder / "adapter"), save_embedding_layers=False)
    return count


def adopt_it(folder: Path) -> None:
    """Take the adapter into a store, for the command."""
    from lora_med.adapters.foreign.import_peft import Origin, adopt

    base, store = str(folder / "base"), folder / "store"
    adopt(folder / "adapter", base=base, name="merged", store=store, origin=Origin(access="open"))


def _memory(field: str) -> float:
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{field}:")[1].split()[0]) / 1024


def measured(action: Callable[[], Any]) -> dict[str, float]:
    """Seconds until all is on the disk, CPU seconds, and by how many MB the process grew at most."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, started, busy = _memory("VmRSS"), time.perf_counter(), time.process_time()
    action()
    os.sync()
    return {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - busy,
        "grown": _memory("VmHWM") - before,
        "peak": _memory("VmHWM"),
    }


def by_peft(folder: Path, out: Path) -> dict[str, float]:
    """PEFT's merge, from loading the base to the saved folder; its imports are not counted."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def merge_with_peft() -> None:
        model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.bfloat16)
        merged = PeftModel.from_pretrained(model, folder / "adapter").merge_and_unload()
        merged.save_pretrained(out, max_shard_size="400MB")

    return measured(merge_with_peft)


def by_fold(folder: Path, out: Path) -> dict[str, float]:
    """Our streaming fold alone: reading the adapter, planning, writing."""
    from lora_med.merge.fold.fold import fold
    from lora_med.merge.fold.merge_plan import plan_merge

    out.mkdir()
    return measured(lambda: fold(plan_merge(folder / "adapter", folder / "base"), out))


def by_command(folder: Path, out: Path, verify: str = "none") -> dict[str, float]:
    """The complete command in this process, the import of torch included."""
    from lora_med.cli.main import run

    command = ["merge", "merged", "--base", str(folder / "base"), "--store", str(folder / "store"), "--out", str(out)]
    return measured(lambda: run([*command, "--verify", verify]))


def by_proved_command(folder: Path, out: Path) -> dict[str, float]:
    """The same, every tensor read back and rows computed again."""
    return by_command(folder, out, "tensors")


def by_cp(folder: Path, out: Path) -> dict[str, float]:
    """cp of the base, and sync."""
    return measured(lambda: subprocess.run(["cp", "-r", str(folder / "base"), str(out)], check=True))


WAYS: dict[str, Callable[[Path, Path], dict[str, float]]] = {
    "fold": by_fold,
    "peft": by_peft,
    "cp": by_cp,
    "command": by_command,
    "command, proved": by_proved_command,
}


def differing(first: Path, second: Path) -> int:
    """How many tensors are not the same bits in both folders."""
    from safetensors import safe_open

    def file_of_tensor(folder: Path) -> dict[str, Path]:
        files = {}
        for path in folder.glob("*.safetensors"):
            with safe_open(path, "pt") as handle:
                files |= dict.fromkeys(handle.keys(), path)
        return files

    import torch

    ours, theirs = file_of_tensor(first), file_of_tensor(second)
    assert ours.keys() == theirs.keys()
    count = 0
    for name in ours:
        with safe_open(ours[name], "pt") as mine, safe_open(theirs[name], "pt") as peer:
            count += not torch.equal(mine.get_tensor(name), peer.get_tensor(name))
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=["0.3B", "1B"], choices=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--single", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.single:
        way, folder, out = options.single
        print(json.dumps(WAYS[way](Path(folder), Path(out))))
        return
    for shape in options.shapes:
        with tempfile.TemporaryDirectory(dir=".") as name:
            report(shape, Path(name), options.rounds)


def report(shape: str, folder: Path, rounds: int) -> None:
    count = make(shape, folder)
    adopt_it(folder)
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            shutil.rmtree(folder / way, ignore_errors=True)
            os.sync()
            started = time.perf_counter()
            result = subprocess.run(
                [sys.executable, __file__, "--single", way, str(folder), str(folder / way)],
                check=True,
                capture_output=True,
                text=True,
            )
            from_start = time.perf_counter() - started
            runs[way].append({"from_start": from_start, **json.loads(result.stdout.splitlines()[-1])})
    same = differing(folder / "fold", folder / "peft")
    print(f"\n{shape}: {count / 1e9:.2f} B parameters; tensors that differ from PEFT's: {same}")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print("| way | seconds, median (range) | from the start of Python | CPU seconds | grown by, MB | at most, MB |")
    print("|---|---|---|---|---|---|")
    for way, of_way in runs.items():
        times = [run["seconds"] for run in of_way]
        middle = {key: statistics.median(run[key] for run in of_way) for key in of_way[0]}
        print(
            f"| {way} | {middle['seconds']:.2f} ({min(times):.2f} to {max(times):.2f}) | {middle['from_start']:.2f} | "
            f"{middle['cpu']:.2f} | "
            f"{middle['grown']:.0f} | {middle['peak']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
