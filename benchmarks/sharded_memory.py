"""python benchmarks/sharded_memory.py --data ../shared/data [--shape 135m]: memory of two sharded processes, measured.

FSDP2 on two CPU processes joined by gloo, as in tests/training/fsdp_ranks.py: three steps in 16 bits, in float32 and in
4 bits. Of each process: the peak while the base is loaded, the memory between two steps, and the peak of the run. The
plan is that of `lora-med plan --processes 2 --sharded`. Libraries count in each.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from measure import HERE, machine, parser_for
from shapes import make_model

MIB = 1 << 20
TOKENS, ROWS, PROCESSES = 256, 2, 2
CASES = (("none", "bfloat16"), ("none", "float32"), ("4bit", "bfloat16"))


def memory(name: str) -> float:
    """A field of /proc/self/status, such as VmRSS or VmHWM, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def train(base: str, quantization: str, dtype: str, folder: Path) -> None:
    """Three steps in this process; its memory is written into `folder`."""
    import torch
    from transformers import TrainerCallback

    from lora_med.adapters.runtime.attach import attach_new
    from lora_med.config.schema import LoraSettings, TrainSettings
    from lora_med.models.base import load_base
    from lora_med.prompts.tokens_and_labels import Tokens
    from lora_med.training.trainer import AdapterTrainer

    figures = {"start": memory("VmRSS")}
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM counts from here
    loaded = load_base(base, quantization=quantization, dtype=dtype)
    figures["loading"] = memory("VmHWM")
    figures["loaded"] = memory("VmRSS")

    class Between(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            figures["between"] = memory("VmRSS")

    torch.manual_seed(0)
    documents = [
        Tokens("", torch.randint(5, 50000, (TOKENS,)).tolist(), [True] * TOKENS) for _ in range(3 * ROWS * PROCESSES)
    ]
    settings = TrainSettings(
        output_dir=str(folder / "run"), per_device_train_batch_size=ROWS, max_steps=3, max_length=TOKENS
    )
    trainer = AdapterTrainer(attach_new(loaded, LoraSettings(), seed=0), loaded, settings, train=documents)
    trainer.add_callback(Between())
    trainer.train()
    figures["peak"] = memory("VmHWM")
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(figures), encoding="utf-8")


def planned(base: str, quantization: str, dtype: str) -> tuple[int, Any]:
    """Bytes of each process while the base is loaded, and its need in a step."""
    from lora_med.adapters.tensors.method import method_for
    from lora_med.config.schema import LoraSettings
    from lora_med.models.skeleton import skeleton
    from lora_med.training.planner.run_memory import Shape, measure
    from lora_med.training.planner.sharded_memory import loading_bytes, shared_needs

    bare = skeleton(Path(base))
    config = method_for(bare, LoraSettings()).peft_config(bare, inference=False)
    shape = Shape(Path(base), config, quantization, True, dtype, "lora_med_sdpa")
    need = shared_needs(shape, measure(shape), PROCESSES)([TOKENS] * ROWS, TOKENS * ROWS, False)
    return loading_bytes(shape), need


def main() -> None:
    arguments = parser_for(__doc__).parse_args()
    sys.path.insert(0, str(HERE.parent))
    from tests.training.fsdp_ranks import run_sharded_ranks

    print(f"{machine()}\n{arguments.shape}, {PROCESSES} processes, {ROWS} rows of {TOKENS} tokens each; MiB")
    print("| base | process | at start | loading, planned | loading | loaded | between steps | peak, planned | peak |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        base = str(make_model(arguments.shape, arguments.data, Path(temporary) / "base"))
        for quantization, dtype in CASES:
            folder = Path(temporary) / f"{quantization}_{dtype}"
            work = partial(train, base, quantization, dtype, folder)
            if any(run_sharded_ranks(PROCESSES, work, folder)):
                sys.exit((folder / "error-0.txt").read_text(encoding="utf-8"))
            loading, need = planned(base, quantization, dtype)
            loading, peak = loading / MIB, max(loading, need.total) / MIB
            for rank in range(PROCESSES):
                found = json.loads((folder / f"{rank}.json").read_text(encoding="utf-8"))
                start, before, loaded, between, highest = (
                    f"{found[name]:.0f}" for name in ("start", "loading", "loaded", "between", "peak")
                )
                name = f"{'4 bits, ' if quantization == '4bit' else ''}{dtype} | {rank}"
                print(
                    f"| {name} | {start} | {loading:.0f} | {before} | {loaded} | {between} | {peak:.0f} | {highest} |"
                )


if __name__ == "__main__":
    main()
